"""What a GPU does in a given time: copies and products, our attention, a layer, a training step, decoding.

    python benchmarks/gpu.py [--minutes 6] [--parts kernel step] [--lengths 4096 65536] [--dry-run]

Against full attention (SDPA) of the same model, FlexAttention with the same block pattern, transformers' Reformer and
reformer-pytorch; products in bfloat16 for all. Each part has a process of its own, so that what breaks one leaves the
others. Appends to results.csv and draws gpu.png (with matplotlib). --dry-run: every line of it on a CPU at tiny sizes;
writes to a folder of its own and means nothing.
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
from gpu_parts import PARTS

LENGTHS = [4096, 16384, 65536, 262144, 524288, 1048576]
WINDOWS = [64, 128, 256]


def measure(part: str, bench: Bench, results: Path) -> None:
    """Print and append every row as it is found."""
    record.RESULTS = results
    print(f"{part}: {PARTS[part][0].__doc__}", flush=True)
    for row in PARTS[part][0](bench):
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
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--minutes", type=float, default=6.0, help="for all of it; what does not fit is left out")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, tiny")
    parser.add_argument("--results", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.dry_run:
        a.device, a.lengths = "cpu", [256, 512]
        if a.results == record.RESULTS:
            a.results = Path(tempfile.mkdtemp(prefix="dry-run-")) / "results.csv"
    elif not torch.cuda.is_available():
        sys.exit("there is no GPU here; --dry-run goes through it on a CPU")
    windows = [16] if a.dry_run else WINDOWS
    if a.one:
        least = 0.02 if a.dry_run else 0.5
        bench = Bench(a.device, a.lengths, windows, time.perf_counter() + 60 * a.minutes, least)
        measure(a.parts[0], bench, a.results)
        return
    began, failed = time.monotonic(), []
    for n, part in enumerate(a.parts):
        # What earlier parts did not need is shared by the later ones.
        left = 60 * a.minutes - (time.monotonic() - began)
        share = left * PARTS[part][1] / sum(PARTS[p][1] for p in a.parts[n:])
        line = [sys.executable, __file__, "--one", "--parts", part, "--minutes", str(share / 60)]
        line += ["--device", a.device, "--results", str(a.results), "--lengths", *map(str, a.lengths)]
        line += ["--dry-run"] * a.dry_run
        try:
            # A last measurement may take longer than forecast.
            failed += [part] if subprocess.run(line, timeout=share + 60).returncode else []
        except subprocess.TimeoutExpired:
            failed.append(part)
    if a.results.exists():
        draw(a.results, a.results.with_name("gpu.png"))
    print(f"results: {a.results}, {time.monotonic() - began:.0f} s")
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}")


if __name__ == "__main__":
    main()
