"""Whether the tree computes what another revision computes, bit for bit: `python tests/same_bits.py REV [JOB ...]`.

Guards against a move or a new name that changes what is computed: another order of sums, a rotation drawn from another
seed, a default that went astray. Tests with tolerances pass all of these. Each job is done by REV, checked out into a
temporary worktree, and by this tree: 20 training steps, 200 tokens, one evaluation; then digests of all tensors, the
text and the figures are compared. Exit status 1: something differs. 2: a job could not be done. A revision is asked
which names it knows, so that only the tables below change when something gets a new name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]

# What has a new name, or none: extended by whoever renames. The first name that a revision knows is taken.
SETTINGS: dict[str, str] = {
    "train.batch": "train.batch_size",
    "train.eval_every": "eval.every",
    "train.eval_tokens": "eval.tokens",
    **{
        f"model.{old}": f"model.{new}"
        for old, new in {
            "layers": "attn_layers",
            "lsh_heads": "n_lsh_heads",
            "shorten": "shorten_factor",
            "key_tokens": "lsh_key_conv",
            "feed_forward": "activation",
            "columns": "line_positions",
            "head_group": "chunk_heads",
            "workspace_tokens": "chunk_tokens",
            "norm=layer": "block_style=published",
            "windows=[16]": "lsh_window=16",
            "layers=[local, lsh, local]": "attn_layers=[chunked_local, chunked_lsh, chunked_local]",
        }.items()
    },
    **dict.fromkeys(("model.far_buckets", "model.pattern", "model.merge", "model.softcap", "model.head_bias"), ""),
    **dict.fromkeys(("model.values", "model.sink", "model.gates", "model.local_round"), ""),
}  # "section.old": "section.new", or both with =value; "" is for what is gone
OPTIONS: dict[str, str] = {"--samples": "--num-samples"}
# regular expression, replacement: old names of tensors become new ones
TENSORS: list[tuple[str, str]] = [(r"^columns\.table$", "line_positions.weight"), (r"^columns\.", "line_positions.")]
TENSORS += [(r"\.centre$", ".hash_mean"), (r"\.blend$", ".key_conv")]
FIGURES: list[tuple[str, str]] = []  # the same for what `evaluate perplexity --json` says

COMMON = ["model.d_model=64", "model.n_heads=4", "model.d_head=16", "model.n_hashes=2", "data.context=256"]
COMMON += ["train.batch=2", "train.learning_rate=0.004", "train.precision=float32"]
COMMON += ["train.eval_every=20", "train.eval_tokens=2048"]
JOBS = {
    "ours": [
        "model.n_layers=3", "model.layers=[mixed, lsh, full]", "data.vocab_size=512",
    ],
    "shortened": [
        "model.n_layers=4", "model.layers=[mixed, lsh]", "model.n_buckets=[4]", "model.far_buckets=0",
        "model.shorten=3", "model.head_group=2", "model.workspace_tokens=128", "model.backend=torch",
        "model.dropout=0.1", "data.tokenizer=bytes",
    ],
    "published": [
        "model.n_layers=3", "model.layers=[local, lsh, local]", "model.n_buckets=[8]", "model.head_bias=false",
        "model.windows=[16]", "model.local_window=32", "model.pattern=published", "model.values=same",
        "model.key_tokens=1",
        "model.norm=layer", "model.merge=concat", "model.softcap=0.0", "model.feed_forward=relu",
        "model.positions=axial", "model.axial_shape=[64, 64]", "model.axial_dims=[32, 32]", "data.tokenizer=bytes",
    ],
}  # fmt: skip
TEXT = "She opened the door, and with it the window; for every name that is bound, another one is free again.\n" * 12


class Tree:
    """A checkout, and a folder in which its program runs."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root, self.work = root, work
        work.mkdir()
        (work / "text.txt").write_text(TEXT, "utf-8")
        paths = {"PYTHONPATH": f"{root}:{root / 'models'}", "XDG_CACHE_HOME": str(work / "cache")}
        self.environment = os.environ | paths | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
        shown = yaml.safe_load(self.run("config", "show"))
        self.settings = {f"{section}.{name}" for section, names in shown.items() for name in names}

    def run(self, *arguments: str) -> str:
        line = [sys.executable, "-m", "reformer_cli", *arguments]
        done = subprocess.run(line, cwd=self.work, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{self.root}: reformer {' '.join(arguments)}\n{done.stderr}", file=sys.stderr)
            raise SystemExit(2)
        return done.stdout

    def call(self, command: str, *arguments: str, only_where_known: Sequence[str] = ()) -> str:
        """A command with its options by the names they have here."""
        known = set(re.findall(r"--[a-z][\w-]*", self.run(*command.split(), "--help")))
        arguments = (*arguments, *(a for a in only_where_known if a.partition("=")[0] in known))
        return self.run(*command.split(), *(renamed(a, known, OPTIONS) if a[:2] == "--" else a for a in arguments))

    def job(self, settings: list[str]) -> dict[str, Any]:
        """What comes out of a job: digests of tensors, the text, the figures."""
        named = [new for setting in settings if (new := renamed(setting, self.settings, SETTINGS))]
        run = Path(tempfile.mkdtemp(dir=self.work)) / "run"
        here = ("--run", str(run), "--device", "cpu")
        sets = [argument for new in named for argument in ("--set", new)]
        self.call("train", "python-reference", "--steps", "20", "--seed", "3", *here, *sets)
        draw = ("--prompt", "The with", "--max-tokens", "200", "--samples", "1", "--temperature", "0")
        plain = ("--as-typed", "--dry-multiplier=0")  # of revisions that have these: what the others do
        drawn = self.call("generate", *draw, *here, only_where_known=plain)
        figures = json.loads(self.call("evaluate perplexity", "text.txt", "--json", *here))
        found = {f"tensor {mapped(name, TENSORS)}": digest for name, digest in digests(run / "model.safetensors")}
        found |= {f"figure {mapped(name, FIGURES)}": value for name, value in numbers(figures)}
        return found | {"text": drawn}


def renamed(old: str, known: set[str], names: dict[str, str]) -> str:
    """name or name=value as a revision that knows these names calls it; empty: it has no such thing any more."""
    key = old.partition("=")[0]
    if key in known:
        return old
    for end in (len(old), len(key)):
        if (new := names.get(old[:end])) is not None:
            return renamed(new + old[end:], known, names) if new else ""
    print(f"{key} is known neither by this name nor by another: add it to the tables of {__file__}", file=sys.stderr)
    raise SystemExit(2)


def mapped(name: str, substitutions: list[tuple[str, str]]) -> str:
    for pattern, new in substitutions:
        name = re.sub(pattern, new, name)
    return name


def digests(path: Path) -> Iterator[tuple[str, str]]:
    import torch
    from safetensors.torch import load_file

    for name, tensor in load_file(path).items():
        data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        yield name, f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()[:16]}"


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in a JSON object, by where they stand."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(inner, f"{name}.{key}".removeprefix("."))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, value


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each thing that is not the same in both."""
    keys = sorted(before.keys() | now.keys())
    gone = "(none)"
    return [
        f"  {key}: {before.get(key, gone)!r} -> {now.get(key, gone)!r}"
        for key in keys
        if before.get(key, gone) != now.get(key, gone)
    ]


def compare(revision: str, jobs: list[str], work: Path) -> bool:
    """Do the jobs in both trees and print what differs; whether all is equal."""
    checkout = work / "checkout"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(checkout), revision], check=True)
    try:
        before, now = Tree(checkout, work / "before"), Tree(ROOT, work / "now")
        equal = True
        for name in jobs:
            was, found = (tree.job([*COMMON, *JOBS[name]]) for tree in (before, now))
            lines = differences(was, found)
            counts = {kind: sum(key.startswith(kind) for key in found) for kind in ("tensor", "figure", "text")}
            said = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in counts.items())
            print(f"{name}: {'equal' if not lines else f'{len(lines)} differ'} ({said})", *lines, sep="\n", flush=True)
            equal &= not lines
        return equal
    finally:
        subprocess.run([*git, "remove", "--force", str(checkout)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Does this tree compute the same bits as another revision?")
    parser.add_argument("revision")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {' '.join(JOBS)}; none: all")
    asked = parser.parse_args()
    if unknown := set(asked.jobs) - set(JOBS):
        parser.error(f"no job: {' '.join(unknown)}")
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if compare(asked.revision, asked.jobs or list(JOBS), Path(folder)) else 1)
