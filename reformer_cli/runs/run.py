"""A run directory: self-contained, nothing executable in it, and never half written.

model.safetensors (the best weights so far), config.yaml (resolved), tokenizer.model, metrics.jsonl, checkpoints/.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from reformer_cli.config.load import from_yaml, to_yaml
from reformer_cli.config.schema import RunConfig
from reformer_cli.runs.checkpoints import Checkpoints
from reformer_cli.runs.starter import NAME, starter
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.tokenizers.load import load_tokenizer
from reformer_cli.utils.console import say, warn
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import write_file
from reformer_cli.utils.format import ago
from reformer_cli.utils.safe_yaml import read_limited

if TYPE_CHECKING:
    from reformer import ReformerLM
    from torch import Tensor

RUNS = Path("runs")
CONFIG, WEIGHTS, TOKENIZER, METRICS = "config.yaml", "model.safetensors", "tokenizer.model", "metrics.jsonl"
WORDS = "words.txt.gz"  # those of its text, a line each, as novelty/words.py compares them
LOCK = ".lock"
TAIL = 20_000  # bytes of metrics.jsonl in which its last lines are looked for


class Run:
    """An open run directory."""

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.path, self.config.train.keep_checkpoints)

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config
        self._metrics: IO[bytes] | None = None
        self._lock: Lock | None = None

    @classmethod
    def create(cls, path: Path | None, config: RunConfig, tokenizer: Tokenizer) -> Run:
        """Make the directory with its config and tokenizer, and lock it; None: runs/NAME-DATE. Refuses one that is a
        run already."""
        path = path or new_path(config.data.corpus)
        check_new(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, config)
        run.lock()
        check_new(path)  # once more: another process may have been as fast
        write_file(path / TOKENIZER, tokenizer.serialise())
        write_file(path / CONFIG, to_yaml(config))  # the last: a directory without it is none, and can be begun again
        return run

    @classmethod
    def open(cls, path: Path | None, trained: bool = False) -> Run:
        """A run that exists; `starter`: the program's own; None: the newest under runs/, of those with a text of their
        own where `trained`, and else the starter, which is said. Raises UserError if it is none or damaged."""
        if path is None:
            newest_first = _newest_first(trained)
            path = newest_first[0]
            if trained and len(newest_first) > 1:  # an imported model has nothing to resume
                path = next((p for p in newest_first if cls.open(p).config.data.corpus), path)
        if str(path) == NAME and not (path / CONFIG).is_file():  # a folder of that name is a user's own run
            path = starter() or path
        if not (path / CONFIG).is_file():
            raise UserError(
                f"{path} is not a run directory (no {CONFIG} in it)", "train one with `reformer train CORPUS`"
            )
        return cls(path, from_yaml(read_limited(path / CONFIG, "it is damaged"), str(path / CONFIG)))

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
        from reformer import ReformerLM
        from reformer.checkpoint import read_tensors

        if not (self.path / WEIGHTS).is_file():
            raise UserError(
                f"{self.path} has no weights yet ({WEIGHTS})",
                f"let it train: reformer train --resume --run {self.path}",
            )
        try:
            config = self.config.model
            tensors = read_tensors(self.path / WEIGHTS, partial(ReformerLM.tensor_shapes, config), device)
            return ReformerLM.from_tensors(config, tensors)
        except ValueError as error:
            raise UserError(
                str(error), f"restore the file, or go on from a checkpoint: reformer train --resume --run {self.path}"
            ) from None

    def save_weights(self, weights: dict[str, Tensor]) -> None:
        """Keep these as the run's best."""
        from reformer.checkpoint import write_tensors

        write_tensors(weights, self.path / WEIGHTS)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl. A full disk loses the line, not the run."""
        try:
            if self._metrics is None:
                self._metrics = open(self.path / METRICS, "ab", buffering=0)  # noqa: SIM115
            self._metrics.write(json.dumps(record).encode() + b"\n")
        except OSError as error:
            warn(f"{error.strerror}: a line of {self.path / METRICS} was lost")

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl: what a checkpoint made now goes on after."""
        path = self.path / METRICS
        return path.stat().st_size if path.exists() else 0

    def forget_after(self, size: int) -> None:
        """Cut metrics.jsonl to the size that it had at the checkpoint that a resumed run goes on from."""
        path = self.path / METRICS
        if path.is_symlink():
            raise UserError(f"{path} is a link", "a run directory keeps its own files; remove the link")
        if path.exists():
            with open(path, "rb+") as file:
                # A power cut may have taken lines that the checkpoint counts, and half of one.
                file.truncate(min(size, path.stat().st_size))
                whole = path.read_bytes().rfind(b"\n") + 1
                file.truncate(whole)

    def summary(self) -> str:
        """Which run this is, in one line: its directory, text, steps, age."""
        names = [Path(name).name for name in self.config.data.corpus]
        texts = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        facts = [f"trained on {texts}"] if names else []
        if steps := self._steps():
            facts.append(f"{steps:,} step{'s' if steps > 1 else ''}")
        if (self.path / WEIGHTS).is_file():
            facts.append(ago(time.time() - (self.path / WEIGHTS).stat().st_mtime))
        return f"{self.path} ({', '.join(facts)})" if facts else str(self.path)

    def _steps(self) -> int | None:
        """Of the last whole line of metrics.jsonl that tells; the file may come from anyone."""
        try:
            with open(self.path / METRICS, "rb") as file:
                file.seek(-min(self.metrics_size(), TAIL), os.SEEK_END)
                lines = file.read().splitlines()
        except OSError:
            return None
        for line in reversed(lines):
            with contextlib.suppress(ValueError, TypeError):
                if type(step := json.loads(line)["step"]) is int:
                    return step
        return None

    def lock(self) -> None:
        """Be the only process that trains this run, until `unlock` or the end of the process, however it ends.

        Raises UserError that names the process which has it.
        """
        self._lock = Lock(self.path / LOCK)

    def unlock(self) -> None:
        """Let others, and close what is open."""
        for file in (self._metrics, self._lock):
            if file is not None:
                file.close()
        self._metrics = self._lock = None

    def clean(self) -> None:
        """Remove what a killed process left half written; the lock must be held."""
        self.checkpoints.clean()
        for left in self.path.glob(".*.part"):
            left.unlink(missing_ok=True)


