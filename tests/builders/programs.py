"""Running the program as a user does, in this process."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from reformer_cli.__main__ import main

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "and", "all", "was", "calm", "until", "noon"]
TINY = [
    "--set",
    "d_model=16",
    "--set",
    "n_layers=1",
    "--set",
    "d_head=8",
    "--set",
    "context=32",
    "--set",
    "batch_size=2",
]


@dataclass
class Result:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what was wrong; no traceback, nothing else."""
        assert self.status == 2, self
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Program = Callable[..., Result]


@pytest.fixture
def reformer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    """reformer("train", ...) in an empty working directory; no samples are drawn while training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reformer_cli.workflows.training_run.SAMPLE_TOKENS", 0)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """20,000 characters of simple sentences."""
    draw = random.Random(0)
    lines = [" ".join(draw.choice(WORDS) for _ in range(8)).capitalize() + ".\n" for _ in range(500)]
    path = tmp_path / "text.txt"
    path.write_text("".join(lines), "utf-8")
    return path


@pytest.fixture
def run(reformer: Program, text: Path, tmp_path: Path) -> Path:
    """A run that was trained for six steps."""
    result = reformer("train", text, *TINY, "--steps", 6, "--run", tmp_path / "run")
    assert result.status == 0, result.err
    return tmp_path / "run"
