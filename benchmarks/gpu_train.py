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

from reformer_cli.config.schema import TrainConfig
from reformer_cli.data.batches import Batch
from reformer_cli.training.distributed import World
from reformer_cli.training.gradients import Gradients, LoadedBatch
from reformer_cli.training.optimizers import capturable, make_optimizers, set_learning_rate
from reformer_cli.training.state import TrainState
from reformer_cli.training.step_graph import capture


def train(bench: Bench) -> Iterator[Row]:
    """Forward and backward of a GPT-2 small (benchmarks/cost.py), beside what that forecasts: ours as written and as a
    CUDA graph, and with full attention."""
    for shape in cost.SHAPES if bench.gpu else ["2x64"]:
        batch, context = cost.sizes_of(shape)
        for system, settings in (("reformer", {}), ("full attention", {"attn_layers": ("full",)})):
            work = partial(_train, bench, system, shape, settings)
            yield from bench.tried(system, shape, batch * context, 1, work)


def update(bench: Bench) -> Iterator[Row]:
    """A step as `reformer train` takes it, with Muon's update and the look at the loss, on a batch that is on the host:
    from graphs, and with the update started kernel by kernel."""
    for d_model, layers, vocab_size in (
        ((320, 7, 4096), (512, 8, 8192), (768, 12, 8192)) if bench.gpu else [(64, 2, 256)]
    ):
        for batch, context in ((32, 1024), (1, 32_768)) if bench.gpu else [(2, 64)]:
            case, tokens = f"{d_model} wide, {layers} layers, {batch}x{context}", batch * context
            heads = {"n_heads": d_model // 64} if bench.gpu else {"n_heads": 4, "d_head": 16}
            sizes = {"d_model": d_model, "n_layers": layers, "vocab_size": vocab_size} | heads
            yield from bench.tried("reformer", case, tokens, 1, partial(_update, bench, case, batch, context, sizes))


def _update(bench: Bench, case: str, batch: int, context: int, sizes: dict[str, int]) -> list[Row]:
    config, rows = TrainConfig(steps=1, precision="bfloat16", optimizer="muon"), []
    ids = torch.randint(sizes["vocab_size"], (batch, context + 1))
    read = LoadedBatch(Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), None), 3.0 * ids.numel(), ids.numel())
    for name, in_graph in (("update", True), ("update as written", False)):
        model = ReformerLM(ReformerConfig(**(cost.SIZES | sizes))).to(bench.device).train()
        gradients, optimizers = Gradients(model, config, World(0, 1, bench.device)), make_optimizers(model, config)
        progress = TrainState()

        def work(g: Any = gradients, o: Any = optimizers, p: Any = progress, in_graph: bool = in_graph) -> None:
            set_learning_rate(o, 1e-4)
            g.of(read, p)
            g.then(lambda: [one.step() for one in o], in_graph and capturable(o))

        for _ in range(5):  # captured at the fourth
            work()
        seconds = bench.seconds(work)
        rows += [
            ("reformer", case, name, seconds, "s"),
            ("reformer", case, f"{name}, speed", ids.numel() / seconds, "tokens/s"),
        ]
    return rows


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
