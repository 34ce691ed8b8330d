"""A run directory: self-contained, nothing executable in it, and never half written.

model.safetensors (the best weights so far), config.yaml (resolved), tokenizer.model, metrics.jsonl, checkpoints/.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer_cli.config import RunConfig, from_yaml, to_yaml
from reformer_cli.errors import UserError, is_disk_full
from reformer_cli.files import digest_file, open_aside, put_in_place, write_file, write_folder
from reformer_cli.tokenization.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from reformer import ReformerLM
    from torch import Tensor

RUNS = Path("runs")
CONFIG, WEIGHTS, TOKENIZER, METRICS = "config.yaml", "model.safetensors", "tokenizer.model", "metrics.jsonl"
CHECKPOINTS, TENSORS, META = "checkpoints", "tensors.safetensors", "meta.json"


class Run:
    """An open run directory."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config

    @classmethod
    def create(cls, path: Path | None, config: RunConfig, tokenizer: Tokenizer) -> Run:
        """Make the directory with its config and tokenizer; None: runs/NAME-DATE. Refuses one that is a run already."""
        path = path or new_path(config.data.corpus)
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

    def save_weights(self, weights: dict[str, Tensor]) -> None:
        """Keep these as the run's best."""
        from reformer.pretrained import save_tensors

        save_tensors(weights, self.path / WEIGHTS)

    def save_checkpoint(self, step: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Path:
        """Write tensors and meta of one step, whole or not at all, then drop all but the last `train.keep`."""
        from safetensors.torch import save_file

        def fill(folder: Path) -> None:
            save_file({name: t.contiguous() for name, t in tensors.items()}, folder / TENSORS)
            _describe(folder, step, meta)

        target = self._checkpoint(step)
        write_folder(target, fill)
        self._drop_old()
        return target

    def save_checkpoint_together(
        self, step: int, tensors: dict[str, Tensor], meta: dict[str, Any], chief: bool, wait: Callable[[], None]
    ) -> None:
        """`save_checkpoint` of tensors that lie in parts in several processes, each of which writes its own."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        target = self._checkpoint(step)
        aside = open_aside(target, "shards") if chief else target.with_name(f".{target.name}.shards.part")
        wait()
        # As safetensors: the library's own format keeps a pickled index.
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(aside), save_distributed=True))
        wait()
        if chief:
            _describe(aside, step, meta)
            put_in_place(aside, target)
            self._drop_old()
        wait()

    def whole_checkpoint(self) -> tuple[int, Path, dict[str, Any]]:
        """(step, folder, meta) of the newest whole one; a damaged one is named and skipped for the one before."""
        for folder in self._saved():
            try:
                content = json.loads((folder / META).read_text("utf-8"))
                if _digests(folder) != content["sha256"]:
                    raise ValueError("the checksum differs")
                return int(content["step"]), folder, dict(content["meta"])
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

    def _checkpoint(self, step: int) -> Path:
        return self.path / CHECKPOINTS / f"step-{step:08d}"

    def _saved(self) -> list[Path]:
        """Newest first."""
        return sorted((self.path / CHECKPOINTS).glob("step-*"), reverse=True)

    def _drop_old(self) -> None:
        for old in self._saved()[self.config.train.keep :]:
            shutil.rmtree(old, ignore_errors=True)


def checkpoint_meta(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself beside its tensors."""
    return dict(json.loads((folder / META).read_text("utf-8"))["meta"])


def read_checkpoint(folder: Path, tensors: dict[str, Tensor], together: bool) -> None:
    """Fill tensors, which may lie in parts, by name from a checkpoint's files, however many processes wrote them.

    together: whether several processes read it at once. Raises ValueError for names or shapes that it does not have.
    """
    from safetensors import safe_open

    if together or not (folder / TENSORS).exists():
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
        from torch.distributed.checkpoint.state_dict_loader import load

        try:
            load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not together)
        except CheckpointException as error:
            raise ValueError(" ".join(str(error).split())[:500]) from None
        return
    with safe_open(folder / TENSORS, framework="pt") as file:
        missing = sorted(set(tensors) - set(file.keys()))
        if missing:
            raise ValueError(
                f"{', '.join(missing[:3])} are missing" if len(missing) > 1 else f"{missing[0]} is missing"
            )
        for name, tensor in tensors.items():
            found = file.get_tensor(name)
            if found.shape != tensor.shape:
                raise ValueError(f"{name} is {list(found.shape)}, not {list(tensor.shape)}")
            tensor.copy_(found)


def _describe(folder: Path, step: int, meta: dict[str, Any]) -> None:
    (folder / META).write_text(json.dumps({"step": step, "sha256": _digests(folder), "meta": meta}), "utf-8")


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: digest_file(path) for path in sorted(folder.glob("*.safetensors"))}


def check_new(path: Path) -> None:
    """Refuse to overwrite: UserError if the directory holds a run or anything else."""
    if (path / CONFIG).exists():
        raise UserError(
            f"{path} is a run already", f"go on with `reformer train --resume --run {path}` or choose another --run"
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not empty", "choose another --run")


def new_path(corpus: tuple[str, ...]) -> Path:
    """runs/NAME-DATE, which nothing has yet."""
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
