"""What `reformer plan` forecasts beside what a step takes: thirteen configurations, each in a process of its own.

    python benchmarks/memory.py [--device cuda] [--only N ...]

Prints a table; appends to results.csv.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import record

MIB = 2**20
NOVEL = {
    "vocab_size": 320, "d_model": 256, "n_layers": 6, "n_heads": 2, "d_head": 64, "d_ff": 512, "local_window": 64,
    "n_hashes": 1, "far_buckets": 0, "batch_size": 1,
}  # fmt: skip
WIDE = {"vocab_size": 1024, "context": 32768, "batch_size": 1, "d_model": 1024, "n_heads": 16, "n_layers": 2}
# name -> (recipe, settings)
CASES: dict[str, tuple[str | None, dict[str, object]]] = {
    "novel, 65,536": (None, NOVEL | {"context": 65536, "n_buckets": [32, 32]}),
    "novel, 65,536, 24 layers": (None, NOVEL | {"context": 65536, "n_buckets": [32, 32], "n_layers": 24}),
    "novel, 131,072, float32": (None, NOVEL | {"context": 131072, "n_buckets": [32, 64], "precision": "float32"}),
    "novel, 262,144, half gradients": (
        None, NOVEL | {"context": 262144, "n_buckets": [64, 64], "gradient_dtype": "bfloat16"},
    ),
    "defaults, 8 x 2,048": (None, {"vocab_size": 4096, "context": 2048, "batch_size": 8}),
    "d_model 512, 32,768": (
        None, {"vocab_size": 1024, "context": 32768, "batch_size": 1, "d_model": 512, "n_heads": 8, "n_layers": 4},
    ),
    "four rounds of LSH alone, 65,536": (
        None,
        {"vocab_size": 1024, "context": 65536, "batch_size": 1, "n_hashes": 4, "attn_layers": ["lsh"], "n_layers": 3},
    ),
    "full attention, 8,192": (None, {"vocab_size": 320, "context": 8192, "batch_size": 1, "attn_layers": ["full"]}),
    "published, 65,536": ("crime-and-punishment", {"context": 65536, "axial_shape": [256, 256]}),
    "d_model 1,024, 32,768": (None, WIDE),
    "the same, 2 heads at a time": (None, WIDE | {"chunk_heads": 2}),
    "novel, 262,144, groups of 3": (None, NOVEL | {"context": 262144, "n_buckets": [64, 64], "shorten_factor": 3}),
    "the same, all layers on groups of 2": (
        None,
        NOVEL | {"context": 262144, "n_buckets": [64, 64], "shorten_factor": 2, "vanilla_layers": [0, 0]},
    ),
}  # fmt: skip


def measure(case: str, device: str) -> tuple[int, int, float]:
    """(forecast, measured, seconds) of one step, in this process."""
    import time

    from reformer_cli.config.load import load_config, resolve
    from reformer_cli.workflows.choose_settings import step_of
    from reformer_cli.workflows.plan import VOCAB_SIZE, measured

    recipe, settings = CASES[case]
    loaded = load_config(recipe, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    config = resolve(loaded, loaded["data"].get("vocab_size") or VOCAB_SIZE)
    step = step_of(config, device)
    start = time.perf_counter()
    return step.total, measured(config, device, step), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.only[0], arguments.device)))
        return
    rows: list[tuple[str, str, str, float, str]] = []
    print(f"{'':34} {'forecast':>10} {'measured':>10} {'ratio':>6} {'seconds':>8}")
    for case in arguments.only:
        line = [sys.executable, __file__, "--one", "--only", case, "--device", arguments.device]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            print(f"{case:34} failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        forecast, found, seconds = json.loads(done.stdout.splitlines()[-1])
        print(f"{case:34} {forecast / MIB:6,.0f} MiB {found / MIB:6,.0f} MiB {found / forecast:6.2f} {seconds:8.1f}")
        for name, size in (("forecast", forecast), ("peak memory", found)):
            rows.append(("reformer", case, name, size / MIB, "MiB"))
    record.append(arguments.device, "memory", rows)


if __name__ == "__main__":
    main()
