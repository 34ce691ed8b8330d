"""`reformer train --from auto`: whether a new run begins with the starter, or with weights of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from reformer_cli.config.schema import Settings
from reformer_cli.data import copy_task, sources
from reformer_cli.data.scan import Scan
from reformer_cli.data.text_decoding import Options, UnreadableText
from reformer_cli.runs.starter import NAME, starter
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.training.auto_config import Text
from reformer_cli.workflows.choose_settings import Chooser, say_choice
from reformer_cli.workflows.init_from import Start

AUTO, NONE = "auto", "none"
FREE = {"backend", "dropout", "chunk_heads", "chunk_tokens", "gradient_dtype", "seed"}  # leave the weights as they are
PARTS, PART = 32, 8192  # stretches of a text that stand for it, and characters of one
SCORED, CHARACTERS, UNSCORED = 8, 2400, 64  # of those: how many are scored, how much of one, tokens before it
LARGEST = 2**22  # characters that are read of the files that a sample is from, together
# What the starter predicts a text with falls by more than this as soon as it is trained on it (the same rows).
GAIN = 1.15


def why_anew(settings: Settings, config: str | None, tokenizer: Tokenizer | None) -> str | None:
    """What a user asked for that does not go with the starter; None: nothing."""
    model, data = settings["model"], settings["data"]
    if copy_task.find(data.get("corpus", ())) is not None:
        return "a task is no text"
    if data.get("image_size") is not None:
        return "images are no text"
    if tokenizer is not None:
        return "--tokenizer is another than the starter's"
    named = [f"model.{n}" for n in model if n not in FREE and model[n] is not None]
    named += [f"data.{n}" for n in ("tokenizer", "vocab_size") if data.get(n) is not None]
    if named:
        others = f" and {len(named) - 1} more" if len(named) > 1 else ""
        return f"{named[0]}{others} {'is' if len(named) == 1 else 'are'} for a new model"
    return f"--config {config} is for a new model" if config is not None else None


class StarterOrNew:
    """The decision, which needs the text: `open_dataset` asks for the tokenizer when it knows it."""

    def __init__(self, folder: Path, chooser: Chooser) -> None:
        self.start: Start | None = None  # where the starter was chosen
        self._folder, self._chooser = folder, chooser

    def tokenizer(self, text: Text, parts: list[str]) -> Tokenizer | None:
        """The starter's where a text of which these are parts is begun with it, else None; says which, and why."""
        start = Start(self._folder)
        start.path = Path(NAME)  # where it lies on this machine is nothing to tell
        start.untrained = found = bits_per_byte(start, parts)
        new = self._chooser.best(text, None)[0].expected
        better = found < GAIN * new
        reason = f"untrained on this text, the starter predicts it with {found:.2f} bits/byte; a new model is expected "
        say_choice("--from", NAME if better else NONE, f"{reason}to reach {new:.2f} in {self._chooser.budget}")
        self.start = start if better else None
        return start.tokenizer if better else None


def starter_or_new(
    init_from: str, settings: Settings, config: str | None, tokenizer: Tokenizer | None, chooser: Chooser
) -> StarterOrNew | None:
    """Who decides what to begin with once the text is known; None: that is clear already, and said."""
    folder = starter()
    if init_from != AUTO or folder is None:
        return None
    if (why := why_anew(settings, config, tokenizer)) is not None:
        say_choice("--from", NONE, why)
        return None
    return StarterOrNew(folder, chooser)


def sample(scan: Scan) -> list[str]:
    """Stretches from all over a corpus, at most PARTS of PART characters."""
    every = max(1, scan.files_read // PARTS)
    each = LARGEST * every // max(1, scan.files_read)
    text = ""
    for n, source, record in scan.files():
        if n % every == 0 and record.bytes:
            text += "".join(_beginning(source, scan.options, each)) + "\n"
    apart = max(PART, len(text) // PARTS)
    return [text[at : at + PART] for at in range(0, len(text), apart)]


def _beginning(source: sources.Source, options: Options, characters: int) -> Iterator[str]:
    """Of a file, piece by piece, about so many characters."""
    with suppress(UnreadableText):
        for document in sources.documents(source, options):
            for piece in document.pieces:
                yield piece[:characters]
                if (characters := characters - len(piece)) <= 0:
                    return


def bits_per_byte(start: Start, parts: list[str]) -> float:
    """How well a model predicts stretches of a text, each after its own first tokens alone."""
    lengths = torch.from_numpy(start.tokenizer.byte_lengths())
    nats = n_bytes = 0.0
    for part in parts[:: max(1, len(parts) // SCORED)][:SCORED]:
        ids = torch.tensor(start.tokenizer.encode(part[:CHARACTERS]).tolist())
        tokens = torch.cat([torch.tensor([start.tokenizer.end]), ids])[None]
        skipped = min(UNSCORED, len(ids) // 4)
        nats += float(start.model.score_forward(tokens[:, :-1], tokens[:, 1:])[0, skipped:].sum())
        n_bytes += float(lengths[ids[skipped:]].sum())
    return nats / math.log(2) / max(1.0, n_bytes)
