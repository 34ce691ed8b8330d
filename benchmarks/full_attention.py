"""How much of what full attention gets out of a longer context hashed heads get, in one trained model.

    python benchmarks/full_attention.py TEXT --run RUN [--contexts 4096 8192 16384 32768] [--rounds 1 2 4 8 full]
                                        [--tokens 32768] [--again 16384] [--buckets 4096]

The last tokens of the text are scored at every context (each sees at least half of it), by whole passes: with so many
hash rounds, and with attention to everything in the
hash's place, which is the yardstick. Prints bits/byte, what the longest context saves over the shortest, its share of
what full attention saves, and time; appends to results.csv. again: what is scored is put into the text once more, so
many tokens earlier, so that a context which reaches that far (half of it does) has something to find. buckets: of
the far round, which a model made without one gets; the other rounds keep theirs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import record
import torch
from reformer.rehash import FULL, Rounds, with_far_buckets, with_rounds

from reformer_cli.commands.evaluate.output import numbers
from reformer_cli.data.text_chunks import read_pieces
from reformer_cli.evaluation.context_curve import Curve
from reformer_cli.evaluation.scorers import WindowScorer
from reformer_cli.runs.run import Run
from reformer_cli.utils.devices import keep_freed_memory


def measured(
    run: Run,
    prefix: torch.Tensor,
    scored: torch.Tensor,
    lengths: np.ndarray,
    contexts: list[int],
    rounds: Rounds,
    buckets: int | None,
) -> tuple[Curve, list[float]]:
    """Nats at every context, and seconds per token scored."""
    model = run.load_model()
    if buckets is not None and rounds != FULL:
        model = with_far_buckets(model, buckets)
    model = with_rounds(model, rounds, max(contexts))
    nats, seconds = [], []
    for context in contexts:
        reader, began = WindowScorer(model, prefix, context, forward=True), time.perf_counter()
        nats.append(torch.cat([reader.score(part) for part in scored.split(reader.at_once)]).numpy())
        seconds.append((time.perf_counter() - began) / len(scored))
    return Curve(contexts, np.stack(nats), lengths, None, (len(prefix), len(prefix) + len(scored))), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--contexts", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    parser.add_argument("--rounds", nargs="+", default=["1", "2", "4", "8", FULL])
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--buckets", type=int)
    parser.add_argument("--again", type=int, help="tokens, at least --tokens")
    arguments = parser.parse_args()
    keep_freed_memory()
    run, contexts = Run.open(arguments.run), sorted(arguments.contexts)
    tokenizer = run.tokenizer()
    ids = np.concatenate([tokenizer.encode(piece) for piece in read_pieces(str(arguments.text))]).astype(np.int64)
    if len(ids) < contexts[-1] + arguments.tokens:
        parser.error(f"{arguments.text} has {len(ids):,} tokens, fewer than the longest context and --tokens")
    tokens = torch.from_numpy(ids)
    prefix, scored = tokens[: -arguments.tokens], tokens[-arguments.tokens :]
    case = f"{arguments.text.stem}, {arguments.run.name}"
    if arguments.again is not None:
        if not arguments.tokens <= arguments.again <= contexts[-1] // 2:
            parser.error(f"--again must be from --tokens to half the longest context: {contexts[-1] // 2:,}")
        cut = len(prefix) - (arguments.again - arguments.tokens)
        prefix = torch.cat([prefix[:cut], scored, prefix[cut:]])
        case += f", read {arguments.again:,} tokens before"
    lengths = tokenizer.byte_lengths()[scored.numpy()]
    given, rounds = (
        (run, prefix, scored, lengths, contexts),
        numbers("--rounds", ",".join(arguments.rounds), 1, 64, "full"),
    )
    case += f", {arguments.buckets:,} buckets" if arguments.buckets else ""
    found = {r: measured(*given, r, arguments.buckets) for r in rounds}
    report(found, case, contexts)


def report(found: dict[Rounds, tuple[Curve, list[float]]], text: str, contexts: list[int]) -> None:
    rows, last = [], len(contexts) - 1
    head = ["rounds", *(f"{c:,}" for c in contexts), "saves (95 %)", "of full attention's", "ms a token, longest"]
    print(f"| {' | '.join(head)} |")
    yardstick = found[FULL][0].saved(0, last) if FULL in found else None
    print("|---" * (len(contexts) + 4) + "|")
    for rounds, (curve, seconds) in found.items():
        bits = [curve.bits(n)[0] for n in range(len(contexts))]
        saved, interval = curve.saved(0, last)
        span = f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        cells = " | ".join(f"{b:.4f}" for b in bits)
        share = "" if yardstick is None else f"{100 * saved / yardstick[0]:.0f} %"
        if yardstick is not None and (yardstick[1] is None or yardstick[1][0] <= 0):
            share = "none shown"
        print(f"| {rounds} | {cells} | {saved:.4f}{span} | {share} | {1000 * seconds[-1]:.3f} |", flush=True)
        case = f"{text}, rounds {rounds}"
        rows += [
            ("reformer", f"{case}, context {c}", "read", b, "bits/byte") for c, b in zip(contexts, bits, strict=True)
        ]
        rows.append(("reformer", f"{case}, context {contexts[-1]}", "time", 1000 * seconds[-1], "ms/token"))
    record.append("cpu", "full_attention", rows)


if __name__ == "__main__":
    main()
