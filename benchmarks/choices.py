"""Rows for the rule by which `reformer train` chooses sizes: what a step takes, and what is learnt by how much reading.

    python benchmarks/choices.py steps [--threads 1]           seconds of a step of many sizes, without anything else
    python benchmarks/choices.py run TEXT --minutes M [--vocab 1024 4096] [--sizes 128x3 256x6] [--contexts 512 1024]
    python benchmarks/choices.py run TEXT --minutes M --from starter            the same of a model that has read others
    python benchmarks/choices.py grid LIBRARY NOVEL PAGES      the whole grid that issue 34 asks for: 12 points a text
    python benchmarks/choices.py forecast TEXT... --minutes 1 5 20 [--seconds 60]   tokens/s as told and as they came
    python benchmarks/choices.py fit                           what the rows say: constants of training/learning.py

Appends to choices.csv. `steps` takes processor time, so that it may be taken beside other work, with one thread; `run`
needs a quiet machine to say anything about minutes, but its tokens against bits/byte hold wherever it ran.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record
import torch
from reformer import ReformerConfig, ReformerLM

from reformer_cli.config.schema import TrainConfig
from reformer_cli.training.optimizers import make_optimizers, prime

ROWS = Path(__file__).with_name("choices.csv")
FIELDS = [
    "kind", "commit", "machine", "text", "bytes", "minutes", "vocab", "d_model", "layers", "heads", "context", "batch",
    "seconds", "steps", "tokens", "text_tokens", "bits_per_byte", "note",
]  # fmt: skip
SIZES = [(128, 3, 4), (192, 4, 4), (256, 6, 4), (384, 8, 6)]
STEPS = [  # vocabulary, d_model, layers, heads, context, batch
    *[(1024, d, n, h, 512, 4) for d, n, h in SIZES], *[(v, 128, 3, 4, 512, 4) for v in (257, 4096, 16_384)],
    *[(v, 256, 6, 4, 1024, 2) for v in (1024, 4096, 32_768)], (1024, 192, 4, 4, 1024, 2), (1024, 192, 4, 4, 2048, 1),
    (1024, 128, 6, 4, 512, 4), (1024, 256, 3, 4, 512, 4), (1024, 192, 4, 4, 512, 1), (1024, 192, 4, 4, 512, 16),
]  # fmt: skip


def append(**row: Any) -> None:
    new = not ROWS.exists()
    with ROWS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({"commit": record.commit(), "machine": record.machine("cpu")} | row)
    print(row, flush=True)


def rows(kind: str) -> list[dict[str, str]]:
    with ROWS.open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


def step(vocab: int, d_model: int, layers: int, heads: int, context: int, batch: int, times: int = 3) -> float:
    """Processor seconds of a whole step, the least of some: forward, backward, clipping, AdamW."""
    model = ReformerLM(
        ReformerConfig(
            vocab_size=vocab, d_model=d_model, n_layers=layers, n_heads=heads, d_head=d_model // heads, dropout=0.1
        )
    ).train()  # fmt: skip
    optimizers = make_optimizers(model, TrainConfig())
    prime(optimizers)
    tokens, least = torch.randint(vocab, (batch, context + 1)), float("inf")
    for n in range(times + 1):
        began = time.process_time()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        model.loss(tokens[:, :-1], tokens[:, 1:], dropout_seed=n).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        least = min(least, time.process_time() - began) if n else least
    return least


def steps(threads: int) -> None:
    torch.set_num_threads(threads)
    for vocab, d_model, layers, heads, context, batch in STEPS:
        sizes = {"vocab": vocab, "d_model": d_model, "layers": layers, "heads": heads, "context": context}
        seconds = step(vocab, d_model, layers, heads, context, batch)
        append(
            kind="step", **sizes, batch=batch, seconds=f"{seconds:.4f}",
            note=f"processor time, {threads} thread(s), float32",
        )  # fmt: skip


def run(
    text: Path, minutes: float, vocab: int | None, size: str | None, context: int | None, note: str = "",
    init_from: str = "none",
) -> None:  # fmt: skip
    """One training; nothing set where a value is None. init_from: none, or starter, which takes no sizes."""
    sets = []
    if size is not None:
        d_model, layers = map(int, size.split("x"))
        heads = {d: h for d, _, h in SIZES}.get(d_model, 4)
        sets += [f"d_model={d_model}", f"n_layers={layers}", f"n_heads={heads}", f"d_head={d_model // heads}"]
    sets += [f"vocab_size={vocab}"] if vocab else []
    sets += [f"context={context}", f"batch_size={max(1, 2048 // context)}"] if context else []
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "run"
        command = [sys.executable, "-m", "reformer_cli", "train", str(text), "--minutes", str(minutes), "--run", where]
        begin = "auto" if init_from == "starter" else init_from  # which says how well it predicts the text untrained
        command += ["--from", begin, *(part for one in sets for part in ("--set", one))]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stderr
        held_out = float(done.rpartition("held out: ")[2].split()[0])
        import yaml

        config = yaml.safe_load((where / "config.yaml").read_text())
        lines = [json.loads(x) for x in (where / "metrics.jsonl").read_text().splitlines()]
        last = [x for x in lines if "tokens_per_second" in x][-1]
    model, told = config["model"], done.partition(" training tokens")[0].split()[-1].replace(",", "")
    if init_from == "starter":
        note = f"{note or 'chosen'}; untrained {done.partition('the starter predicts it with ')[2].split()[0]}"
    append(
        kind="run" if init_from == "none" else "continued", text=text.name, bytes=size_of(text), minutes=minutes,
        vocab=model["vocab_size"], d_model=model["d_model"], layers=model["n_layers"], heads=model["n_heads"],
        context=config["data"]["context"], batch=config["train"]["batch_size"], seconds=last["seconds"],
        steps=last["step"], tokens=last["tokens"], text_tokens=told, bits_per_byte=held_out,
        note=note or ("chosen" if not sets else ""),
    )  # fmt: skip


def forecast(text: Path, minutes: float, seconds: float) -> None:
    """What a run is told of its speed, and how fast it was until it is stopped after so many seconds of training."""
    with tempfile.TemporaryDirectory() as folder:
        where, said = Path(folder) / "run", Path(folder) / "said"
        command = [sys.executable, "-m", "reformer_cli", "train", text, "--minutes", minutes, "--run", where]
        with open(said, "w") as file:
            process = subprocess.Popen([str(c) for c in [*command, "--from", "none"]], stderr=file, stdout=file)
            while process.poll() is None and _trained(where)[0] < seconds:
                time.sleep(1)
            process.send_signal(signal.SIGINT)
            process.wait(600)
        told = said.read_text().partition("forecast: about ")[2].split()[0].replace(",", "")
        import yaml

        config, (spent, tokens, steps) = yaml.safe_load((where / "config.yaml").read_text()), _trained(where)
    model, came = config["model"], tokens / spent
    print(
        f"{text.name} {minutes:g} minutes: forecast {told}, came {came:,.0f}: {came / float(told) - 1:+.0%}", flush=True
    )
    append(
        kind="forecast", text=text.name, bytes=size_of(text), minutes=minutes, vocab=model["vocab_size"],
        d_model=model["d_model"], layers=model["n_layers"], heads=model["n_heads"], context=config["data"]["context"],
        batch=config["train"]["batch_size"], seconds=spent, steps=steps, tokens=tokens,
        note=f"{told} tokens/s forecast",
    )  # fmt: skip


def _trained(run: Path) -> tuple[float, int, int]:
    """(seconds, tokens, steps) so far."""
    path = run / "metrics.jsonl"
    lines = [json.loads(x) for x in path.read_text().splitlines()] if path.is_file() else []
    known = [x for x in lines if "tokens_per_second" in x]
    return (known[-1]["seconds"], known[-1]["tokens"], known[-1]["step"]) if known else (0.0, 0, 0)


def size_of(text: Path) -> int:
    return sum(p.stat().st_size for p in text.rglob("*") if p.is_file()) if text.is_dir() else text.stat().st_size


def grid(library: Path, novel: Path, pages: Path) -> None:
    """Issue 34's: on each text, what is chosen and 12 points."""
    for text, minutes in ((pages, 2.0), (novel, 5.0), (novel, 20.0), (library, 20.0)):
        run(text, minutes, None, None, None)
        for vocab in (1024, 4096):
            for size in ("128x3", "192x4", "256x6"):
                for context in (512, 1024):
                    run(text, minutes, vocab, size, context, "grid")


