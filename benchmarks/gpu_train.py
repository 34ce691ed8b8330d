"""A training step on a GPU beside its forecast by benchmarks/cost.py, as written and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cost
import torch
from gpu_bench import Bench, Row, autocast_of, timed
from reformer import ReformerConfig, ReformerLM
from torch import Tensor

from reformer_cli.training.step_graph import capture


def train(bench: Bench) -> Iterator[Row]:
    """Forward and backward of a GPT-2 small (benchmarks/cost.py), beside what that forecasts: ours as written and as a
    CUDA graph, and with full attention."""
    for shape in cost.SHAPES if bench.gpu else ["2x64"]:
        batch, context = cost.sizes_of(shape)
        for system, settings in (("reformer", {}), ("full attention", {"attn_layers": ("full",)})):
            work = partial(_train, bench, system, shape, settings)
            yield from bench.tried(system, shape, batch * context, 1, work)


def _train(bench: Bench, system: str, shape: str, settings: dict[str, Any]) -> list[Row]:
    tiny = {} if bench.gpu else {"n_layers": 2, "d_model": 64, "n_heads": 4, "d_head": 16}
    model = ReformerLM(ReformerConfig(**(cost.SIZES | settings | tiny))).to(bench.device).train()
    batch, context = cost.sizes_of(shape)
    ids = torch.randint(model.config.vocab_size, (batch, context), device=bench.device)

    def work() -> Tensor:
        model.zero_grad(set_to_none=True)
        checks: list[Any] = []
        with autocast_of(bench):
            loss = model.loss(ids, ids.roll(-1, 1), checks=checks)
        loss.backward()
        return loss.detach()

    rows = timed(bench, system, shape, batch * context, work)
    if system == "reformer":
        forecast = cost.speed(cost.step(batch, context, **settings), batch * context, False) if bench.gpu else 1.0
        rows.append((system, shape, "forecast", forecast, "tokens/s"))
    return rows + (graphed(bench, shape, batch * context, work) if system == "reformer" else [])


def graphed(bench: Bench, case: str, tokens: int, work: Callable[[], Any]) -> list[Row]:
    """The same as a CUDA graph, which is how `reformer train` does it."""
    if not bench.gpu:
        return []
    torch.cuda.empty_cache()
    seconds = bench.seconds(capture(work)[1])
    return [("reformer", f"{case}, graph", "speed", tokens / seconds, "tokens/s")]
