"""The paper's copy task: trained with some rounds, evaluated with others (arXiv 2001.04451, table 2).

    python benchmarks/duplication.py [--trained 1 2 4 8] [--folder DIR] [--set key=value ...]

Trains a run of `--config copy-task` for each number of rounds, or goes on with the one in DIR; evaluates each with all.
Prints our table beside the published one; appends to results.csv.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import record

EVALUATED = ["full", "8", "4", "2", "1"]
# Per cent of the second w, after 150,000 steps of a model of one layer, d_model 256 and 4 heads.
PUBLISHED = {
    "4": [0.8, 100.0, 99.9, 99.4, 91.9],
    "2": [0.8, 100.0, 99.9, 98.1, 86.8],
    "1": [0.8, 99.9, 99.6, 94.8, 77.9],
}


def trained(rounds: str, folder: Path, sets: list[str]) -> Path:
    """The run of so many rounds, trained to its end."""
    run = folder / f"rounds-{rounds}"
    if (run / "checkpoints").is_dir():  # interrupted, or done, which takes a validation to find out
        reformer("train", "--resume", "--run", str(run))
    else:
        chosen = [f"n_hashes={rounds}"]
        options = [part for setting in [*chosen, *sets] for part in ("--set", setting)]
        reformer("train", "--config", "copy-task", "--run", str(run), *options)
    return run


def evaluated(run: Path) -> list[float]:
    """Per cent of the second w that is right, in the order of EVALUATED."""
    options = ["--test", "copy", "--max-distance", "511", "--n-hashes", ",".join(EVALUATED), "--json"]
    found = json.loads(reformer("evaluate", "recall", "--run", str(run), *options))["n_hashes"]
    lengths = [[o for o in outcomes if o["distance"] == 512] for outcomes in found.values()]
    return [100 * outcomes[0]["share"] for outcomes in lengths]


def reformer(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "reformer_cli", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", nargs="+", choices=["1", "2", "4", "8"], default=["1", "2", "4", "8"])
    parser.add_argument("--folder", type=Path, default=Path("runs/duplication"))
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    arguments = parser.parse_args()
    rows: list[tuple[str, str, str, float, str]] = []
    print("| trained | " + " | ".join(f"evaluated {name} (published)" for name in EVALUATED) + " |")
    print("|---" * (len(EVALUATED) + 1) + "|")
    for rounds in arguments.trained:
        shares = evaluated(trained(rounds, arguments.folder, arguments.set))
        beside = PUBLISHED.get(rounds, [None] * len(EVALUATED))
        cells = [f"{a:.1f} ({b if b is not None else '-'})" for a, b in zip(shares, beside, strict=True)]
        print(f"| {rounds} | {' | '.join(cells)} |", flush=True)
        for name, share in zip(EVALUATED, shares, strict=True):
            rows.append(("reformer", f"trained {rounds}, evaluated {name}", "copied", share, "%"))
    record.append("cpu", "duplication", rows)


if __name__ == "__main__":
    main()
