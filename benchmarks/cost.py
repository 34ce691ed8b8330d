"""What a training step and a decoded token ask of a GPU, told without one: kernels, bytes, products, waits; a forecast.

    python benchmarks/cost.py [--shapes 32x1024 2x32768] [--set n_hashes=1 ...] [--novel] [--kernels] [--json]

The model runs on `meta` tensors, which have shapes alone, and its Triton kernels are recorded instead of launched. A
forecast, no measurement: a kernel takes the longest of its bytes at the speed of memory, its products at that of tensor
cores, and LEAST; a host that starts kernels one by one takes HOST for each, which a step replayed as a CUDA graph does
not. Checked against one H200 (torch 2.11): of commit a694d5e, where HOST was the limit, 60,460 and 139,332 tokens/s
were measured at 32x1024 and 2x32768, and 51,000 and 139,132 forecast; of 32a4c8a, replayed, 731,963 and 702,606,
forecast 696,410 and 691,514. A decoded token's kernels take three times LEAST: 0.19 ms for the novel's, forecast 0.06.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import torch
from cost_tally import HOST, Tally, pretended

SIZES: dict[str, Any] = {  # a GPT-2 small, as the measured rows had it
    "vocab_size": 8192, "d_model": 768, "n_layers": 12, "n_heads": 12, "d_head": 64, "local_window": 128,
    "chunk_tokens": 65_536,
}  # fmt: skip
SHAPES = ["32x1024", "2x32768"]
NOVEL: dict[str, Any] = {  # the published novel's sizes with one hash round, as benchmarks/systems.py has them
    "vocab_size": 320, "d_model": 256, "n_layers": 6, "n_heads": 2, "d_head": 64, "d_ff": 512, "n_hashes": 1,
    "far_buckets": 0, "local_window": 64, "chunk_tokens": 65_536,
}  # fmt: skip
NOVELS = ["1x65536", "1x524288"]
PROMPTS = ["1x4096", "64x4096"]  # no graph replays them


def step(batch: int, context: int, **settings: Any) -> Tally:
    """Forward and backward of a model of these sizes."""
    from reformer import ReformerConfig, ReformerLM

    with torch.device("meta"):
        model = ReformerLM(ReformerConfig(**(SIZES | settings))).train()
        tokens = torch.empty(batch, context, dtype=torch.int64)
    tally = Tally()
    with pretended(tally):
        with torch.autocast("meta", torch.bfloat16):
            loss = model.loss(tokens, tokens, checks=[])
        loss.backward()
    return tally


def token(batch: int, **settings: Any) -> Tally:
    """One more token of each of so many rows, as its CUDA graph is captured; caches have their full size."""
    from reformer import ReformerConfig, ReformerLM
    from reformer.inference import new_state, one_token

    with torch.device("meta"):
        model = ReformerLM(ReformerConfig(**(SIZES | settings))).eval()
        tokens = torch.empty(batch, 1, dtype=torch.int64)
    tally, nobody = Tally(), Tally()
    with torch.no_grad():
        with pretended(nobody):
            decode = one_token(model, new_state(model, batch))
            decode(tokens)  # tables of angles are made once
        with pretended(tally):
            decode(tokens)
    return tally


def prompt(batch: int, length: int, **settings: Any) -> Tally:
    """The first tokens of so many texts, as they are read before others are generated."""
    from reformer import ReformerConfig, ReformerLM

    with torch.device("meta"):
        model = ReformerLM(ReformerConfig(**(SIZES | settings))).eval()
        tokens = torch.empty(batch, length, dtype=torch.int64)
    tally = Tally()
    with pretended(tally), torch.autocast("meta", torch.bfloat16):
        model.extend(tokens, last_only=True)
    return tally


def speed(tally: Tally, tokens: int, graph: bool) -> float:
    """Forecast of tokens/s. graph: the step is replayed and no host starts kernels one by one."""
    total = tally.total
    return tokens / max(total.seconds, 0.0 if graph else total.launches * HOST)


def sizes_of(shape: str) -> tuple[int, int]:
    """32x1024 -> (batch, context)."""
    batch, _, context = shape.partition("x")
    return int(batch), int(context)


def figures(shapes: list[str], graph: bool = True, **settings: Any) -> dict[str, Any]:
    """Of a step: the worst of all shapes, and tokens/s of each."""
    layers = (SIZES | settings)["n_layers"]
    tallies = {shape: (step(*sizes_of(shape), **settings), math.prod(sizes_of(shape))) for shape in shapes}
    return {
        "launches_per_layer": max(round(tally.total.launches / layers, 1) for tally, _ in tallies.values()),
        "bytes_per_token_layer": max(round(tally.total.bytes / layers / n) for tally, n in tallies.values()),
        "host_waits": max(len(tally.waits) for tally, _ in tallies.values()),
        "tokens_per_second": {shape: round(speed(tally, n, graph)) for shape, (tally, n) in tallies.items()},
    }


def others(graph: bool = True, **settings: Any) -> dict[str, Any]:
    """Of the novel's sizes, and of a decoded token."""
    one, novel = token(1, **settings), {shape: step(*sizes_of(shape), **(settings | NOVEL)) for shape in NOVELS}
    return {
        "novel": {shape: round(speed(tally, math.prod(sizes_of(shape)), graph)) for shape, tally in novel.items()},
        "prompt": {
            shape: round(speed(prompt(*sizes_of(shape), **(settings | NOVEL)), math.prod(sizes_of(shape)), False))
            for shape in PROMPTS
        },
        "decode": {"launches": one.total.launches, "seconds": one.total.seconds, "waits": len(one.waits)},
    }


def show(shape: str, graph: bool, parts: bool, **settings: Any) -> None:
    """A step of one shape, by part."""
    tally, layers, tokens = (
        step(*sizes_of(shape), **settings),
        (SIZES | settings)["n_layers"],
        math.prod(sizes_of(shape)),
    )
    total = tally.total
    print(
        f"{shape}: {total.launches:,} kernels ({total.launches / layers:,.0f} a layer), {len(tally.waits)} waits, "
        f"{total.bytes / tokens / layers / 1e3:.1f} kB a token and layer, {total.products / 1e12:.1f} TFLOP; forecast "
        f"{total.seconds * 1e3:.1f} ms of the device, {speed(tally, tokens, graph):,.0f} tokens/s"
    )
    for name, cost in sorted((tally.kernels if parts else tally.parts).items(), key=lambda one: -one[1].seconds):
        print(
            f"  {name:<32} {cost.launches:>7,} {cost.bytes / tokens / layers / 1e3:>8.2f} kB "
            f"{cost.products / 1e12:>7.2f} TFLOP {cost.seconds * 1e3:>8.2f} ms"
        )
    for wait in tally.waits:
        print(f"  waits: {wait}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="batch x context")
    parser.add_argument("--set", nargs="+", default=[], help="settings of the model, name=value")
    parser.add_argument("--novel", action="store_true", help="the novel's sizes")
    parser.add_argument("--kernels", action="store_true", help="by kernel and not by part")
    parser.add_argument("--eager", action="store_true", help="started kernel by kernel, not replayed as a CUDA graph")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    import yaml

    settings = (NOVEL if a.novel else {}) | {k: yaml.safe_load(v) for k, _, v in (s.partition("=") for s in a.set)}
    if a.json:
        print(json.dumps(figures(a.shapes, not a.eager, **settings) | others(not a.eager, **settings), indent=1))
        return
    for shape in a.shapes:
        show(shape, not a.eager, a.kernels, **settings)


if __name__ == "__main__":
    main()
