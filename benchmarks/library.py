"""The same minutes on a library of books: `reformer train` with no settings, and a dense GPT; then both on one novel.

    python benchmarks/library.py FOLDER --unseen FILE... --minutes 20 [--systems reformer dense-192 ...] [--run RUN]
                                 [--then NOVEL --then-minutes 2 5] [--seeds 0]

unseen: never in FOLDER; scored whole, each byte once. Peers read ours' tokens (of --run, a run that is there; else one
is trained) and are trained as in equal_minutes.py, without dropout, since no book is read twice. then: each goes on
from what it has learnt with all but the last twentieth of a novel, the peer with the best of the step sizes --rates
and of the minutes, ours as `--from` chooses with the most of them. Appends to results.csv.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import record
import torch
from dense import Dense
from equal_minutes import HELD_OUT, Peer, nats, train
from starter import reformer

import reformer_cli as rc
from reformer_cli.data.gutenberg import cut_licence
from reformer_cli.data.text_chunks import read_text
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.training.mixed_precision import pick_precision
from reformer_cli.utils.devices import keep_freed_memory

SIZES = {"dense-128": (128, 3), "dense-192": (192, 4), "dense-256": (256, 6)}


def peer(name: str, rate: float) -> Peer:
    """A dense GPT of 256 tokens of context, the best of those tried on one novel, and of what width and depth."""
    width, layers = SIZES[name]

    def make(vocab_size: int, context: int) -> tuple[Dense, Dense]:
        model = Dense(vocab_size, width, layers, 4)
        return model, model

    return Peer(make, 256, 8, rate, bf16=pick_precision("cpu")[0] == "bfloat16", decay=0.2)


def bits(chosen: Peer, model: Dense, tokenizer: Tokenizer, texts: list[str]) -> float:
    """Per byte of all of them."""
    total = 0.0
    for text in texts:
        tokens = torch.tensor(tokenizer.encode(text)).long()
        total += nats(model, chosen.context, torch.cat([torch.tensor([tokenizer.end]), tokens]), chosen.bf16)
    return total / math.log(2) / sum(len(text.encode()) for text in texts)


def tokens_of(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    end = torch.tensor([int(tokenizer.end)])
    return torch.cat([part for text in texts for part in (end, torch.tensor(tokenizer.encode(text)).long())])


def dense(name: str, run: Path, texts: list[str], unseen: list[str], a: argparse.Namespace, seed: int) -> list[tuple]:
    """(what, value, unit) of a peer; the first of --rates for the library, the best of all for the novel."""
    tokenizer = rc.load(str(run)).tokenizer
    chosen = peer(name, a.rates[0])
    model, _, steps = train(chosen, tokens_of(tokenizer, texts), tokenizer.vocab_size, a.minutes, seed)
    found = [("trained", steps, "steps"), ("unseen", bits(chosen, model, tokenizer, unseen), "bits/byte")]
    if a.then is None:
        return found
    begun = {k: v.clone() for k, v in model.state_dict().items()}
    part, held = halves(a.then)
    for rate, minutes in itertools.product(a.rates, a.then_minutes):
        begin = replace(peer(name, rate), make=lambda *_: _copy(model, begun))
        went_on, _, _ = train(begin, tokens_of(tokenizer, [part]), tokenizer.vocab_size, minutes, seed)
        said = f"{a.then.stem}, {minutes:g} minutes more, step size {rate:g}"
        found.append((said, bits(begin, went_on, tokenizer, [held]), "bits/byte"))
    return found


def _copy(model: Dense, weights: dict[str, torch.Tensor]) -> tuple[Dense, Dense]:
    model.load_state_dict(weights)
    return model.train(), model


def halves(novel: Path) -> tuple[str, str]:
    """What is trained on, and the last twentieth."""
    data = "".join(cut_licence([read_text(str(novel))]))
    cut = len(data) - len(data) // HELD_OUT
    return data[:cut], data[cut:]


def ours(run: Path, folder: Path, a: argparse.Namespace, seed: int) -> list[tuple]:
    """(what, value, unit) of ours."""
    if not run.exists():
        reformer("train", a.folder, "--from", "none", "--minutes", a.minutes, "--seed", seed, "--run", run)
    steps = max(json.loads(x).get("step", 0) for x in (run / "metrics.jsonl").read_text().splitlines())
    found: list[tuple] = [("trained", steps, "steps")]
    scored = json.loads(reformer("evaluate", "perplexity", *a.unseen, "--run", run, "--json"))
    found.append(("unseen", scored["bits_per_byte"], "bits/byte"))
    if a.then is not None:
        text, held = folder / "novel.txt", folder / "held.txt"
        for path, part in zip((text, held), halves(a.then), strict=True):
            path.write_text(part, "utf-8")
        minutes = max(a.then_minutes)
        then = ["train", text, "--validation", held, "--from", run, "--minutes", minutes, "--seed", seed]
        reformer(*then, "--run", folder / "then")
        scored = json.loads(reformer("evaluate", "perplexity", held, "--run", folder / "then", "--json"))
        found.append((f"{a.then.stem}, {minutes:g} minutes more", scored["bits_per_byte"], "bits/byte"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--unseen", nargs="+", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--systems", nargs="+", choices=["reformer", *SIZES], default=["reformer", "dense-192"])
    parser.add_argument("--run", type=Path, help="ours, trained before; its tokenizer is the peers' too")
    parser.add_argument("--then", type=Path)
    parser.add_argument("--then-minutes", type=float, nargs="+", default=[2.0, 5.0])
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    a = parser.parse_args()
    keep_freed_memory()
    texts = ["".join(cut_licence([read_text(str(p))])) for p in sorted(a.folder.rglob("*.txt"))]
    unseen = [read_text(str(path)) for path in a.unseen]
    for seed in a.seeds:
        with tempfile.TemporaryDirectory() as folder:
            run, of = a.run or Path(folder) / "run", dict[str, float]()
            for system in a.systems:
                if system == "reformer":
                    found = ours(run, Path(folder), a, seed)
                else:
                    found = dense(system, run, texts, unseen, a, seed)
                case = f"{a.folder.name}, {a.minutes:g} minutes, seed {seed}"
                for what, value, unit in found:
                    print(f"{system:<12} {what}: {value:.4f} {unit}", flush=True)
                record.append("cpu", "library", [(system, case, what, value, unit) for what, value, unit in found])
                of[system] = statistics.mean(value for what, value, _ in found if what == "unseen")
            for system in a.systems[1:]:
                print(f"unseen: {a.systems[0]} has {of[a.systems[0]] / of[system] - 1:+.1%} of {system}", flush=True)


if __name__ == "__main__":
    main()
