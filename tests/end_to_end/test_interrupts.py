"""What ends a run from outside: signals, a second Ctrl-C, a terminal that closes; and a clock that goes backwards."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from builders import forked
from builders.faults import newest, same, tensors
from builders.programs import TINY, Program

from reformer_cli.runs import checkpoints
from reformer_cli.runs.run import Run
from reformer_cli.training.gradients import Gradients, LoadedBatch
from reformer_cli.training.state import TrainState


@pytest.mark.usefixtures("often")
def test_a_clock_that_goes_backwards(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [2_000_000_000.0]

    def back() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", back)
    assert reformer("train", text, *TINY, "--minutes", 0.01, "--run", "r").status == 0
    seconds = [json.loads(x)["seconds"] for x in Path("r/metrics.jsonl").read_text().splitlines() if "loss" in x]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] <= seconds[-1] < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_save(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    original = Gradients._in_parts

    def signalled(self: Gradients, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        if progress.step == 2:
            os.kill(os.getpid(), number)
        return original(self, read, progress)

    monkeypatch.setattr(Gradients, "_in_parts", signalled)
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        result = reformer("train", text, *TINY, "--steps", 50, "--run", "r")
    finally:
        signal.signal(number, before)
    assert result.status == (143 if number == signal.SIGTERM else 0)
    assert "stopped after 3 steps" in result.err
    assert newest(Path("r")).name == "step-00000003"


def test_ignored_signals_stay_ignored(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nohup has SIGHUP ignored; a handler of our own would stop the run when the terminal closes."""
    monkeypatch.setattr(Gradients, "_in_parts", _signalled(Gradients._in_parts, signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert "finished: 4 steps" in reformer("train", text, *TINY, "--steps", 4, "--run", "r").err
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_counts_in_the_background_of_a_script(
    reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shell, which has no job control, starts such a run with SIGINT ignored: `kill -INT` did nothing."""
    monkeypatch.setattr(Gradients, "_in_parts", _signalled(Gradients._in_parts, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert "stopped after 1 steps" in reformer("train", text, *TINY, "--steps", 4, "--run", "r").err
    finally:
        signal.signal(signal.SIGINT, before)


def _signalled(original, number: int):
    def gradients(self: Gradients, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        os.kill(os.getpid(), number)
        return original(self, read, progress)

    return gradients


@pytest.mark.usefixtures("often")
def test_a_second_ctrl_c_stops_at_once(reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a step and of writing: the last checkpoint is whole and the run goes on from it."""
    before, original = tensors(run), Gradients._in_parts
    writing, release = threading.Event(), threading.Event()
    fill = checkpoints.write_folder

    def slow(path: Path, filler: object) -> None:
        writing.set()
        release.wait(30)
        fill(path, filler)

    def twice(self: Gradients, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        if progress.step == 7:
            assert writing.wait(30)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, read, progress)

    monkeypatch.setattr(checkpoints, "write_folder", slow)
    monkeypatch.setattr(Gradients, "_in_parts", twice)
    began = time.monotonic()
    result = reformer("train", "--resume", "--run", run, "--steps", 40)
    assert result.status == 130
    assert time.monotonic() - began < 25  # it did not wait for the write
    assert newest(run).name == "step-00000006"
    assert same(before, tensors(run))
    monkeypatch.undo()
    release.set()
    assert Run.open(run).checkpoints.newest_whole() is not None


def test_a_terminal_that_closes_loses_nothing(text: Path, tmp_path: Path) -> None:
    """`reformer train 2>&1 | head`, or a window that is closed: writing a line failed, and with it the run."""
    process = forked.reformer("train", text, *TINY, "--steps", 30, "--run", "r", cwd=tmp_path, deaf=True)
    assert process.wait() == 0
    assert newest(tmp_path / "r").name == "step-00000030"
