"""What must lose nothing: kill -9, a full or read-only disk, damaged checkpoints, a second process."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from builders import forked
from builders.faults import newest, same, tensors
from builders.killing import kill_and_compare
from builders.programs import TINY, Program
from safetensors.torch import load_file

from reformer_cli.runs import checkpoints
from reformer_cli.runs.checkpoints import META, TENSORS, Checkpoints, read_meta
from reformer_cli.training.trainer import Trainer


def kill(folder: Path, text: Path, kills: int, seed: int) -> dict:
    process = forked.start(kill_and_compare, folder, str(text), kills, seed, cwd=folder)
    assert process.wait(1800) == 0, process.err
    return json.loads(process.out)


def test_killed_runs_end_as_one_that_was_not(text: Path, tmp_path: Path) -> None:
    found = kill(tmp_path, text, 3, seed=1)
    assert found["kills"] == 3
    assert found["compared"] > 50  # tensors and records, each by itself
    assert found["differing"] == []


@pytest.mark.slow
def test_fifty_kills(text: Path, tmp_path: Path) -> None:
    found = kill(tmp_path, text, 50, seed=2)
    print(found)
    assert found["kills"] == 50
    assert found["differing"] == []


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """The system refuses files beyond so many bytes, as a full disk does. (Python ignores the signal of that.)"""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_loses_nothing(reformer: Program, run: Path) -> None:
    """Real refusals by the system in the middle of a file; the run then goes on where the last checkpoint was."""
    before = tensors(run)
    size = (newest(run) / TENSORS).stat().st_size // 2
    with small_files(size):
        error = reformer("train", "--resume", "--run", run, "--steps", 9).error
    assert "a checkpoint could not be written: no space left on the device" in error
    assert "the last one is whole" in error
    assert newest(run).name == "step-00000006"
    assert same(before, tensors(run))
    assert not list(run.rglob("*.part"))
    assert reformer("train", "--resume", "--run", run, "--steps", 9).status == 0
    assert newest(run).name == "step-00000009"
    shutil.rmtree(run)
    assert reformer("train", "text.txt", *TINY, "--steps", 6, "--run", run).status == 0
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("often")
def test_a_disk_that_is_full_for_a_while_ends_no_run(
    reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failed = checkpoints.write_folder, 0

    def sometimes(path: Path, fill: object) -> None:
        nonlocal failed
        if failed < 2:
            failed += 1
            raise OSError(28, "No space left on device", str(path))
        original(path, fill)

    monkeypatch.setattr(checkpoints, "write_folder", sometimes)
    monkeypatch.setattr(
        "reformer_cli.workflows.choose_settings.copy_fits", lambda *_: False
    )  # at once, not in the background
    result = reformer("train", text, *TINY, "--steps", 6, "--run", "r")
    assert result.status == 0, result.err
    assert result.err.count("training goes on, and the next is tried as usual") == 2
    assert newest(Path("r")).name == "step-00000006"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere; others may not."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_directory(reformer: Program, run: Path, text: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(0o755)
        if folder.name.startswith("pytest-of-"):  # one above where tests run two at a time
            break
    Path(os.environ["XDG_CACHE_HOME"]).chmod(0o755)
    Path(os.environ["XDG_CACHE_HOME"]).parent.chmod(0o755)
    assert reformer("generate", "--run", run, "--prompt", "The", "--max-tokens", 3).status == 0  # all is imported now
    for file in run.rglob("*.*"):
        file.chmod(0o755 if file.is_dir() else 0o444)
    run.chmod(0o555)
    try:
        with as_nobody():
            assert "Permission denied" in reformer("train", "--resume", "--run", run, "--steps", 9).error
            assert "Permission denied" in reformer("train", text, *TINY, "--steps", 1, "--run", run / "new").error
            reading = reformer("generate", "--run", run, "--prompt", "The", "--max-tokens", 3)
            assert reading.status == 0, reading.err
    finally:
        run.chmod(0o755)


def damage(path: Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
        return
    if kind == "truncated":
        del data[len(data) // 2 :]
    elif kind == "empty":
        data.clear()
    else:
        data[len(data) // 2] ^= 4
    path.write_bytes(data)


# Which of the two files has which damage makes no difference that is known: the rest is slow.
DAMAGES = {(TENSORS, "truncated"), (TENSORS, "bit-flipped"), (META, "missing"), (META, "empty"), (META, "bit-flipped")}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if (name, kind) in DAMAGES else pytest.mark.slow)
        for name in (TENSORS, META)
        for kind in ("truncated", "bit-flipped", "missing", "empty")
    ],
)
def test_a_damaged_checkpoint_is_skipped(reformer: Program, run: Path, name: str, kind: str) -> None:
    """And the run ends as if nothing had been damaged, its records included; the damaged one makes room."""
    more = ["train", "--resume", "--run", run, "--steps", 9]
    assert reformer(*more).status == 0
    whole = tensors(run)
    damage(newest(run) / name, kind)
    result = reformer(*more)
    assert result.status == 0, result.err
    assert "step-00000009 is damaged" in result.err
    assert "going on after step 6" in result.err
    assert same(whole, tensors(run))
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert steps == list(range(1, 10))


def test_a_damaged_newest_does_not_push_out_a_good_one(run: Path) -> None:
    """With keep 1, "the newest" of a damaged later one and a good earlier one was the damaged one."""
    kept = Checkpoints(run, 1)
    meta = read_meta(kept.at(6))
    save_to = {"x": torch.ones(3)}
    kept.save(9, save_to, meta, None)
    damage(kept.at(9) / TENSORS, "truncated")
    kept.save(7, save_to, meta, None)
    assert [p.name for p in kept.all()] == ["step-00000007"]


def test_who_may_read_a_run_may_read_its_checkpoints(run: Path) -> None:
    """safetensors makes files that their owner alone can read, whatever the umask."""
    (run / "other").touch()
    modes = {p.stat().st_mode for p in (run / "checkpoints").glob("step-*/*")}
    assert modes == {(run / "other").stat().st_mode}


def test_all_damaged(reformer: Program, run: Path) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        damage(folder / TENSORS, "bit-flipped")
    before = (run / "metrics.jsonl").read_bytes()
    assert "checkpoints under" in (error := reformer("train", "--resume", "--run", run, "--steps", 9).error)
    assert "is whole" in error
    assert (run / "metrics.jsonl").read_bytes() == before


def test_the_best_checkpoint_stays(run: Path) -> None:
    kept = Checkpoints(run, 2)
    meta, some = read_meta(kept.at(6)), {"x": torch.ones(1)}
    for step in range(7, 12):
        kept.save(step, some, meta, best=7)
    assert [p.name for p in kept.all()] == ["step-00000011", "step-00000010", "step-00000007"]


def test_a_second_process_is_refused(reformer: Program, run: Path, tmp_path: Path) -> None:
    """By the process that has it; when that is killed, the next one gets in."""
    code = (
        "import time; from pathlib import Path; from reformer_cli.runs.run import Run\n"
        "run = Run.open(Path('run')); run.lock(); print('held', flush=True); time.sleep(600)"
    )
    holder = forked.start(forked.code, code, cwd=tmp_path)
    while holder.out != b"held\n":
        assert holder.process.is_alive(), holder.err
        time.sleep(0.01)
    error = reformer("train", "--resume", "--run", run, "--steps", 9).error
    assert f"{run} is being trained by process {holder.pid}" in error
    assert reformer("evaluate", "perplexity", "--run", run).status == 0  # reading is free
    holder.process.kill()
    assert holder.wait() < 0
    assert reformer("train", "--resume", "--run", run, "--steps", 9).status == 0


def test_a_killed_start_can_be_begun_again(reformer: Program, text: Path, tmp_path: Path) -> None:
    """Killed before its config was there, a directory was neither a run nor empty: refused either way."""
    (tmp_path / "r").mkdir()
    for name in (".lock", "tokenizer.model", ".config.yaml.123.part"):
        (tmp_path / "r" / name).write_bytes(b"half")
    assert reformer("train", text, *TINY, "--steps", 2, "--run", "r").status == 0
    assert reformer("evaluate", "perplexity", "--run", "r").status == 0


def test_killed_before_the_first_checkpoint(reformer: Program, run: Path) -> None:
    whole = tensors(run)
    shutil.rmtree(run / "checkpoints")
    (run / "model.safetensors").unlink()
    result = reformer("train", "--resume", "--run", run)
    assert result.status == 0, result.err
    assert "starting at its beginning" in result.err
    assert same(whole, tensors(run))
    assert len([x for x in (run / "metrics.jsonl").read_text().splitlines() if "loss" in x]) == 6


@pytest.mark.usefixtures("often")
def test_weights_that_are_no_numbers_are_never_written(
    reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that makes NaNs of finite gradients was found out one step later, after a checkpoint had been written."""
    before, original = tensors(run), Trainer._step

    def poisoned(self: Trainer) -> None:
        original(self)
        if self.progress.step == 8:
            with torch.no_grad():
                next(self.model.parameters())[0, 0] = torch.nan

    monkeypatch.setattr(Trainer, "_step", poisoned)
    error = reformer("train", "--resume", "--run", run, "--steps", 40).error
    assert "training diverged at step" in error
    assert "the last good checkpoint is" in error
    assert all(bool(t.isfinite().all()) for t in tensors(run).values() if t.is_floating_point())
    assert same(before, load_file(run / "checkpoints" / "step-00000006" / TENSORS))
