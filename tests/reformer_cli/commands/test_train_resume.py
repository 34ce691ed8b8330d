"""Runs that stop and go on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from builders import forked
from builders.faults import tensors
from builders.programs import TINY, Program

from reformer_cli.training.gradients import Gradients, LoadedBatch
from reformer_cli.training.state import TrainState

STEPS = 6  # of the fixture `run`


def test_resuming_gives_the_same_weights_bit_for_bit(reformer: Program, text: Path) -> None:
    more = [*TINY, "--set", "dropout=0.1", "--set", "warmup=0"]
    assert reformer("train", text, *more, "--steps", 8, "--run", "whole").status == 0
    # The same run, interrupted: the schedule is that of 8 steps throughout.
    assert reformer("train", text, *more, "--steps", 8, "--run", "part").status == 0
    _interrupted_after(reformer, text, more, 3)
    assert reformer("train", "--resume", "--run", "cut").status == 0
    whole, cut = tensors(Path("whole")), tensors(Path("cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in Path("cut/metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]


def _interrupted_after(reformer: Program, text: Path, more: list[str], steps: int) -> None:
    """Train run `cut` with a Ctrl-C that arrives in the middle of a step."""
    original, done = Gradients._in_parts, 0

    def gradients(self: Gradients, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        nonlocal done
        done += 1
        if done == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, read, progress)

    Gradients._in_parts = gradients
    try:
        result = reformer("train", text, *more, "--steps", 8, "--run", "cut")
    finally:
        Gradients._in_parts = original
    assert result.status == 0
    assert f"stopped after {steps} steps" in result.err
    assert "reformer train --resume --run cut" in result.err


def test_a_real_ctrl_c_saves(text: Path, tmp_path: Path) -> None:
    process = forked.reformer("train", text, *TINY, "--minutes", 5, "--run", "r", cwd=tmp_path)
    log = tmp_path / "r" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert time.monotonic() < deadline
        assert process.process.is_alive(), process.err
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 0
    assert "stopped after" in process.err
    assert (tmp_path / "r" / "model.safetensors").exists()
    assert list((tmp_path / "r" / "checkpoints").glob("step-*"))


def test_resume_longer(reformer: Program, run: Path) -> None:
    assert reformer("train", "--resume", "--run", run, "--steps", 9).status == 0
    assert "step-00000009" in {p.name for p in (run / "checkpoints").iterdir()}
    assert len(list((run / "checkpoints").iterdir())) <= 2


def test_resume_skips_a_damaged_checkpoint(reformer: Program, run: Path) -> None:
    assert reformer("train", "--resume", "--run", run, "--steps", 9).status == 0
    newest = run / "checkpoints" / "step-00000009" / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    result = reformer("train", "--resume", "--run", run, "--steps", 9)
    assert result.status == 0
    assert "step-00000009 is damaged (the checksum differs)" in result.err
    assert "going on after step 6" in result.err


def test_resume_refuses_what_would_change_the_model(reformer: Program, run: Path, text: Path) -> None:
    other = text.with_name("other.txt")
    other.write_text(text.read_text())
    error = reformer(
        "train", other, "--resume", "--run", run, "--set", "d_model=32", "--set", "optimizer=muon", "--set",
        "n_layers=1", "--from", "starter", "--seed", 7,
    ).err  # fmt: skip
    for fault in ("data.corpus", "model.d_model is 16, not 32", 'train.optimizer is "adamw"', "--from", "model.seed"):
        assert fault in error
    assert "n_layers" not in error  # it is what the run was begun with
    text.write_text(text.read_text() + "One more line.\n")
    assert "has changed since" in reformer("train", "--resume", "--run", run).error


def test_the_same_line_begins_goes_on_and_has_nothing_left_to_do(reformer: Program, text: Path) -> None:
    """A scheduler starts one line again and again; `--resume` took no text, and found no run the first time."""
    line = ("train", text, *TINY, "--seed", 3, "--resume", "--steps")
    assert "finished: 3 steps" in reformer(*line, 3).err
    assert "going on after step 3" in reformer(*line, 5).err
    result = reformer(*line, 5)
    assert "has had its" in result.err
    assert "nothing is left to do" in result.err
    assert "--steps 10" in result.err
    assert "held out" not in result.err
    assert len(list(Path("runs").iterdir())) == 1
    other = text.with_name("other.txt")
    other.write_text(text.read_text())
    assert "finished: 3 steps" in reformer("train", other, *TINY, "--resume", "--steps", 3).err  # a run of its own
    assert "going on after step 5" in reformer(*line, 6).err


def test_a_new_run_from_another_has_slices_for_its_own_machine(reformer: Program, run: Path, text: Path) -> None:
    """Trained on a GPU, in slices of 65,536 tokens, a model would have taken slices as large on a CPU."""
    config = (run / "config.yaml").read_text()
    assert "chunk_tokens: 4096" in config
    (run / "config.yaml").write_text(config.replace("chunk_tokens: 4096", "chunk_tokens: 65536"))
    assert reformer("train", text, "--from", run, "--run", "new", "--steps", 1).status == 0
    assert "chunk_tokens: 4096" in Path("new/config.yaml").read_text()


def test_resume_without_a_run_or_a_text(reformer: Program) -> None:
    assert "no run under" in reformer("train", "--resume").error
    assert "not a run directory" in reformer("train", "--resume", "--run", "nowhere").error


def test_resume_from_standard_input(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(text, encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert reformer("train", "-", *TINY, "--steps", 2, "--run", "r").status == 0
    assert reformer("train", "--resume", "--run", "r", "--steps", 4).status == 0
