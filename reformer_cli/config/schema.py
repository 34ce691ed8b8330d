"""What a run is made of: defaults (here and in reformer.ReformerConfig), YAML deltas, `--set`. Imports no torch."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from reformer import ReformerConfig
from reformer.config import VERSION, as_of

from reformer_cli.config.checks import faults_of
from reformer_cli.config.image_settings import of_images
from reformer_cli.tokenizers.sentencepiece_proto import SubwordKind
from reformer_cli.utils.errors import ConfigError, UserError
from reformer_cli.utils.safe_yaml import parse, parse_value, read_limited

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


Context = Annotated[int, Field(ge=2, le=2**27)]
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Where the text comes from and how it becomes tokens."""

    corpus: tuple[str, ...] = Field(default=(), description="files, folders, -, gutenberg:ID or python-reference")
    validation: tuple[str, ...] = Field(
        default=(), description="texts that are validated on instead of a held-out share, named like the corpus"
    )
    encoding: str = Field(default="utf-8", description="of the corpus files")
    field: str = Field(default="text", min_length=1, description="what holds the text in rows of .jsonl and .parquet")
    faulty: Literal["stop", "skip"] = Field(
        default="stop", description="what to do about files and rows that cannot be read as text"
    )
    invalid_bytes: Literal["refuse", "replace"] = Field(
        default="refuse",
        description="bytes that are no text in the encoding, and zero bytes: a fault of the text, or U+FFFD for each",
    )
    processes: int | None = Field(
        default=None, ge=1, le=1024, description="that read and tokenise the corpus; null: one a core"
    )
    tokenizer: Literal["auto", "bytes"] | SubwordKind = Field(
        default="auto",
        description="bytes, or parts of words that sentencepiece finds in the corpus, unigram or bpe; auto: bpe, bytes "
        "for a tiny corpus",
    )
    vocab_size: int | None = Field(
        default=None,
        ge=64,
        le=2**18,
        description="tokens of the vocabulary; null: chosen from the length of the corpus",
    )
    fold: bool | None = Field(
        default=None,
        description="the vocabulary holds each word once: capitals, and what stands before a word instead of a "
        "space, are tokens of their own; null: yes, unless model.pattern is published (transformers cannot undo it)",
    )
    image_size: tuple[int, int] | None = Field(
        default=None,
        description="height and width that images are resized and cropped to; null: the corpus is text",
    )
    context: int = Field(
        default=2048, ge=2, le=2**27, description="tokens a training step reads in one piece; of images: all of one"
    )
    held_out: float = Field(
        default=0.05,
        ge=0,
        le=0.5,
        description="share of the text that is never trained on but used for validation: the end of each document, of "
        "many short ones and of images whole ones; at most 4,000,000 characters in all; nothing where data.validation "
        "is given",
    )

    @property
    def unit(self) -> str:
        """What bits are counted for; a dimension of an image is one of its bytes."""
        return "byte" if self.image_size is None else "dim"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """How long, how fast, and how often to look."""

    steps: int | None = Field(default=None, ge=1, description="stop after so many steps")
    minutes: float | None = Field(default=None, gt=0, description="stop after so much training time")
    readings: float | None = Field(
        default=None,
        gt=0,
        description="stop once the text was read so often, even with steps or minutes left: more would learn it by "
        "heart; null: chosen by train where minutes are given and no config, else never",
    )
    batch: int = Field(default=8, ge=1, le=2**20, description="contexts a step")
    accumulate: int = Field(
        default=1, ge=1, le=2**20, description="parts of a batch worked on one after the other: the memory of one part"
    )
    context_schedule: tuple[tuple[Context, Share], ...] = Field(
        default=(),
        max_length=64,
        description="shorter contexts first, as [context, share of the run] pairs, such as [[512, 0.5]]; then "
        "data.context; a step has the same number of tokens throughout",
    )
    optimizer: Literal["adamw", "muon", "adafactor"] = Field(
        default="adamw", description="adamw; muon for the layers' matrices with AdamW for the rest; or adafactor"
    )
    learning_rate: float = Field(default=2e-3, gt=0, le=10, description="highest step size")
    schedule: Literal["cosine", "wsd", "published"] = Field(
        default="wsd",
        description="how the step size goes on after the warm-up: wsd stays, then falls at the end; cosine falls at "
        "once; published: by the inverse square root, to no set end",
    )
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the run over which the step size rises")
    final_learning_rate: float = Field(
        default=0.05, ge=0, le=1, description="step size at the end, as a share of the highest"
    )
    decay: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="schedule wsd: share of the run, at its end, in which the step size falls",
    )
    noise: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the tokens read in training that others from anywhere in the text replace; those to be "
        "predicted stay. Against learning a short text by heart",
    )
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="decay of matrices")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's decay of the mean gradient")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW's decay of the mean squared gradient")
    gradient_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of a running mean of the weights, such as 0.999, that is validated and kept as the run's "
        "result in their place; 0: none",
    )
    bad_steps: int = Field(
        default=5, ge=1, description="steps in a row without a finite loss and gradient, after which a run stops"
    )
    spike: float = Field(
        default=6.0, ge=0, description="deviations above the recent loss from which it is reported as a spike; 0: never"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="of products while training; auto: bfloat16 where it measures faster, float16 with a scaled loss "
        "on GPUs without it",
    )
    shard: bool = Field(
        default=False, description="under torchrun: every process keeps a part of parameters and optimiser (FSDP2)"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of the order of the text, and of dropout")
    eval_every: int | None = Field(
        default=None, ge=1, description="steps between validations; null: about ten over the run"
    )
    eval_tokens: int = Field(
        default=16_384, ge=1, description="held-out tokens a validation during the run scores at most"
    )
    patience: int | None = Field(
        default=None, ge=1, description="validations in a row without a new best, after which a run stops; null: none"
    )
    save_every_minutes: float = Field(default=5.0, gt=0, description="minutes between checkpoints")
    background_saves: bool = Field(
        default=True,
        description="write checkpoints while training goes on, from a copy in main memory of weights and optimiser",
    )
    keep: int = Field(default=2, ge=1, description="newest checkpoints kept; the one of the best validation stays too")
    sample_tokens: int = Field(
        default=100, ge=0, le=2**20, description="tokens of a text printed and logged at each validation; 0: none"
    )
    tensorboard: bool = Field(default=False, description="also write what is logged for TensorBoard, to tensorboard/")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvalConfig:
    """What is measured while training, beside validations; see docs/evaluation.md."""

    every: int | None = Field(
        default=None, ge=1, description="steps between evaluations, whose figures go to metrics.jsonl; null: none"
    )
    tests: tuple[Literal["perplexity", "context", "recall"], ...] = Field(
        default=("perplexity", "context", "recall"), min_length=1, description="the evaluate commands to run"
    )
    tokens: int = Field(default=16_384, ge=1, description="held-out tokens that perplexity and context score at most")
    longest: int = Field(default=4096, ge=64, le=2**27, description="how far back recall is tested, in tokens")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunConfig:
    """Everything that defines a run, as its config.yaml keeps it. corpus_digest: of the text it was begun with."""

    model: ReformerConfig
    data: DataConfig = Field(default_factory=DataConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    version: int = VERSION
    corpus_digest: str = ""


SECTIONS: dict[str, Any] = {"model": ReformerConfig, "data": DataConfig, "train": TrainConfig, "eval": EvalConfig}
Settings = dict[str, dict[str, Any]]


def describe(section: str) -> Iterator[tuple[str, Any, str]]:
    """(name, default, description) of every setting of a section."""
    for name, info in vars(SECTIONS[section])["__pydantic_fields__"].items():
        if (section, name) != ("model", "vocab_size"):
            yield name, info.get_default(call_default_factory=True), info.description or ""


def config_names() -> dict[str, Path]:
    """The recipes that come with the program, by name."""
    for folder in (Path(__file__).parents[2] / "configs", Path(__file__).parents[1] / "configs"):
        if found := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in found}
    return {}


def load_config(source: str | None, overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None) -> Settings:
    """base, overlaid by a recipe's name or a YAML file, overlaid by `--set key=value`s; checked as a whole.

    Raises ConfigError that lists every unknown key, wrong type and impossible combination, UserError for a file that
    cannot be read.
    """
    faults: list[str] = []
    merged: Settings = {name: dict((base or {}).get(name, {})) for name in SECTIONS}
    if source is not None:
        _overlay(merged, _read(source), faults)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            faults.append(f"--set {text}: expected key=value, such as --set d_model=256")
            continue
        try:
            parsed = parse_value(value)
        except ValueError as error:
            faults.append(f"--set {reprlib.repr(text)}: the value is not YAML ({error})")
            continue
        if (place := _place(key.strip(), faults)) is not None:
            merged[place[0]][place[1]] = parsed
    _check(merged, faults, source)
    return merged


def resolve(settings: Mapping[str, Mapping[str, Any]], vocab_size: int, corpus_digest: str = "") -> RunConfig:
    """The complete configuration. Raises ConfigError with every fault."""
    faults: list[str] = []
    parts = _build(settings, vocab_size, faults)
    if faults:
        raise ConfigError("the configuration cannot be used", faults)
    return RunConfig(**parts, corpus_digest=corpus_digest)


def to_yaml(config: RunConfig) -> str:
    """As a run's config.yaml: every setting, defaults included."""
    plain = {"version": config.version, "corpus_digest": config.corpus_digest}
    sections = {name: _plain(dataclasses.asdict(getattr(config, name))) for name in SECTIONS}
    return yaml.safe_dump(plain | sections, sort_keys=False, allow_unicode=True)


def from_yaml(text: str, where: str) -> RunConfig:
    """Read what `to_yaml` wrote; the file is untrusted. Raises UserError (ConfigError for its settings)."""
    content = parse(text, where, SECTIONS)
    version = content.pop("version", None)
    if not isinstance(version, int):
        raise UserError(f"{where} has no version number", "it is not the config.yaml of a run")
    if version > VERSION:
        raise UserError(
            f"{where} was made by a newer version (format {version}, this program reads up to {VERSION})",
            "upgrade with pip install --upgrade reformer-cli",
        )
    digest = content.pop("corpus_digest", "")
    faults: list[str] = []
    merged: Settings = {name: {} for name in SECTIONS}
    vocab_size = content.get("model", {}).pop("vocab_size", None) if isinstance(content.get("model"), dict) else None
    _overlay(merged, content, faults)
    merged["model"] = as_of(version, merged["model"])
    parts = _build(merged, vocab_size, faults)
    if faults:
        raise ConfigError(where, faults)
    return RunConfig(**parts, corpus_digest=str(digest))


def _read(source: str) -> dict[str, Any]:
    names = config_names()
    path = names.get(source, Path(source))
    if not path.is_file():
        raise UserError(f"no config {source!r}", f"give a YAML file or one of: {', '.join(names)}")
    return parse(read_limited(path, "a config is a YAML file"), str(path), SECTIONS)


def _overlay(merged: Settings, content: Mapping[Any, Any], faults: list[str]) -> None:
    """Put a file's sections over `merged`; unknown ones are left out and named."""
    for section, values in content.items():
        if section not in SECTIONS:
            leaf = _leaves().get(section, [])
            hint = f"; it belongs under `{leaf[0]}:`" if leaf else _near(str(section), SECTIONS)
            faults.append(f"unknown section {reprlib.repr(section)}{hint}")
        elif values is not None and not isinstance(values, dict):
            faults.append(f"{section}: expected a mapping, not {reprlib.repr(values)}")
        else:
            for key, value in (values or {}).items():
                if (place := _place(f"{section}.{key}", faults)) is not None:
                    merged[place[0]][place[1]] = value


def _leaves() -> dict[str, list[str]]:
    """Bare name -> the sections that have it."""
    found: dict[str, list[str]] = {}
    for section in SECTIONS:
        for name, _, _ in describe(section):
            found.setdefault(name, []).append(section)
    return found


def _place(key: str, faults: list[str]) -> tuple[str, str] | None:
    """`model.d_model`, or `d_model` alone where only one section has it -> (section, name)."""
    leaves = _leaves()
    section, dot, name = key.partition(".")
    if key == "model.vocab_size":
        faults.append("model.vocab_size follows from the tokenizer; set data.vocab_size")
    elif dot and section in SECTIONS:
        if section in leaves.get(name, []):
            return section, name
        elsewhere = f"; it belongs under `{leaves[name][0]}:`" if name in leaves else ""
        known = [n for n, sections in leaves.items() if section in sections]
        faults.append(f"unknown key {key}{elsewhere or _near(name, known, section + '.')}")
    elif not dot and len(leaves.get(key, [])) == 1:
        return leaves[key][0], key
    elif not dot and key in leaves:
        faults.append(f"{key} could be {' or '.join(f'{s}.{key}' for s in leaves[key])}; write the one you mean")
    else:
        faults.append(f"unknown key {key}{_near(name if dot else key, leaves)}")
    return None


def _near(name: str, known: Any, prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {prefix}{close[0]}?" if close else "; `reformer config show` prints them all"


def _check(merged: Settings, faults: list[str], source: str | None) -> None:
    _build(merged, 320, faults)  # any size will do: it is the tokenizer's to say
    if faults:
        raise ConfigError(f"config {source}" if source else "the settings", faults)


def _build(settings: Mapping[str, Mapping[str, Any]], vocab_size: Any, faults: list[str]) -> dict[str, Any]:
    parts = {}
    for name, kind in SECTIONS.items():
        values = dict(settings.get(name, {}))
        if name == "model":
            values["vocab_size"] = vocab_size
        if name == "data":
            faults += of_images(values)
        try:
            parts[name] = kind(**values)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                place = ".".join([name, *(str(part) for part in item["loc"][:1])])
                if item["type"] == "value_error":
                    faults += [f"{name}: {fault}" for fault in str(item["ctx"]["error"]).split("; ")]
                else:
                    what = item["msg"].replace("Input should", "should")
                    faults.append(f"{place}: {what}, not {reprlib.repr(item['input'])}")
        except TypeError as error:
            faults.append(f"{name}: {error}")
    faults += faults_of(parts)
    return parts


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _lists(value) for name, value in values.items()}


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, tuple) else value
