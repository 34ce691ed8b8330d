"""How text is drawn: the defaults of `reformer generate`, and what each may be. Imports no torch."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from reformer_cli.sampling.endings import PATIENCE, TOKENS_A_WORD, Unit
from reformer_cli.sampling.presets import PRESETS

# What each step of `samplers` is switched on by: the field, and its value at which the step does nothing.
STEPS: dict[str, dict[str, float]] = {
    "penalties": {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0},
    "dry": {"dry_multiplier": 0},
    "temperature": {},
    "top_k": {"top_k": 0},
    "typical_p": {"typical_p": 1},
    "top_p": {"top_p": 1},
    "min_p": {"min_p": 0},
    "top_n_sigma": {"top_n_sigma": 0},
    "xtc": {"xtc_probability": 0},
}
FRESH = "drawn anew each time, and printed"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(allow_inf_nan=False, extra="forbid"))
class SamplingConfig:
    """Filters are applied in the order of `samplers` (after --logit-bias and --no-repeat-ngram-size), then one token is
    drawn."""

    max_tokens: int = Field(default=500, ge=0, description="Most tokens to make; fewer if the text ends before.")
    max_words: int = Field(
        default=0, ge=0, le=10_000_000, description="Stop at the end of a sentence after about so many words; 0: off."
    )
    stop_at: Unit | None = Field(default=None, description="Stop at the end of one of these.")
    preset: Literal["plain", "careful", "wild", "verse"] = Field(
        default="plain", description="Begin with the numbers of a named way to draw; options given here go before it."
    )
    temperature: float = Field(
        default=0.95,
        ge=0,
        le=100,
        description="Below 1 more predictable, above more surprising; 0: always the likeliest.",
    )
    dynatemp_range: float = Field(
        default=0.0, ge=0, le=100, description="Let it vary so far both ways, low where the model is sure; 0: it stays."
    )
    dynatemp_exponent: float = Field(
        default=1.0, gt=0, le=10, description="How it varies with the model's uncertainty; 1: evenly."
    )
    top_k: int = Field(default=0, ge=0, description="Draw among the K likeliest tokens only; 0: among all.")
    top_p: float = Field(
        default=0.95, gt=0, le=1, description="Draw among the likeliest tokens that reach this together; 1: all."
    )
    min_p: float = Field(
        default=0.0, ge=0, le=1, description="Leave out what is less likely than this share of the likeliest; 0: none."
    )
    typical_p: float = Field(
        default=1.0, gt=0, le=1, description="The same of tokens that surprise about as much as expected; 1: all."
    )
    top_n_sigma: float = Field(
        default=0.0, ge=0, le=100, description="Leave out what is so many standard deviations below the best; 0: none."
    )
    xtc_probability: float = Field(
        default=0.0, ge=0, le=1, description="How often the likeliest tokens are left out (XTC); 0: never."
    )
    xtc_threshold: float = Field(
        default=0.1, gt=0, le=1, description="XTC leaves out tokens this likely, all but the least likely of them."
    )
    mirostat: Literal[0, 2] = Field(
        default=0, description="2: keep the surprise near --mirostat-tau (Mirostat 2.0) in place of top-k and the like."
    )
    mirostat_tau: float = Field(default=5.0, gt=0, le=100, description="The surprise to keep, in bits a token.")
    mirostat_eta: float = Field(default=0.1, gt=0, le=1, description="How fast Mirostat corrects itself.")
    repetition_penalty: float = Field(
        default=1.0, gt=0, le=10, description="Make what occurred lately less likely by this factor (CTRL); 1: off."
    )
    presence_penalty: float = Field(
        default=0.0, ge=-100, le=100, description="Taken off the score of every token that occurred lately; 0: off."
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-100, le=100, description="Taken off for each time that a token occurred lately; 0: off."
    )
    repetition_window: int = Field(default=256, ge=1, le=2**20, description="How many tokens back these three look.")
    dry_multiplier: float = Field(
        default=0.8, ge=0, le=100, description="Make it unlikely that a stretch of text comes again (DRY); 0: off."
    )
    dry_base: float = Field(default=1.75, ge=1, le=8, description="How much more so with each token of the stretch.")
    dry_allowed_length: int = Field(
        default=3, ge=1, le=50, description="Tokens of a stretch that may come again at no cost."
    )
    dry_breakers: str = Field(
        default='\\n:"*', description="Characters across which no stretch goes; \\n: the end of a line."
    )
    no_repeat_ngram_size: int = Field(
        default=0, ge=0, le=64, description="Never make a sequence of N tokens a second time, prompt included; 0: off."
    )
    lexicon: Literal["any", "known"] = Field(
        default="any", description="known: only words of the training text and of the prompt; any: also new ones."
    )
    max_copy: int | None = Field(
        default=None, ge=1, le=1000, description="Never more than N words in a row that stand in the training text."
    )
    samplers: str = Field(
        default=";".join(STEPS), description="Which steps are taken, in which order; one left out is not taken."
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description=f"The same seed draws the same text; none: {FRESH}."
    )
    num_samples: int = Field(
        default=1, ge=1, le=4096, description="How many texts to make, in one batch; sample k is drawn by seed + k - 1."
    )
    num_beams: int = Field(
        default=1, ge=1, le=256, description="Above 1: search for the likeliest texts, so many at a time; not drawn."
    )

    @model_validator(mode="before")
    @classmethod
    def _begin_with_preset(cls, given: Any) -> Any:
        named = given.kwargs or {}
        begun: dict[str, Any] = dict(PRESETS.get(named.get("preset", "plain"), {}))
        if "max_tokens" not in named:
            words, unit = named.get("max_words", 0), named.get("stop_at")
            if isinstance(words, int) and words > 0:
                begun["max_tokens"] = TOKENS_A_WORD * words
            elif unit in PATIENCE:
                begun["max_tokens"] = PATIENCE[unit]
        return ArgsKwargs((), {**begun, **named})

    @field_validator("samplers")
    @classmethod
    def _known_steps(cls, text: str) -> str:
        names = [name.strip() for name in text.split(";") if name.strip()]
        wrong = [name for name in names if name not in STEPS]
        if wrong or len(set(names)) < len(names):
            what = f"{wrong[0]} is not known" if wrong else "one is named twice"
            raise ValueError(f"{what}; use some of {';'.join(STEPS)}")
        return ";".join(names)

    @model_validator(mode="after")
    def _nothing_for_nothing(self) -> SamplingConfig:
        """An option whose step is left out would do nothing."""
        why = "mirostat decides" if self.mirostat else "its step is not in samplers"
        idle = [
            f"{field} {getattr(self, field)} does nothing: {why}"
            for step, fields in STEPS.items()
            for field, off in fields.items()
            if step not in self.steps and getattr(self, field) not in (off, _default(field))
        ]
        if idle:
            raise ValueError("; ".join(idle))
        return self

    @property
    def idle_in_a_search(self) -> list[str]:
        """Fields that were set and do nothing where texts are searched for, as options."""
        drawn = [field for step, fields in STEPS.items() if step not in ("penalties", "dry") for field in fields]
        drawn += ["temperature", "dynatemp_range", "mirostat", "lexicon", "max_copy"]
        return [f"--{f.replace('_', '-')} {v}" for f in drawn if (v := getattr(self, f)) != _default(f)]

    @property
    def steps(self) -> list[str]:
        """Names of `samplers`, in order; Mirostat takes the place of those that leave tokens out."""
        names = self.samplers.split(";") if self.samplers else []
        return [n for n in names if n in ("penalties", "dry", "temperature")] if self.mirostat else names

    @property
    def breakers(self) -> str:
        """Of `dry_breakers`, each character."""
        return self.dry_breakers.replace(r"\n", "\n").replace(r"\t", "\t")

    @cached_property
    def switched_on(self) -> list[str]:
        """Those of `steps` that change anything."""
        own = {"temperature": self.temperature not in (0, 1) or self.dynatemp_range > 0}
        return [
            step
            for step in self.steps
            if own.get(step, False) or any(getattr(self, field) != off for field, off in STEPS[step].items())
        ]

    @cached_property
    def alike(self) -> tuple[object, ...]:
        """Equal for settings of which rows are filtered and drawn from together; they may differ in numbers that a
        filter takes row by row (filters.py)."""
        varied = (self.dynatemp_range, self.dynatemp_exponent) if self.temperature and self.dynatemp_range else ()
        numbers = (self.temperature, *varied) if varied or not self.temperature else ()
        return (tuple(self.switched_on), self.mirostat, self.top_k, numbers)


def _default(field: str) -> Any:
    """What it is where nobody says otherwise: no reason to refuse that its step is left out."""
    return vars(SamplingConfig)["__pydantic_fields__"][field].default
