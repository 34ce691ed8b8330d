"""What can be set, with defaults and descriptions; the model's settings are reformer.ReformerConfig. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from reformer import ReformerConfig

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

GRADIENT_CLIP = 1.0  # largest norm of a step's gradient
SubwordKind = Literal["unigram", "bpe"]  # vocabularies that are trained here
Context = Annotated[int, Field(ge=2, le=2**27)]
Share = Annotated[float, Field(gt=0, lt=1)]
Share0 = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Where the text comes from and how it becomes tokens."""

    corpus: tuple[str, ...] = Field(default=(), description="files, folders, -, gutenberg:ID or python-reference")
    validation: tuple[str, ...] = Field(
        default=(), description="texts that are validated on instead of a held-out share, named like the corpus"
    )
    encoding: str = Field(
        default="auto",
        description="of the corpus files; auto: UTF-8 or, where a file is none, what its bytes are for sure",
    )
    text_field: str = Field(
        default="text", min_length=1, description="what holds the text in rows of .jsonl, .parquet, .csv and .json"
    )
    errors: Literal["strict", "replace", "skip"] = Field(
        default="strict",
        description="files and rows that cannot be read as text: strict stops and names them, skip leaves them out, "
        "replace stops too, but makes U+FFFD of bytes that are no text in the encoding, and of zero bytes",
    )
    ruby: Literal["drop", "keep"] = Field(
        default="drop",
        description="pronunciations printed beside the words of HTML and EPUB pages: left out, or kept as text",
    )
    duplicates: Literal["keep", "drop"] = Field(
        default="keep",
        description="texts and passages that stand in an earlier text of the corpus too, and the running heads of "
        "pages: only told of, or left out",
    )
    unwrap: Literal["auto", "keep", "join"] = Field(
        default="auto",
        description="line ends within the paragraphs of text that is wrapped at a width: join makes spaces of them, "
        "of prompt files and scored texts too; auto keeps them, and `reformer corpus` says how many would go",
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
        default=None, description="height and width that images are resized and cropped to; null: the corpus is text"
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
    max_epochs: float | None = Field(
        default=None,
        gt=0,
        description="stop once the text was read so often, even with steps or minutes left: more would overfit; "
        "null: chosen by train where minutes are given and no config, else never",
    )
    batch_size: int = Field(default=8, ge=1, le=2**20, description="contexts a step")
    accumulation_steps: int = Field(
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
    schedule: Literal["cosine", "wsd", "rsqrt"] = Field(
        default="wsd",
        description="how the step size goes on after the warm-up: wsd stays, then falls at the end; cosine falls at "
        "once; rsqrt: by the inverse square root, to no set end",
    )
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the run over which the step size rises")
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="decay of matrices")
    betas: tuple[Share0, Share0] = Field(
        default=(0.9, 0.95), description="AdamW's decays of the mean gradient and of its mean square"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="of products while training; auto: bfloat16 where it measures faster, float16 with a scaled loss "
        "on GPUs without it",
    )
    fsdp: bool = Field(
        default=False, description="under torchrun: every process keeps a part of parameters and optimiser (FSDP2)"
    )
    patience: int | None = Field(
        default=None, ge=1, description="validations in a row without a new best, after which a run stops; null: none"
    )
    keep_checkpoints: int = Field(
        default=2, ge=1, description="newest checkpoints kept; the one of the best validation stays too"
    )
    tensorboard: bool = Field(default=False, description="also write what is logged for TensorBoard, to tensorboard/")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvalConfig:
    """How often a model is looked at while it trains, and how closely; see docs/evaluation.md."""

    every: int | None = Field(
        default=None,
        ge=1,
        description="steps between validations; null: ten, fewer where they take over a twentieth of the run",
    )
    tokens: int = Field(
        default=16_384, ge=1, description="held-out tokens that a validation, or a test of tests_every, scores at most"
    )
    tests_every: int | None = Field(
        default=None,
        ge=1,
        description="steps between the tests of `reformer evaluate` (perplexity, context, recall), whose figures go to "
        "metrics.jsonl; null: none",
    )


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
