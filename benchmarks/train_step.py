"""Training step (forward and backward) of the published novel model: us and the peers, in turn on this machine.

    python benchmarks/train_step.py --lengths 4096 65536 [--layers 2 24] [--systems reformer transformers]

Every measurement has a process of its own, so that peak memory is its own. Prints ratios; appends to results.csv.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import record
import torch
from systems import LAYERS, SYSTEMS, tokens

from reformer_cli.training.mixed_precision import pick_precision
from reformer_cli.utils.devices import keep_freed_memory

MIB = 2**20
OURS = ("reformer", "full attention")


def peak(device: str) -> float:
    """Bytes: of this process so far, or of the GPU's allocations."""
    if device != "cpu":
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def measure(
    system: str, length: int, layers: int, device: str, budget: float, allocator: str, precision: str
) -> dict[str, float]:
    """Median seconds of a step after one that warms up (that one itself if it exceeds the budget), and peak memory."""
    if allocator == "tuned" or (allocator == "shipped" and system in OURS):
        keep_freed_memory()
    torch.manual_seed(0)
    low = precision == "bfloat16" or (
        precision == "shipped" and system in OURS and pick_precision(device)[0] != "float32"
    )
    model, step = SYSTEMS[system](length, device, layers)
    batch = tokens(length, device)
    before = peak(device)
    times: list[float] = []

    def work() -> None:
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=low):
            loss = step(batch)
        loss.backward()

    began = time.monotonic()
    while len(times) < 2 or (len(times) < 9 and time.monotonic() - began < budget):
        times.append(_timed(work, device))
        model.zero_grad(set_to_none=True)
        if len(times) == 1 and times[0] > budget:
            break
    seconds = statistics.median(times[1:] or times)
    return {"seconds": seconds, "peak": peak(device), "idle": before}


def _timed(work: Callable[[], None], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--layers", type=int, nargs="+", default=[LAYERS])
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=60.0, help="to spend on each measurement, roughly")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a measurement is given up")
    choices = ["shipped", "tuned"]
    text = "glibc told to keep freed memory: shipped, by us alone, as `reformer train` does; tuned, for all"
    parser.add_argument("--allocator", choices=choices, default="shipped", help=text)
    text = "of products: shipped, float32 but what `reformer train` chooses for us; or the same for all"
    parser.add_argument("--precision", choices=["shipped", "float32", "bfloat16"], default="shipped", help=text)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device, (first, *_) = arguments.device, arguments.systems
    if arguments.one:
        how = (device, arguments.seconds, arguments.allocator, arguments.precision)
        print(json.dumps(measure(first, arguments.lengths[0], arguments.layers[0], *how)))
        return
    rows: list[tuple[str, str, str, float, str]] = []
    print(f"{'tokens':>8} layers  {'system':<16} {'tokens/s':>10} {'peak MiB':>9}  time, memory against {first}")
    for length, layers in itertools.product(arguments.lengths, arguments.layers):
        ours: dict[str, float] = {}
        for system in arguments.systems:
            found = _in_a_process(system, length, layers, arguments)
            if found is None:
                print(f"{length:8,} {layers:6}  {system:<16} not finished: too long, or out of memory", flush=True)
                continue
            ours = ours or found
            rate = length / found["seconds"]
            ratios = f"{found['seconds'] / ours['seconds']:.2f} x, {found['peak'] / ours['peak']:.2f} x"
            size = f"{length:8,} {layers:6}"
            print(f"{size}  {system:<16} {rate:10,.0f} {found['peak'] / MIB:9,.0f}  {ratios}", flush=True)
            of = "" if layers == LAYERS else f"{layers} layers, "
            case = f"{length} tokens, {of}allocator {arguments.allocator}, precision {arguments.precision}"
            rows.append((system, case, "speed", rate, "tokens/s"))
            rows.append((system, case, "peak memory", found["peak"] / MIB, "MiB"))
    record.append(device, "train_step", rows)


def _in_a_process(system: str, length: int, layers: int, arguments: argparse.Namespace) -> dict[str, float] | None:
    line = [sys.executable, __file__, "--one", "--systems", system, "--lengths", str(length), "--layers", str(layers)]
    line += ["--device", arguments.device, "--seconds", str(arguments.seconds)]
    line += ["--allocator", arguments.allocator, "--precision", arguments.precision]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=arguments.limit)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        print(done.stderr.strip().splitlines()[-1:], file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
