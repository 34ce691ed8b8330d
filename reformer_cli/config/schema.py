"""What can be set, with defaults and descriptions; the model's settings are reformer.ReformerConfig. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from reformer import ReformerConfig

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

SubwordKind = Literal["unigram", "bpe"]  # vocabularies that are trained here
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
    text_field: str = Field(
        default="text", min_length=1, description="what holds the text in rows of .jsonl and .parquet"
    )
    errors: Literal["strict", "replace", "skip"] = Field(
        default="strict",
        description="files and rows that cannot be read as text: strict stops and names them, skip leaves them out, "
        "replace stops too, but makes U+FFFD of bytes that are no text in the encoding, and of zero bytes",
    )
    num_workers: int | None = Field(
        default=None, ge=1, le=1024, description="processes that read and tokenise the corpus; null: one a core"
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
    image_size: tuple[int, int] | None = Field(
        default=None,
        description="height and width that images are resized and cropped to; null: the corpus is text",
    )
    context: int = Field(
        default=2048, ge=2, le=2**27, description="tokens a training step reads in one piece; of images: all of one"
    )
    val_fraction: float = Field(
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
    corpus_digest: str = ""


SECTIONS: dict[str, Any] = {"model": ReformerConfig, "data": DataConfig, "train": TrainConfig, "eval": EvalConfig}
Settings = dict[str, dict[str, Any]]
