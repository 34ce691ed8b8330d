"""A run directory: self-contained, nothing executable in it, and never half written.

model.safetensors (the best weights so far), config.yaml (resolved), tokenizer.model, metrics.jsonl, checkpoints/.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer_cli.config import RunConfig, from_yaml, to_yaml
from reformer_cli.errors import UserError, is_disk_full
from reformer_cli.files import digest_file, write_file, write_folder
from reformer_cli.tokenization.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from reformer import ReformerLM
    from torch import Tensor

RUNS = Path("runs")
CONFIG, WEIGHTS, TOKENIZER, METRICS = "config.yaml", "model.safetensors", "tokenizer.model", "metrics.jsonl"
TENSORS, META = "tensors.safetensors", "meta.json"


class Run:
    """An open run directory."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config

    @classmethod
    def create(cls, path: Path | None, config: RunConfig, tokenizer: Tokenizer) -> Run:
        """Make the directory with its config and tokenizer; None: runs/NAME-DATE. Refuses one that is a run already."""
        path = path or _new_path(config.data.corpus)
        check_new(path)
        path.mkdir(parents=True, exist_ok=True)
        write_file(path / TOKENIZER, tokenizer.serialise())
        write_file(path / CONFIG, to_yaml(config))
        return cls(path, config)

    @classmethod
    def open(cls, path: Path | None) -> Run:
        """A run that exists; None: the newest under runs/. Raises UserError if it is none, damaged or newer."""
        path = path or _newest()
        if not (path / CONFIG).is_file():
            raise UserError(
                f"{path} is not a run directory (no {CONFIG} in it)", "train one with `reformer train CORPUS`"
            )
        try:
            return cls(path, from_yaml((path / CONFIG).read_text("utf-8"), str(path / CONFIG)))
        except UnicodeDecodeError as error:
            raise UserError(f"{path / CONFIG} is not UTF-8 text (byte {error.start})", "it is damaged") from None

    def tokenizer(self) -> Tokenizer:
        """The tokenizer this run was trained with. Raises UserError if it is damaged or does not fit the model."""
        tokenizer = load_tokenizer(self.path / TOKENIZER)
        if tokenizer.vocab_size != (expected := self.config.model.vocab_size):
            raise UserError(
                f"{self.path / TOKENIZER} has {tokenizer.vocab_size} tokens, the model {expected}",
                "it was replaced or is damaged",
            )
        return tokenizer

    def load_model(self, device: str = "cpu") -> ReformerLM:
        """The best weights so far, ready to use. Raises UserError if they are missing, truncated or tampered with."""
        from reformer.pretrained import load_weights

        if not (self.path / WEIGHTS).is_file():
            raise UserError(
                f"{self.path} has no weights yet ({WEIGHTS})",
                f"let it train: reformer train --resume --run {self.path}",
            )
        try:
            return load_weights(self.config.model, self.path / WEIGHTS, device)
        except ValueError as error:
            raise UserError(
                str(error), f"restore the file, or go on from a checkpoint: reformer train --resume --run {self.path}"
            ) from None

    def save_model(self, model: ReformerLM) -> None:
        """Keep these weights as the run's best."""
        from reformer.pretrained import save_weights

        save_weights(model, self.path / WEIGHTS)

    def save_checkpoint(self, step: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Path:
        """Write tensors and meta of one step, whole or not at all, then drop all but the last `train.keep`."""
        from safetensors.torch import save_file

        def fill(folder: Path) -> None:
            save_file({name: t.contiguous() for name, t in tensors.items()}, folder / TENSORS)
            content = {"step": step, "sha256": digest_file(folder / TENSORS), "meta": meta}
            (folder / META).write_text(json.dumps(content), "utf-8")

        target = self._checkpoints / f"step-{step:08d}"
        write_folder(target, fill)
        for old in list(self._saved())[self.config.train.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def load_checkpoint(self) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
        """(step, tensors, meta) of the newest whole one; a damaged one is named and skipped for the one before."""
        from safetensors.torch import load_file

        for folder in self._saved():
            try:
                content = json.loads((folder / META).read_text("utf-8"))
                if digest_file(folder / TENSORS) != content["sha256"]:
                    raise ValueError("the checksum differs")
                return int(content["step"]), load_file(folder / TENSORS), dict(content["meta"])
            except Exception as error:
                print(f"warning: checkpoint {folder} is damaged ({error}); trying the one before", file=sys.stderr)
        raise UserError(f"{self.path} has no whole checkpoint to go on from", "start anew with another --run")

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl. A full disk loses the line, not the run."""
        try:
            with open(self.path / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            if not is_disk_full(error):
                raise
            print(f"warning: {error.strerror}: a line of {self.path / METRICS} was lost", file=sys.stderr)

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps later than the checkpoint that a resumed run goes on from."""
        path = self.path / METRICS
        if path.exists():
            kept = [line for line in path.read_text("utf-8").splitlines(True) if _step_of(line) <= step]
            write_file(path, "".join(kept))

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def _saved(self) -> Iterator[Path]:
        """Newest first."""
        yield from sorted(self._checkpoints.glob("step-*"), reverse=True)


def check_new(path: Path) -> None:
    """Refuse to overwrite: UserError if the directory holds a run or anything else."""
    if (path / CONFIG).exists():
        raise UserError(
            f"{path} is a run already", f"go on with `reformer train --resume --run {path}` or choose another --run"
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not empty", "choose another --run")


def _new_path(corpus: tuple[str, ...]) -> Path:
    stem = Path(corpus[0]).name.split(".")[0].replace(":", "-").strip("-") if corpus else ""
    name = f"{stem or 'text'}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, n = RUNS / name, 1
    while path.exists():
        n += 1
        path = RUNS / f"{name}-{n}"
    return path


def _newest() -> Path:
    found = [p.parent for p in RUNS.glob(f"*/{CONFIG}")]
    if not found:
        raise UserError(
            f"no run under {os.path.join(os.curdir, RUNS)}", "train one with `reformer train CORPUS`, or say --run DIR"
        )
    return max(found, key=lambda p: (p / CONFIG).stat().st_mtime_ns)


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line).get("step", 0))
    except (ValueError, AttributeError, TypeError):
        return 0
