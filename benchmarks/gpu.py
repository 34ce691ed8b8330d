"""What a GPU does in a given time: a training step, decoding, our attention, copies and products.

    python benchmarks/gpu.py [--minutes 6] [--parts train step] [--dry-run]

Beside what benchmarks/cost.py forecasts, and against full attention (SDPA) of the same model, FlexAttention with the
same block pattern, transformers' Reformer and reformer-pytorch; products in bfloat16 for all. Each case is a process of
its own with a limit of its own, compiled before it is timed: what is wanted most comes first, and what breaks one
leaves the others. Appends to results.csv as it goes and draws gpu.png (with matplotlib). --dry-run: every line of it on
a CPU at tiny sizes; writes to a folder of its own and means nothing.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record
import torch
from gpu_bench import Bench
from gpu_parts import CASES, PARTS

LIMIT = 75.0  # seconds of a case
WINDOWS = [64, 128, 256]


def measure(part: str, bench: Bench, results: Path) -> None:
    """Print and append every row as it is found."""
    record.RESULTS = results
    print(f"{part}: {PARTS[part].__doc__}", flush=True)
    for row in PARTS[part](bench):
        system, case, name, value, unit = row
        print(f"  {system:<16} {case:<42} {name:<32} {value:12.6g} {unit}", flush=True)
        record.append(bench.device, f"gpu {part}", [row])


def draw(results: Path, picture: Path) -> None:
    """Training steps: tokens/s and memory over the length, of the newest measurements."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with results.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["benchmark"] == "gpu step"]
    newest = [r for r in rows if (r["date"], r["machine"]) == (rows[-1]["date"], rows[-1]["machine"])]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, measure_of, unit in zip(axes, ("speed", "peak memory"), ("tokens/s", "MiB"), strict=True):
        for system in dict.fromkeys(r["system"] for r in newest):
            points = {
                int(r["case"].split()[0]): float(r["value"])
                for r in newest
                if (r["system"], r["measure"]) == (system, measure_of)
            }
            axis.loglog(list(points), list(points.values()), marker="o", label=system)
        axis.set(xlabel="tokens in one context", ylabel=unit, title=f"training step, {measure_of}")
    axes[0].legend()
    figure.suptitle(rows[-1]["machine"] if rows else "")
    figure.savefig(picture, dpi=120)
    print(f"drawn: {picture}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=6.0, help="for all of it; what does not fit is left out")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, tiny")
    parser.add_argument("--results", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, metavar=("PART", "SYSTEM", "LENGTH"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.dry_run:
        a.device = "cpu"
        if a.results == record.RESULTS:
            a.results = Path(tempfile.mkdtemp(prefix="dry-run-")) / "results.csv"
    elif not torch.cuda.is_available():
        sys.exit("there is no GPU here; --dry-run goes through it on a CPU")
    if a.one:
        part, system, length = a.one
        windows, least = ([16], 0.02) if a.dry_run else (WINDOWS, 0.5)
        lengths = [256] if a.dry_run else [int(length)]
        bench = Bench(
            a.device, lengths, windows, time.perf_counter() + 60 * a.minutes, least, [system] if system else []
        )
        measure(part, bench, a.results)
        return
    began, failed = time.monotonic(), []
    for case in (case for case in CASES if case[0] in a.parts):
        left = 60 * a.minutes - (time.monotonic() - began)
        named = " ".join(str(part) for part in case if part)
        if left < 5:
            failed.append(named)
            continue
        seconds = min(left, LIMIT)
        line = [sys.executable, __file__, "--one", *map(str, case), "--minutes", str(seconds / 60)]
        line += ["--device", a.device, "--results", str(a.results)] + ["--dry-run"] * a.dry_run
        try:
            failed += [named] if subprocess.run(line, timeout=seconds).returncode else []
        except subprocess.TimeoutExpired:
            failed.append(named)
    if a.results.exists():
        draw(a.results, a.results.with_name("gpu.png"))
    print(f"results: {a.results}, {time.monotonic() - began:.0f} s")
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}")


if __name__ == "__main__":
    main()
