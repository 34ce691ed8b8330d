"""The model that comes with the program: found by every command, installed or not, and never in a user's way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders.programs import Program
from hatchling.builders.wheel import WheelBuilder

import reformer_cli as rc
from reformer_cli.runs.run import Run
from reformer_cli.runs.starter import NAME, PACKAGE, starter

ROOT = Path(__file__).parents[3]
REAL = ROOT / "models" / NAME
SAID = "no run under ./runs: with the starter"


def test_generate_writes_at_once_and_says_with_what(reformer: Program, starter: Path) -> None:
    asked = ["generate", "--prompt", "The cat", "--max-tokens", 5, "--seed", 0]
    result = reformer(*asked)
    assert result.status == 0, result.err
    assert result.out.startswith("The cat")
    assert [line for line in result.err.splitlines() if SAID in line] == [result.err.splitlines()[0]]
    named = reformer(*asked, "--run", "starter")
    assert named.out == result.out
    assert SAID not in named.err


def test_a_run_of_ones_own_comes_first(reformer: Program, starter: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "runs" / "mine")
    assert SAID not in reformer("generate", "--prompt", "The cat", "--max-tokens", 5).err
    shutil.copytree(run, tmp_path / "starter")  # the same name, in the user's own folder
    assert Run.open(Path("starter")).path == Path("starter")


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "perplexity", "text.txt"), ("evaluate", "context", "text.txt"),
        ("evaluate", "recall", "--test", "copy", "--max-distance", "64"), ("evaluate", "attention", "text.txt"),
        ("tokenizer", "encode", "text.txt"), ("tokenizer", "inspect"),
    ],
)  # fmt: skip
def test_every_command_takes_it(reformer: Program, starter: Path, text: Path, command: tuple[str, ...]) -> None:
    text.write_text(text.read_text()[:3000])
    result = reformer(*command, "--run", "starter")
    assert result.status == 0, result.err
    assert result.out


def test_report_export_and_from_take_it(reformer: Program, starter: Path, text: Path, tmp_path: Path) -> None:
    assert "<html" in reformer("report", "starter", "--output", "-").out
    result = reformer("export", "starter", "out")
    assert result.status == 0, result.err
    assert (tmp_path / "out" / "model.safetensors").is_file()
    result = reformer("train", text, "--from", "starter", "--steps", 2, "--set", "context=32", "--run", "tuned")
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "tuned" / "origin.json").read_text()) == {"kind": "run", "name": "starter"}


def test_python_loads_it(reformer: Program, starter: Path) -> None:
    assert rc.load("starter").path == rc.load().path == starter


def test_what_it_has_not_is_said(reformer: Program, starter: Path, text: Path) -> None:
    before = sorted(p.name for p in starter.iterdir())
    assert "no corpus given" in reformer("evaluate", "perplexity", "--run", "starter").error
    assert "was not trained here" in reformer("train", "--resume", "--run", "starter").error
    assert "no run under ./runs" in reformer("train", "--resume").error
    assert sorted(p.name for p in starter.iterdir()) == before


def test_a_program_without_it_says_so(reformer: Program) -> None:
    assert "starter is not a run directory" in reformer("generate", "--run", "starter").error


def test_an_installed_program_has_it(tmp_path: Path) -> None:
    # A wheel that leaves it out is found by nobody who runs from a checkout.
    built = WheelBuilder(str(ROOT))
    held = {file.distribution_path for file in built.recurse_included_files()}
    held |= {file.distribution_path for file in built.recurse_forced_files(built.config.get_force_include())}
    assert {f"reformer_cli/starter/{name}" for name in ("README.md", "config.yaml", "tokenizer.model")} <= held
    assert "reformer_cli/configs/demo.yaml" in held
    installed = tmp_path / "reformer_cli"  # as a wheel is unpacked: the package, and within it the folder
    (installed / "runs").mkdir(parents=True)
    for name in ("__init__.py", "runs/__init__.py", "runs/starter.py"):
        shutil.copy(PACKAGE / name, installed / name)
    (installed / NAME).mkdir()
    (installed / NAME / "model.safetensors").touch()
    line = "from reformer_cli.runs.starter import starter; print(starter())"
    done = subprocess.run(
        [sys.executable, "-c", line], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert Path(done.stdout.strip()) == installed / NAME


@pytest.mark.skipif(not (REAL / "model.safetensors").is_file(), reason="this checkout has no starter")
def test_the_real_one(reformer: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reformer_cli.runs.starter.FOLDERS", (REAL,))
    assert starter() == REAL
    assert sum(p.stat().st_size for p in REAL.iterdir()) <= 12e6
    result = reformer("generate", "--prompt", "She opened the door", "--max-tokens", 60)
    assert result.status == 0, result.err
    words = result.out.lower().split()
    assert len(set(words)) > len(words) / 2  # it does not say the same again and again
