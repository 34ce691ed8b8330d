"""Two processes under torchrun are one: the same losses, checkpoints that either reads, and a clear end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import forked
from builders.programs import TINY, Program

MORE = [
    part
    for setting in ("n_layers=2", "n_heads=2", "learning_rate=0.01", "optimizer=adamw")
    for part in ("--set", setting)
]


def torchrun(*arguments: object) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return list(map(str, [*launcher, *arguments]))


def two(folder: Path, *arguments: object) -> str:
    """`reformer train ...` in two processes, started as torchrun starts them, but in a moment; what they say."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [
        forked.reformer("train", *arguments, cwd=folder, environment=shared | {"RANK": str(n), "LOCAL_RANK": str(n)})
        for n in range(2)
    ]
    statuses = [process.wait() for process in started]
    said = "".join(process.err for process in started)
    if any(statuses):
        raise Failed(said)
    return said


class Failed(Exception):
    """A process ended with another status than 0."""


def losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if "loss" in r]


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["DDP", "FSDP2"])
def test_two_processes_take_the_steps_of_one(reformer: Program, text: Path, tmp_path: Path, shard: bool) -> None:
    """And either goes on from the other's checkpoint. Peers fail under DDP with either of its settings."""
    more = [*TINY, *MORE, "--set", "batch_size=8", "--set", f"fsdp={str(shard).lower()}"]
    assert reformer("train", text, *more, "--steps", 4, "--run", "one").status == 0
    said = two(tmp_path, text, *more, "--set", "accumulation_steps=2", "--steps", 4, "--run", "two")
    assert said.count("finished: 4 steps") == 1  # one of them speaks
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-5)
    files = {p.name for p in (tmp_path / "two" / "checkpoints" / "step-00000004").iterdir()}
    assert len(files) == (3 if shard else 2)
    assert "going on after step 4" in two(tmp_path, "--resume", "--run", "one", "--steps", 6)
    assert "going on after step 4" in reformer("train", "--resume", "--run", "two", "--steps", 6).err
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-5)
    assert len(losses(tmp_path / "one")) == 6


def test_mistakes_are_said_once(text: Path, tmp_path: Path) -> None:
    with pytest.raises(Failed) as caught:
        two(tmp_path, text, *TINY, "--set", "batch_size=3", "--steps", 2, "--run", "r")
    mistake = "error: train.batch_size 3 contexts a step cannot be shared by 2 processes"
    assert str(caught.value).count(mistake) == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_the_run_goes_on(text: Path, tmp_path: Path) -> None:
    more = [*TINY, *MORE, "--run", "r"]
    often = tmp_path / "often.py"
    often.write_text(
        "import sys\nfrom reformer_cli.__main__ import main\nfrom reformer_cli.training import trainer\n"
        "trainer.SAVE_EVERY_MINUTES = 0.0001\nsys.exit(main(sys.argv[1:]))\n"
    )
    with open(tmp_path / "err", "w") as err:
        job = subprocess.Popen(torchrun("--", often, "train", text, *more, "--minutes", 5), cwd=tmp_path, stderr=err)
        checkpoints, deadline = tmp_path / "r" / "checkpoints", time.monotonic() + 90
        while not (checkpoints.exists() and len(list(checkpoints.glob("step-*"))) > 1):
            assert time.monotonic() < deadline
            assert job.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.1)
        os.kill(second_process(job.pid), signal.SIGKILL)
        assert job.wait(timeout=90) != 0
    said = (tmp_path / "err").read_text()
    assert "error: process 0 of 2 lost another one" in said
    assert "start the same command with --resume" in said
    step = max(int(p.name.removeprefix("step-")) for p in checkpoints.glob("step-*"))
    again = torchrun("-m", "--", "reformer_cli", "train", "--resume", "--run", "r", "--steps", step + 2)
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert f"finished: {step + 2} steps" in done.stderr


def second_process(parent: int) -> int:
    """The process of rank 1 that torchrun, `parent`, has started."""
    for folder in Path("/proc").iterdir():
        try:
            child = folder.name.isdigit() and f"\nPPid:\t{parent}\n" in (folder / "status").read_text()
            if child and b"\0RANK=1\0" in b"\0" + (folder / "environ").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError("rank 1 is not there")
