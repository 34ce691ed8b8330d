"""Equal seconds on a shelf of novels, then bits/byte of novels never seen, by how much context is allowed.

    python benchmarks/shelf.py FOLDER... --unseen conrad_darkness wells_thetimemachine [--seconds 60]
                               [--set d_model=512] [--contexts 1024 2048 8192 32768] [--seeds 0 1]

Ours and local heads alone at the longest context, and full attention in the same code trained on contexts of each
length with as many tokens a step: the fair opponent is the fastest of them, not the one as long as ours. All have the
vocabulary that ours made. Without --set sizes suit a CPU for minutes. Appends to results.csv.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import record
import torch

SMALL = ["d_model=128", "n_layers=4", "n_heads=4", "d_head=32"]
VOCABULARY = ["--set", "vocab_size=1024"]
AT_ONCE = 2**20  # bytes of an unseen novel that are scored


def cases(contexts: list[int]) -> dict[str, tuple[int, list[str]]]:
    """Name -> (context, settings)."""
    longest = max(contexts)
    found: dict[str, tuple[int, list[str]]] = {"reformer": (longest, []), "local": (longest, ["attn_layers=[local]"])}
    return found | {f"full attention, {n}": (n, ["attn_layers=[full]"]) for n in sorted(contexts)}


def reformer(*arguments: str) -> str:
    """What a command of ours prints."""
    line = [sys.executable, "-m", "reformer_cli", *arguments]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def trained(
    run: Path, texts: list[Path], context: int, a: argparse.Namespace, seed: int, more: list[str], vocabulary: list[str]
) -> int:
    """Train for the seconds; how many tokens that were."""
    sets = [*SMALL, *a.set, f"context={context}", f"batch_size={max(1, a.tokens // context)}", "val_fraction=0", *more]
    chosen = [part for one in sets for part in ("--set", one)]
    reformer(
        "train", *map(str, texts), "--run", str(run), "--minutes", str(a.seconds / 60), "--seed", str(seed), "--from",
        "none", "--device", a.device, *chosen, *vocabulary,
    )  # fmt: skip
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return max(record.get("tokens", 0) for record in records)


def bits(run: Path, novels: list[Path], context: int, device: str) -> float:
    """Per byte of all novels, given so many tokens before each."""
    found = reformer(
        "evaluate", "perplexity", *map(str, novels), "--run", str(run), "--context", str(context), "--json",
        "--device", device,
    )  # fmt: skip
    return float(json.loads(found)["bits_per_byte"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--unseen", nargs="+", required=True, help="names of files that are never trained on")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, each")
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 2048, 8192, 32768])
    parser.add_argument("--tokens", type=int, default=32768, help="a step")
    parser.add_argument("--set", nargs="+", default=[], help="settings of all, as of reformer train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
    a = parser.parse_args()
    record.RESULTS = a.results
    files = sorted(path for folder in a.folders for path in folder.glob("*.txt"))
    unseen = [path for path in files if path.stem in a.unseen]
    if len(unseen) != len(a.unseen):
        sys.exit(f"of {len(a.unseen)} names in --unseen {len(unseen)} are there")
    texts = [path for path in files if path not in unseen]
    with tempfile.TemporaryDirectory() as folder:
        novels = [Path(folder) / path.name for path in unseen]
        for path, copy in zip(unseen, novels, strict=True):
            copy.write_bytes(path.read_bytes()[:AT_ONCE])
        for seed in a.seeds:
            vocabulary = VOCABULARY
            for name, (context, more) in cases(a.contexts).items():
                run = Path(folder) / f"{name}-{seed}"
                n = trained(run, texts, context, a, seed, more, vocabulary)
                rows = [(name, f"seed {seed}", "tokens", float(n), "tokens")]
                vocabulary = ["--tokenizer", str(Path(folder) / f"reformer-{seed}" / "tokenizer.model")]
                for allowed in sorted({*a.contexts, 512}):
                    found = bits(run, novels, allowed, a.device)
                    rows.append((name, f"seed {seed}, {allowed} tokens of context", "unseen", found, "bits/byte"))
                    print(f"{name:<24} {n:>12,} tokens {allowed:>7,} of context {found:.4f}", flush=True)
                record.append(a.device, f"shelf {a.seconds:g} s", rows)


if __name__ == "__main__":
    main()
