"""How text is drawn: the defaults of `reformer generate`, and what each may be. Imports no torch."""

from __future__ import annotations

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(allow_inf_nan=False, extra="forbid"))
class SamplingConfig:
    """Filters are applied in this order (after --logit-bias), then one token is drawn."""

    max_tokens: int = Field(default=500, ge=0, description="Most tokens to make; fewer if the text ends before.")
    repetition_penalty: float = Field(
        default=1.0,
        gt=0,
        le=10,
        description="Make tokens that occurred lately less likely by this factor (CTRL's rule); 1: off.",
    )
    repetition_window: int = Field(
        default=256, ge=1, le=2**20, description="How many tokens back the repetition penalty looks."
    )
    no_repeat_ngram_size: int = Field(
        default=0, ge=0, le=64, description="Never make a sequence of N tokens a second time, prompt included; 0: off."
    )
    temperature: float = Field(
        default=0.8,
        ge=0,
        le=100,
        description="Below 1: more predictable, above 1: more surprising; 0: always the likeliest (greedy).",
    )
    top_k: int = Field(default=0, ge=0, description="Draw among the K likeliest tokens only; 0: among all.")
    top_p: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Draw among the likeliest tokens that together reach this probability; 1: all.",
    )
    min_p: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Leave out tokens less likely than this share of the likeliest one; 0: none.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="The same seed draws the same text.")
    num_samples: int = Field(default=1, ge=1, le=4096, description="How many texts to make, in one batch.")
    num_beams: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Above 1: nothing is drawn, the likeliest texts are searched for among this many at a time.",
    )
