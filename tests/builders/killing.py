"""Trains in children and kills them. The process that does it computes nothing itself, so that a fork of it is safe."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path

from safetensors.torch import load_file, save

from reformer_cli.__main__ import main
from reformer_cli.training import trainer
from reformer_cli.workflows import training_run

STEPS = 24
SETTINGS = {
    "d_model": 16, "n_layers": 1, "d_head": 8, "context": 32, "batch_size": 2, "accumulation_steps": 2, "dropout": 0.1,
    "precision": "float32", "eval.every": 5, "eval.tokens": 64, "context_schedule": [[16, 0.5]],
}  # fmt: skip
TIMED = ("seconds", "tokens_per_second", "step_seconds", "data_seconds", "peak_bytes")


def start(arguments: list[str], log: Path) -> int:
    """`reformer ...` in a child; returns its number."""
    child = os.fork()
    if child:
        return child
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os._exit(main(arguments))


def train(run: Path, text: str) -> list[str]:
    """The command that begins a run or goes on with it, as its user would."""
    if (run / "config.yaml").exists():
        return ["train", "--resume", "--run", str(run)]
    sets = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    return ["train", text, *sets, "--steps", str(STEPS), "--run", str(run)]


def contents(run: Path) -> dict[str, str]:
    """What a run ends with, by name: every tensor, progress, records; times left out."""
    newest = max((run / "checkpoints").glob("step-*"))
    found = {}
    for path in (newest / "tensors.safetensors", run / "model.safetensors"):
        for name, tensor in load_file(path).items():
            found[f"{path.name}: {name}"] = hashlib.sha256(save({"": tensor})).hexdigest()
    meta = json.loads((newest / "meta.json").read_text())["meta"]
    progress = {name: value for name, value in meta["progress"].items() if name not in ("seconds", "looking")}
    found["progress"] = json.dumps(progress)
    found["random"] = hashlib.sha256(json.dumps(meta["random"]).encode()).hexdigest()
    for n, line in enumerate((run / "metrics.jsonl").read_text().splitlines()):
        record = {name: value for name, value in json.loads(line).items() if name not in TIMED}
        found[f"record {n}"] = json.dumps(record)
    return found


def killed(run: Path, text: str, longest: float, draw: random.Random, log: Path, kills: int) -> list[str]:
    """Train a run to its end, killing it at random instants, at most so often; returns where each kill came."""
    places: list[str] = []
    while True:
        child, instant = start(train(run, text), log), draw.uniform(0, longest)
        deadline = time.monotonic() + (instant if len(places) < kills else 300)
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        if ended[0] == 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            places.append(place(run))
        elif os.waitstatus_to_exitcode(ended[1]) != 0:
            raise SystemExit(f"a child failed: {log.read_text()[-2000:]}")
        else:
            return places


def place(run: Path) -> str:
    """What a killed process leaves."""
    if not (run / "config.yaml").exists():
        return "before the run's config"
    if list(run.glob(".*.part")) or list(run.glob("checkpoints/.*.part")):
        return "while a file was written"
    return "between checkpoints" if list(run.glob("checkpoints/step-*")) else "before the first checkpoint"


def kill_and_compare(folder: Path, text: str, kills: int, seed: int) -> None:
    """Prints JSON: kills, how many came in which part of a run, runs, and what differed from a run never stopped."""
    trainer.SAVE_EVERY_MINUTES, training_run.SAMPLE_TOKENS = 1e-6, 4
    draw, log = random.Random(seed), folder / "log"
    for name in ("warm", "whole"):
        began = time.monotonic()
        _, status = os.waitpid(start(train(folder / name, text), log), 0)
        if status:
            raise SystemExit(f"a run failed: {log.read_text()[-2000:]}")
    longest = time.monotonic() - began
    expected = contents(folder / "whole")
    places: list[str] = []
    runs, differing = 0, []
    while len(places) < kills:
        run = folder / f"killed-{runs}"
        places += killed(run, text, longest, draw, log, kills - len(places))
        runs += 1
        found = contents(run)
        differing += [f"{run.name}: {n}" for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)]
    where = {name: places.count(name) for name in sorted(set(places))}
    found = {"kills": len(places), "where": where, "runs": runs, "compared": len(expected), "differing": differing}
    print(json.dumps(found))