class Lock:
    """The system's own lock on a file: it ends with the process, so that there are no stale ones."""

    def __init__(self, path: Path) -> None:
        # Not through a link: the number is written into it.
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._file.read(32).strip() or "unknown"
            self._file.close()
            raise UserError(
                f"{path.parent} is being trained by process {holder}", "wait for it or stop it (Ctrl-C there saves)"
            ) from None
        except OSError as error:  # a network drive that knows no locks
            warn(f"{path.parent} cannot be locked ({error.strerror}): do not train it twice at once")
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def is_locked(path: Path) -> bool:
    """Whether a process trains the run whose lock this is."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # none has, or it cannot be known
        return False
    return False


def check_new(path: Path) -> None:
    """Refuse to overwrite: UserError if the directory holds a run or anything else."""
    if (path / CONFIG).exists():
        raise UserError(
            f"{path} is a run already", f"go on with `reformer train --resume --run {path}` or choose another --run"
        )
    if path.exists() and (not path.is_dir() or any(not _of_a_start(p) for p in path.iterdir())):
        raise UserError(f"{path} exists and is not empty", "choose another --run")


def _of_a_start(path: Path) -> bool:
    """Whether it is what a process leaves that is killed before a run has its config."""
    return path.name in (TOKENIZER, LOCK) or (path.name.startswith(".") and path.name.endswith(".part"))


def new_path(corpus: tuple[str, ...]) -> Path:
    """runs/NAME-DATE, which nothing has yet."""
    stem = Path(corpus[0]).name.split(".")[0].replace(":", "-").strip("-") if corpus else ""
    name = f"{stem or 'text'}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, n = RUNS / name, 1
    while path.exists():
        n += 1
        path = RUNS / f"{name}-{n}"
    return path


def all_runs() -> Iterator[Run]:
    """Those under runs/ that can be opened, the newest first."""
    for path in _by_age():
        with contextlib.suppress(UserError):
            yield Run.open(path)


def _by_age() -> list[Path]:
    return sorted((p.parent for p in RUNS.glob(f"*/{CONFIG}")), key=lambda p: -(p / CONFIG).stat().st_mtime_ns)


def _newest_first(trained: bool) -> list[Path]:
    """The runs there are, or the starter, which has no text to go on with (trained)."""
    found = _by_age()
    none = f"no run under {os.path.join(os.curdir, RUNS)}"
    if not found and not trained and (own := starter()) is not None:
        say(f"{none}: with the starter, a small model of English prose that comes with the program (--run {NAME})")
        return [own]
    if not found:
        raise UserError(none, "train one with `reformer train CORPUS`, or say --run DIR")
    return found
