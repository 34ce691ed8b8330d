"""Layers on groups of tokens (`model.shorten_factor`) against the same model without: speed, memory, held-out bits.

    python benchmarks/shortening.py step [--factors 1 2 3 4] [--length 65536] [--set key=value ...]
    python benchmarks/shortening.py text FILE [--factors 1 2 3 4] (--minutes 1.5 | --steps N ...) [--set ...]
    python benchmarks/shortening.py images FOLDER [--factors 1 3] (--minutes 2 | --steps N ...) [--set ...]

`step`: a training step of the novel model, each factor in a process of its own, in processor time. `text`, `images`:
`reformer train` (of images, with the recipe tiny-images), then `reformer evaluate perplexity`, with
shorten_factor=F and all else the same. --steps: so many for each factor, in their order: what fits in equal minutes,
where others use the machine meanwhile. FOLDER: `python benchmarks/images.py make`. Appends to results.csv.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import record

MIB = 2**20
NOVEL = [
    "vocab_size=320",
    "d_model=256",
    "n_layers=6",
    "n_heads=2",
    "d_ff=512",
    "local_window=64",
    "n_hashes=1",
    "far_buckets=0",
]
WARM = 3  # steps that are not timed
HELD_OUT = 20  # one part in so many
Found = dict[str, float]


def step(sets: list[str], length: int, seconds: float) -> Found:
    """Tokens a second of processor time, of the median training step, and peak bytes, in this process."""
    import time

    import torch
    from reformer import ReformerLM

    from reformer_cli.config.load import load_config, resolve
    from reformer_cli.training.display import peak_memory
    from reformer_cli.training.mixed_precision import pick_precision, products_in
    from reformer_cli.training.optimizers import make_optimizers
    from reformer_cli.utils.devices import keep_freed_memory

    keep_freed_memory()
    config = resolve(load_config(None, ["batch_size=1", *sets, f"context={length}"]), 320)
    model, precision, times = ReformerLM(config.model), pick_precision("cpu")[0], [0.0]
    optimizers, batch = make_optimizers(model, config.train), config.train.batch_size
    text = torch.randint(320, (batch, length + 1), generator=torch.Generator().manual_seed(0))
    while len(times) < 3 or (sum(times) < seconds and len(times) < 200):
        began = time.process_time()
        with products_in(precision, "cpu"):
            loss = model.loss(text[:, :-1], text[:, 1:])
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        times.append(time.process_time() - began)
        model.zero_grad(set_to_none=True)
    return {"tokens/s": batch * length / statistics.median(times[2:]), "peak": peak_memory("cpu")}


def trained(corpus: Path, held: Path | None, sets: list[str], how: list[str]) -> Found:
    """Held-out bits after `reformer train`, with its median tokens/s, peak memory and steps."""
    program = [sys.executable, "-m", "reformer_cli"]
    given = [x for s in sets for x in ("--set", s)]
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        of = ["--validation", str(held)] if held is not None else ["--config", "tiny-images"]
        train = [*program, "train", str(corpus), *of, "--run", run, "--seed", "0", "--from", "none", *how, *given]
        subprocess.run(train, check=True, stderr=subprocess.DEVNULL)
        scored = [*program, "evaluate", "perplexity", "--run", run, "--json", *([str(held)] if held else [])]
        bits = json.loads(subprocess.run(scored, check=True, capture_output=True, text=True).stdout)
        lines = [json.loads(x) for x in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    rates = [x["tokens_per_second"] for x in lines if "tokens_per_second" in x][WARM:]
    peak = max(x.get("peak_bytes", 0) for x in lines)
    unit = "bits_per_byte" if "bits_per_byte" in bits else "bits_per_dim"
    return {"bits": bits[unit], "tokens/s": statistics.median(rates), "peak": peak, "steps": len(rates) + WARM}


def split(text: Path, folder: Path) -> tuple[Path, Path]:
    """A text without its last twentieth, and that."""
    data = text.read_text("utf-8")
    cut = len(data) - len(data) // HELD_OUT
    parts = folder / "text.txt", folder / "held.txt"
    for path, part in zip(parts, (data[:cut], data[cut:]), strict=True):
        path.write_text(part, "utf-8")
    return parts


def one(arguments: argparse.Namespace, factor: int, how: list[str], folder: Path) -> Found:
    sets = [*arguments.set, f"shorten_factor={factor}"]
    if arguments.part == "step":
        line = [sys.executable, __file__, "step", "--one", "--length", str(arguments.length), "--factors", str(factor)]
        line += ["--seconds", str(arguments.seconds), *(x for s in arguments.set for x in ("--set", s))]
        done = subprocess.run(line, check=True, capture_output=True, text=True)
        found: Found = json.loads(done.stdout.splitlines()[-1])
        return found
    if arguments.part == "images":
        return trained(arguments.corpus, None, sets, how)
    return trained(*split(arguments.corpus, folder), sets, how)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["step", "text", "images"])
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--steps", type=int, nargs="+", default=[])
    parser.add_argument("--length", type=int, default=65536)
    parser.add_argument("--seconds", type=float, default=15.0, help="to spend on each measurement of `step`, roughly")
    parser.add_argument("--set", action="append", default=[], help="as `reformer train --set`")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        sets = [*NOVEL, *arguments.set, f"shorten_factor={arguments.factors[0]}"]
        print(json.dumps(step(sets, arguments.length, arguments.seconds)))
        return
    if (arguments.part == "step") == (arguments.corpus is not None):
        parser.error(f"{arguments.part} takes {'no' if arguments.part == 'step' else 'a'} corpus")
    if arguments.steps and len(arguments.steps) != len(arguments.factors):
        parser.error(f"--steps names {len(arguments.steps)} numbers for {len(arguments.factors)} --factors")
    rows: list[tuple[str, str, str, float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for n, factor in enumerate(arguments.factors):
            steps = arguments.steps[n : n + 1]
            how = ["--steps", str(*steps)] if steps else ["--minutes", str(arguments.minutes)]
            found = one(arguments, factor, how, Path(folder))
            print(f"shorten_factor {factor}: {json.dumps(found)}", flush=True)
            name = f"{arguments.length} tokens" if arguments.part == "step" else arguments.corpus.stem
            case = ", ".join([name, *arguments.set, *([" ".join(how)] if arguments.part != "step" else [])])
            system = f"shorten_factor {factor}"
            if not steps:
                unit = "tokens/processor s" if arguments.part == "step" else "tokens/s"
                rows.append((system, case, "speed", found["tokens/s"], unit))
            rows.append((system, case, "peak memory", found["peak"] / MIB, "MiB"))
            if "bits" in found:
                unit = "bits/dim" if arguments.part == "images" else "bits/byte"
                rows.append((system, case, "held out", found["bits"], unit))
    record.append("cpu", "shortening", rows)


if __name__ == "__main__":
    main()
