"""Programs in processes of their own that start in a moment: children of one that has imported everything already.

A process in which nothing is imported takes three seconds to come to its first step. The parent computes nothing, so
that a fork of it is safe. Imported by the children: nothing of pytest.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["builders.forked", "reformer_cli.workflows.train", "torch._dynamo"])


@dataclass
class Forked:
    """A program that runs; what it writes is in two files."""

    process: multiprocessing.process.BaseProcess
    folder: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def out(self) -> bytes:
        return (self.folder / "out").read_bytes()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_bytes().decode()

    def wait(self, timeout: float = 120) -> int:
        """Its exit status, -n if signal n ended it. AssertionError if it does not end in so many seconds."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it did not end in {timeout} s: {self.err}")
        return self.process.exitcode


def start(
    work: Callable[..., int | None], *arguments: Any, cwd: Path, environment: dict[str, str] | None = None,
    stdin: Path = Path(os.devnull), deaf: bool = False, new_session: bool = False,
) -> Forked:  # fmt: skip
    """work(*arguments) as a program: a function of a module that is quick to import. deaf: its stderr is a pipe that
    nobody reads; new_session: it leads a group of processes, which `os.killpg` reaches."""
    folder = cwd / f"said-{len([*cwd.glob('said-*')])}"
    folder.mkdir()
    for name in ("out", "err"):
        (folder / name).touch()
    given = dict(os.environ) | (environment or {})
    process = _CONTEXT.Process(target=_begin, args=(work, arguments, cwd, given, folder, stdin, deaf, new_session))
    process.start()
    atexit.register(process.kill)  # before the tests' process would wait for it
    return Forked(process, folder)


def reformer(*arguments: object, cwd: Path, **how: Any) -> Forked:
    """`reformer ...` in this folder."""
    return start(program, *[str(a) for a in arguments], cwd=cwd, **how)


def program(*arguments: str) -> int:
    from reformer_cli.__main__ import main

    return main(list(arguments))


def code(text: str) -> None:
    """`python -c text`."""
    exec(compile(text, "<code>", "exec"), {"__name__": "__main__"})


def _begin(
    work: Callable[..., int | None], arguments: tuple[Any, ...], cwd: Path, environment: dict[str, str], folder: Path,
    stdin: Path, deaf: bool, new_session: bool,
) -> None:  # fmt: skip
    if new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    if deaf:
        reads, writes = os.pipe()
        os.dup2(writes, 2)
        os.close(reads)
        os.close(writes)
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    with open(0, encoding="utf-8", closefd=False) as sys.stdin:  # multiprocessing has closed the one there was
        sys.exit(work(*arguments))
