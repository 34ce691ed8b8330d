"""Adapters (LoRA, arXiv 2106.09685) against training all: what they could save of a step, and what they learn.

    python benchmarks/adapters.py speed [--run starter] [--tokens 2048] [--context 512] [--rounds 7]
    python benchmarks/adapters.py learn TEXT --held-out FILE --minutes 0.5 5 [--ranks 8 32 64] [--rates 0.003 0.01]

speed: all matrices frozen against all trained, in turn, the median of the rounds. A frozen step still runs forward,
rebuilds the streams and gives the gradient of what each matrix read; it leaves out each matrix' own gradient and its
optimiser, but for the embedding's gradient, which is always made. Adapters add products of their own to that.
learn: `reformer train` from the starter, then with every matrix W of layers and head as W + 2 B A, W and the embedding
fixed. Gradients of A and B are made from W's, which is exact and saves nothing, so adapters are given --faster times
the minutes: what `speed` says they could save at most. Appends to results.csv.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record
import torch
from torch import Tensor, nn

import reformer_cli as rc
from reformer_cli.__main__ import main as reformer
from reformer_cli.config.schema import TrainConfig
from reformer_cli.training import trainer
from reformer_cli.training.optimizers import Optimizers, is_hidden_matrix, make_optimizers, prime
from reformer_cli.utils.devices import keep_freed_memory

SCALE = 2.0  # of B A


class Adapters(torch.optim.AdamW):
    """AdamW of A [rank, n] and B [m, rank] of each matrix [m, n], which is W + SCALE B A after each step."""

    def __init__(self, model: nn.Module, rank: int, config: TrainConfig) -> None:
        self.all = list(model.parameters())
        adapted = [(n, p) for n, p in model.named_parameters() if is_hidden_matrix(n, p) or n == "lm_head.weight"]
        self.adapted: list[tuple[nn.Parameter, Tensor, nn.Parameter, nn.Parameter]] = []
        for _, p in adapted:
            a = nn.Parameter(torch.randn(rank, p.shape[1]) / p.shape[1] ** 0.5)
            self.adapted.append((p, p.detach().clone(), a, nn.Parameter(torch.zeros(p.shape[0], rank))))
        vectors = [p for p in self.all if p.dim() < 2]
        ours = [x for _, _, a, b in self.adapted for x in (a, b)]
        self.numbers = sum(p.numel() for p in ours + vectors)
        super().__init__([*ours, *vectors], lr=config.learning_rate, betas=config.betas, weight_decay=0.0)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for p, _, a, b in self.adapted:
            if p.grad is not None:
                a.grad, b.grad = SCALE * b.T @ p.grad, SCALE * p.grad @ a.T
        super().step()
        for p, w, a, b in self.adapted:
            torch.addmm(w, b, a, alpha=SCALE, out=p.data)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for p in self.all:
            p.grad = None


def train_in_here(rank: int, arguments: list[str]) -> int:
    """`reformer train` with adapters in place of its optimiser."""

    def make(model: nn.Module, config: TrainConfig) -> Optimizers:
        adapters = Adapters(model, rank, config)
        print(f"rank {rank}: {adapters.numbers / 1e6:.2f} M numbers trained", file=sys.stderr)
        return [adapters]

    trainer.make_optimizers = make
    return reformer(arguments)


def learn(a: argparse.Namespace) -> None:
    found = []
    for minutes in a.minutes:
        cases: list[tuple[int, float | None]] = [(0, None), *((rank, rate) for rank in a.ranks for rate in a.rates)]
        for rank, rate in cases:
            with tempfile.TemporaryDirectory() as folder:
                line = ["train", a.text, "--validation", a.held_out, "--from", a.run, "--run", f"{folder}/run"]
                line += ["--minutes", minutes * (a.faster if rank else 1.0)]
                line += ["--set", f"learning_rate={rate}"] if rank else []
                ours = [sys.executable, "-m", "reformer_cli"] if not rank else [sys.executable, __file__, str(rank)]
                done = subprocess.run([*ours, *map(str, line)], capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr)
                said = [json.loads(x) for x in Path(f"{folder}/run/metrics.jsonl").read_text().splitlines()]
                steps = max(x.get("step", 0) for x in said)
                scored = [sys.executable, "-m", "reformer_cli", "evaluate", "perplexity", a.held_out, "--json"]
                out = subprocess.run([*scored, "--run", f"{folder}/run"], capture_output=True, text=True, check=True)
            bits = json.loads(out.stdout)["bits_per_byte"]
            system = f"LoRA {rank}, step size {rate:g}, {a.faster:g} x the minutes" if rank else "all trained"
            print(f"{a.text.name}, {minutes:g} minutes, {system}: {bits:.4f} bits/byte, {steps:,} steps", flush=True)
            case = f"{a.text.name}, {minutes:g} minutes"
            found += [(system, case, "held out", bits, "bits/byte"), (system, case, "trained", steps, "steps")]
    record.append("cpu", "adapters", found)


def speed(a: argparse.Namespace) -> None:
    keep_freed_memory()
    model = rc.load(a.run).model.train()
    tokens = torch.randint(model.config.vocab_size, (a.tokens // a.context, a.context + 1))

    def step(trained: bool, seed: int) -> float:
        for p in model.parameters():
            p.requires_grad_(trained or p.dim() < 2)
        optimizers = make_optimizers(model, TrainConfig())
        prime(optimizers)
        began = time.perf_counter()
        model.loss(tokens[:, :-1], tokens[:, 1:], dropout_seed=seed).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began

    step(True, 0), step(False, 0)
    both = [(step(True, n), step(False, n)) for n in range(a.rounds)]
    full, frozen = (statistics.median(times) for times in zip(*both, strict=True))
    ratio = statistics.median(x / y for x, y in both)
    print(f"all trained {full:.3f} s, matrices frozen {frozen:.3f} s: at most {ratio:.3f} x (a goal of LoRA: 1.3 x)")
    case = f"{a.run}, {a.tokens // a.context} x {a.context}"
    rows = [("all trained", case, "step", full, "s"), ("matrices frozen", case, "step", frozen, "s")]
    record.append("cpu", "adapters", [*rows, ("matrices frozen", case, "speed", ratio, "x")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    timed = commands.add_parser("speed")
    timed.add_argument("--tokens", type=int, default=2048, help="a step")
    timed.add_argument("--context", type=int, default=512)
    timed.add_argument("--rounds", type=int, default=7)
    learnt = commands.add_parser("learn")
    learnt.add_argument("text", type=Path)
    learnt.add_argument("--held-out", type=Path, required=True)
    learnt.add_argument("--minutes", type=float, nargs="+", default=[0.5, 5.0])
    learnt.add_argument("--ranks", type=int, nargs="*", default=[8, 32, 64])
    learnt.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-2])
    learnt.add_argument("--faster", type=float, default=1.38)
    for command in (timed, learnt):
        command.add_argument("--run", default="starter")
    a = parser.parse_args()
    learn(a) if a.command == "learn" else speed(a)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].isdigit():  # a training of `learn`, in a process of its own
        sys.exit(train_in_here(int(sys.argv[1]), sys.argv[2:]))
    main()