# Where two sizes were found to be as good (LOG.md, 2026-11-24): million tokens that 192 wide reads, the two sizes, and
# how many times as many the first reads, and the second, of a text that is read once.
EQUAL = [(2.8, 0, 1, 2.03, 1.0), (17.5, 1, 2, 1.0, 1 / 2.16), (70.0, 2, 3, 1 / 2.16, 1 / 5.6)]
PRIORS = {
    "SIZE": (0.34, 0.05),
    "READ": (0.28, 0.04),
    "SHARPNESS": (1.5, 1.0),
    "AGAIN": (8.0, 4.0),
    "LARGER_VOCABULARY": (0.15, 0.05),
}
CONSTANTS = ["E", "A", "SIZE", "B", "READ", "SHARPNESS", "AGAIN", "ONE_BOOK", "LARGER_VOCABULARY"]


def fit() -> None:
    """The constants of training/learning.py from the rows `known` and those of a library, the sizes that were equal,
    and published exponents as a prior. Prints them and what each row is off by, those too that are not fitted to."""
    from scipy.optimize import least_squares

    from reformer_cli.training import learning

    sure = {"185 novels": 0.006, "crime-and-punishment.txt": 0.005, "94 novels": 0.02}  # shares that rows are good to
    used = [(row, sure[row["text"]]) for row in rows("known")]
    used += [(row, 0.02 if row["text"] == "lib12" else 0.0) for row in rows("run")]

    def numbers(d_model: int, layers: int) -> float:
        return 11.78 * layers * d_model**2

    def off(row: dict[str, str]) -> float:
        size = 0.95 * int(row["bytes"])
        read = int(row["tokens"]) * size / int(row["text_tokens"])
        documents = 1 if row["text"] in ("crime-and-punishment.txt", "pages.txt") else 10
        of = numbers(int(row["d_model"]), int(row["layers"]))
        found = learning.bits_per_byte(of, read, size, int(row["vocab"]), documents)
        return found / float(row["bits_per_byte"]) - 1

    def residuals(values: Any) -> list[float]:
        for name, value in zip(CONSTANTS, values, strict=True):
            setattr(learning, name, value)
        found = [off(row) / sure for row, sure in used if sure]
        for tokens, small, large, of_small, of_large in EQUAL:
            both = [
                learning.bits_per_byte(numbers(*SIZES[n][:2]), tokens * share * 2.82e6, 1e12, 1024, 10)
                for n, share in ((small, of_small), (large, of_large))
            ]
            found.append((both[0] - both[1]) / 0.015)
        return found + [(getattr(learning, name) - mean) / by for name, (mean, by) in PRIORS.items()]

    begin = [getattr(learning, name) for name in CONSTANTS]
    found = least_squares(
        residuals, begin, bounds=([0.3, 0.01, 0.1, 0.1, 0.1, 1, 1, 0, 0], [1.5, 3, 1, 3, 1, 8, 30, 0.4, 1])
    )
    residuals(found.x)
    print(", ".join(f"{name} = {value:.3f}" for name, value in zip(CONSTANTS, found.x, strict=True)))
    for row, _ in used:
        print(f"{off(row):+.1%}  {row['text']} {row['vocab']} {row['d_model']}x{row['layers']} {row['bits_per_byte']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("steps").add_argument("--threads", type=int, default=1)
    one = commands.add_parser("run")
    one.add_argument("text", type=Path)
    one.add_argument("--minutes", type=float, default=1.0)
    one.add_argument("--vocab", nargs="+", type=int, default=[None])
    one.add_argument("--sizes", nargs="+", default=[None])
    one.add_argument("--contexts", nargs="+", type=int, default=[None])
    one.add_argument("--note", default="")
    one.add_argument("--from", dest="init_from", choices=["none", "starter"], default="none")
    whole = commands.add_parser("grid")
    for name in ("library", "novel", "pages"):
        whole.add_argument(name, type=Path)
    told = commands.add_parser("forecast")
    told.add_argument("texts", nargs="+", type=Path)
    told.add_argument("--minutes", nargs="+", type=float, default=[1.0, 5.0, 20.0])
    told.add_argument("--seconds", type=float, default=60.0)
    commands.add_parser("fit")
    a = parser.parse_args()
    if a.command == "fit":
        fit()
    elif a.command == "steps":
        steps(a.threads)
    elif a.command == "forecast":
        for text in a.texts:
            for minutes in a.minutes:
                forecast(text, minutes, a.seconds)
    elif a.command == "run":
        for vocab in a.vocab:
            for size in a.sizes:
                for context in a.contexts:
                    run(a.text, a.minutes, vocab, size, context, a.note, a.init_from)
    else:
        grid(a.library, a.novel, a.pages)


if __name__ == "__main__":
    main()
