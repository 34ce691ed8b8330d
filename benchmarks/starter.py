"""What the starter is worth: unseen texts, and texts trained on after it and from nothing, in the same minutes.

    python benchmarks/starter.py [--unseen FILE...] [--train FILE...] [--minutes 0.5 5 20] [--seeds 0 1 2]

unseen: scored whole by the starter. train: the last twentieth is held out; trained on from the starter, from nothing,
and as `--from auto` decides. Prints ratios with the goals that there are; appends to results.csv, and to starter.csv,
whose rows the choice of `auto` is fitted to (--fit prints the fit of what is there).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import record

from reformer_cli.data.scan import scanned
from reformer_cli.data.text_decoding import Options
from reformer_cli.runs.starter import starter
from reformer_cli.workflows.choose_settings import packed
from reformer_cli.workflows.choose_start import GAIN, bits_per_byte, sample
from reformer_cli.workflows.init_from import Start

ROWS = Path(__file__).with_name("starter.csv")
FIELDS = ["text", "bytes", "bz2_bits_per_byte", "minutes", "new", "starter_untrained", "starter_trained"]
GOALS = {0.5: 1.32, 5.0: 1.28, 20.0: 1.26}  # of Crime and Punishment, bits/byte by minutes
UNSEEN = 1.42
WORSE = 1.01  # times the better of the two that auto may come to


def reformer(*arguments: object) -> str:
    line = [sys.executable, "-m", "reformer_cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def trained(text: Path, minutes: float, seed: int, source: str, folder: Path) -> float:
    """Bits/byte of what is held out, after so long."""
    run = folder / f"{source}-{minutes:g}-{seed}"
    reformer("train", text, "--from", source, "--minutes", minutes, "--seed", seed, "--run", run)
    return float(json.loads(reformer("evaluate", "perplexity", "--run", run, "--json"))["bits_per_byte"])


def about(text: Path) -> dict[str, float | int | str]:
    """A row's first columns, and how well the starter predicts the text before it was trained on it."""
    folder = starter()
    assert folder is not None, "there is no starter in models/starter"
    with scanned([str(text)], Options(), None, print) as scan:
        parts = sample(scan)
    row = {"text": text.stem, "bytes": scan.bytes, "bz2_bits_per_byte": round(packed("".join(parts)), 4)}
    return row | {"starter_untrained": round(bits_per_byte(Start(folder), parts), 4)}


def compare(text: Path, minutes: list[float], seeds: list[int]) -> None:
    """Both ways, and what auto would have taken."""
    row = about(text)
    for m in minutes:
        with tempfile.TemporaryDirectory() as folder:
            found = {
                source: [trained(text, m, seed, source, Path(folder)) for seed in seeds]
                for source in ("none", "starter", "auto")
            }
        new, begun, auto = (statistics.mean(values) for values in found.values())
        keep(row | {"minutes": m, "new": round(new, 4), "starter_trained": round(begun, 4)})
        case = f"{text.stem}, {m:g} minutes, {len(seeds)} seeds"
        record.append(
            "cpu", "starter", [(name, case, "held out", statistics.mean(v), "bits/byte") for name, v in found.items()]
        )
        goal = f", goal {GOALS[m]}" if m in GOALS and text.stem == "crime-and-punishment" else ""
        print(
            f"{case}: from nothing {new:.3f}, from the starter {begun:.3f} ({begun / new:.3f} x{goal}), auto {auto:.3f}"
        )
        print(f"  auto is {auto / min(new, begun):.3f} x the better one (goal: at most {WORSE})")


def keep(row: dict[str, object]) -> None:
    with ROWS.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(row)


def fit() -> None:
    """The constants of choose_start.py by least squares over the rows, and how far off each is."""
    with ROWS.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["new"]]
    logs = {n: np.log([float(row[n]) for row in rows]) for n in ("new", "bz2_bits_per_byte", "minutes", "bytes")}
    x = np.stack([np.ones(len(rows)), logs["minutes"], logs["bytes"] - math.log(1e6)], 1)
    found = np.linalg.lstsq(x, logs["new"] - logs["bz2_bits_per_byte"], rcond=None)[0]
    print("BASE, BY_MINUTES, BY_SIZE =", ", ".join(f"{v:.3f}" for v in found))
    expected = np.exp(x @ found + logs["bz2_bits_per_byte"])
    for row, is_, said in zip(rows, np.exp(logs["new"]), expected, strict=True):
        ratio = float(row["starter_untrained"]) / said
        case = f"{row['text']:24} {row['minutes']:>5} new {is_:.3f}, expected {said:.3f}"
        print(f"{case}; starter / expected {ratio:.2f} (it is begun with below {GAIN})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--unseen", type=Path, nargs="*", default=[])
    parser.add_argument("--train", type=Path, nargs="*", default=[])
    parser.add_argument("--minutes", type=float, nargs="*", default=[0.5, 5.0, 20.0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--fit", action="store_true")
    given = parser.parse_args()
    if given.unseen:
        found = json.loads(reformer("evaluate", "perplexity", *given.unseen, "--run", "starter", "--json"))
        figure = found["bits_per_byte"]
        print(f"{len(given.unseen)} unseen texts: {figure:.4f} bits/byte ({figure / UNSEEN:.3f} x the goal, {UNSEEN})")
        rows = [
            ("starter", name, "unseen", each["bits_per_byte"], "bits/byte") for name, each in found["files"].items()
        ]
        record.append("cpu", "starter", [(*row[:1], Path(row[1]).stem, *row[2:]) for row in rows])
    for text in given.train:
        compare(text, given.minutes, given.seeds)
    if given.fit:
        fit()


if __name__ == "__main__":
    main()
