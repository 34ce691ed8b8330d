"""The most that adapters (LoRA) could save of a training step: all matrices frozen against all trained.

    python benchmarks/adapters.py [--run starter] [--tokens 2048] [--context 512] [--rounds 7]

A frozen step still runs forward, rebuilds the streams and gives the gradient of what each matrix read; it leaves out
each matrix' own gradient and its optimiser, but for the embedding's gradient, which is always made. Adapters add
products of their own to that. Both steps in turn, the median of the rounds. Appends to results.csv.
"""

from __future__ import annotations

import argparse
import statistics
import time

import record
import torch

import reformer_cli as rc
from reformer_cli.config.schema import TrainConfig
from reformer_cli.training.optimizers import make_optimizers, prime
from reformer_cli.utils.devices import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="starter")
    parser.add_argument("--tokens", type=int, default=2048, help="a step")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    a = parser.parse_args()
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


if __name__ == "__main__":
    main()
