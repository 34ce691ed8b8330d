"""Running the program as a user does, in this process."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from reformer_cli.__main__ import main

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "and", "all", "was", "calm", "until", "noon"]
TINY = [  # and the precision named, or every program started anew measures for two seconds which one is faster
    part
    for setting in ("d_model=16", "n_layers=1", "d_head=8", "context=32", "batch_size=2", "precision=float32")
    for part in ("--set", setting)
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


Kept = Callable[[str, Callable[[], object]], Path]


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """name -> (a copy, where its original was made)."""
    return {}


@pytest.fixture
def kept(_made: dict[str, tuple[Path, Path]], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """kept(name, make) -> tmp_path / name, which make() makes for the first test that asks, and later ones get a copy
    of, as if it had been made where they are: training the same run for a hundred tests took a quarter of their time.
    """

    def get(name: str, make: Callable[[], object]) -> Path:
        target = tmp_path / name
        if name not in _made:
            make()
            copy = tmp_path_factory.mktemp("kept") / name
            shutil.copytree(target, copy, symlinks=True)
            _made[name] = (copy, tmp_path)
            return target
        copy, there = _made[name]
        shutil.copytree(copy, target, symlinks=True)
        for path in [*target.glob("*.yaml"), *target.glob("*.json")]:
            path.write_text(path.read_text("utf-8").replace(str(there), str(tmp_path)), "utf-8")
        return target

    return get


@pytest.fixture
def run(reformer: Program, text: Path, tmp_path: Path, kept: Kept) -> Path:
    """A run that was trained for six steps, on bytes."""

    def train() -> None:
        result = reformer("train", text, *TINY, "--set", "tokenizer=bytes", "--steps", 6, "--run", tmp_path / "run")
        assert result.status == 0, result.err

    return kept("run", train)


@pytest.fixture
def starter(reformer: Program, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny starter in the place of the real one, made as that is made; no run stands in the working directory."""
    folder = tmp_path / "program" / "starter"
    assert reformer("export", run, folder, "--weights", "int8").status == 0
    monkeypatch.setattr("reformer_cli.runs.starter.FOLDERS", (tmp_path / "elsewhere", folder))
    return folder
