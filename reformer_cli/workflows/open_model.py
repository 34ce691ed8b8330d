"""A run's model as it was trained, or with other numbers of hash rounds and buckets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reformer_cli.utils.devices import backend_reason, free_memory, pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import as_size

if TYPE_CHECKING:
    from reformer import ReformerConfig, ReformerLM

    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class OpenModel:
    """A run, its tokenizer, and its best weights on a device."""

    run: Run
    tokenizer: Tokenizer
    model: ReformerLM

    @property
    def joins(self) -> bool:
        """Whether the run read its corpus with the lines of paragraphs joined (data.unwrap)."""
        return self.run.config.data.unwrap == "join"

    def pieces(self, file: str) -> Iterator[str]:
        """The text of a file as the run would have read it, see `read_pieces`."""
        from reformer_cli.data.text_chunks import read_pieces

        return read_pieces(file, join=self.joins)


def open_model(
    run: str | Path | Run | None, device: str = "auto", *, n_hashes: int | None = None, far_buckets: int | None = None,
    images: bool = False,
) -> OpenModel:  # fmt: skip
    """The model of a run (None: of the newest) on a device that can compute it, with other hash rounds (None: as
    trained). images: whether it may be one of images.

    Raises UserError for no run, one of images that may not be, and for what the model cannot have.
    """
    from reformer_cli.runs.run import Run

    opened = run if isinstance(run, Run) else Run.open(Path(run) if run is not None else None)
    if not images and opened.config.data.image_size is not None:
        raise UserError(f"{opened.path} was trained on images", "they have `reformer evaluate perplexity`")
    where = pick_device(device)
    backend_reason(opened.config.model, where)
    tokenizer, model = opened.tokenizer(), opened.load_model(where)
    return OpenModel(opened, tokenizer, rehashed(model, n_hashes, far_buckets))


def rehashed(model: ReformerLM, n_hashes: int | None, far_buckets: int | None) -> ReformerLM:
    """The model with other hash rounds: first the buckets, since further rounds are drawn with all of them."""
    from reformer.rehash import with_far_buckets, with_rounds

    if far_buckets is not None:
        with refused("--far-buckets"):
            model = with_far_buckets(model, far_buckets)
    if n_hashes is not None:
        with refused("--n-hashes"):
            model = with_rounds(model, n_hashes)
    return model


@contextmanager
def refused(what: str, hint: str = "") -> Iterator[None]:
    """What the core says of an option's value, or of a command's model, becomes a user's mistake."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{what}: {error}", hint or (f"or leave {what} out" if what.startswith("--") else "")) from None


def check_length(config: ReformerConfig, tokens: int, what: str, hint: str) -> None:
    """Raises UserError where a model's positions cannot number so many tokens: what they are, and what to do."""
    with refused(what, hint):
        config.check_length(tokens)


def check_memory(config: ReformerConfig, tokens: int, samples: int, device: str) -> None:
    """Refuse a text whose decoding state would not fit: that of `full` layers grows with the text."""
    from reformer.memory import largest_state

    needed, free = largest_state(config, tokens, samples), free_memory(device)
    if needed > free:
        raise UserError(
            f"a text of {tokens:,} tokens needs {as_size(needed)} for {samples} samples, {as_size(free)} are free",
            "shorten the prompt, or lower --max-tokens, --num-samples or --num-beams",
        )


def decoding_note(config: ReformerConfig) -> str | None:
    """Where decoding is not what was trained, that it is so."""
    if not config.chunked:
        return None
    return "attention in chunks: they depend on later text, so it is decoded bucket by bucket (docs/decoding.md)"
