"""What training costs beside the model: data, logging, checkpoints written in the background or not.

Trains on the built-in text as a user does and reads metrics.jsonl: what of a step is outside forward, backward and
optimiser; what of it waits for data; what lies between steps where checkpoints are written.
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

SETTINGS = ["vocab_size=4096", "context=512", "batch_size=4", "eval.every=1000000"]
SETTINGS += ["val_fraction=0", "precision=bfloat16"]
CASES = {
    "small, 0.7 M parameters": (["d_model=128", "n_layers=3", "n_heads=4", "d_head=32"], 200, 0.05),
    "large, 28 M parameters": (["d_model=512", "n_layers=8", "n_heads=8", "d_head=64"], 16, 0.05),
}

DRIVER = """
import sys
from reformer_cli.__main__ import main
from reformer_cli.training import trainer
from reformer_cli.workflows import choose_settings
trainer.SAVE_EVERY_MINUTES = {minutes}
choose_settings.copy_fits = lambda *_: {background}
sys.exit(main(sys.argv[1:]))
"""


def measured(case: str, background: bool) -> dict[str, float]:
    """Shares in percent, seconds between steps, size of a checkpoint in bytes."""
    sets, steps, minutes = CASES[case]
    sets = [*sets, *SETTINGS]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        driver = DRIVER.format(minutes=minutes, background=background)
        command = [sys.executable, "-c", driver, "train", "python-reference", "--from", "none", "--steps", str(steps)]
        command += ["--run", str(run), *(part for s in sets for part in ("--set", s))]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        size = sum(p.stat().st_size for p in max((run / "checkpoints").glob("step-*")).iterdir())
    done = [r for r in records if "loss" in r][2:]  # the first ones compile and touch their memory
    each = [2048 / r["tokens_per_second"] for r in done]
    gaps = [b["seconds"] - a["seconds"] - s for a, b, s in zip(done, done[1:], each[1:], strict=False)]
    return {
        "step": statistics.median(each),
        "outside": 100 * (1 - sum(r["step_seconds"] for r in done) / sum(each)),
        "waiting": 100 * sum(r["data_seconds"] for r in done) / sum(each),
        "median gap": statistics.median(gaps),
        "longest gap": max(gaps),
        "longest step": max(each),
        "between": 100 * sum(gaps) / (sum(each) + sum(gaps)),
        "checkpoint": size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args()
    for case in arguments.cases:
        for background in (True, False):
            found = measured(case, background)
            name = f"{case}, saves {'in the background' if background else 'at once'}"
            print(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
            units = {"outside": "%", "waiting": "%", "between": "%", "checkpoint": "bytes"}
            rows = [("reformer", name, k, v, units.get(k, "s")) for k, v in found.items()]
            record.append("cpu", "around", rows)


if __name__ == "__main__":
    main()
