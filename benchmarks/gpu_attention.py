"""Attention alone on a GPU, as a layer's two kinds of heads take it in training (ops/fused_attention): parts of
benchmarks/gpu.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from typing import Any
from unittest import mock

import torch
from gpu_bench import Bench, Row
from reformer import ReformerConfig, ReformerLM
from reformer.attention.fused import FusedHeads
from reformer.ops.bucket_attention.triton_launch import Tiling
from reformer.ops.bucket_attention.windows import BucketWindows, make_bucket_windows
from reformer.ops.fused_attention import launch
from systems import SIZES, factors
from torch import Tensor

D_HEAD, HEADS = SIZES["d_head"], SIZES["n_heads"]
LOW = torch.bfloat16
KINDS = {  # name -> kind of attention, hash rounds
    "local": ("local", 1), "hash": ("lsh", 1), "hash 2": ("lsh", 2), "hash 3": ("lsh", 3)
}  # fmt: skip
Passes = dict[str, tuple[Callable[[], Any], list[Tensor]]]  # name -> the pass, and what it reads and writes once
# Places of a program, those it meets at a time, warps, stages: what launch.tiles_for chooses from. Of three rounds, as
# far and near ones are by default, and of local heads; the first of each is what it chooses forwards now.
TILINGS = {
    "hash 3": [
        (64, 16, 4, 2), (32, 16, 2, 2), (64, 16, 4, 3), *((64, t, 4, s) for t in (32, 64) for s in (1, 2, 3, 4)),
        (128, 32, 4, 3), (128, 32, 8, 2), (128, 64, 4, 2), (128, 64, 8, 2), (128, 64, 8, 3), (64, 64, 8, 3),
        *((32, t, 2, s) for t in (32, 64) for s in (2, 3)), (32, 16, 2, 3), (32, 32, 1, 2), (32, 32, 4, 3),
        (64, 32, 2, 2), (64, 32, 2, 3), (64, 128, 4, 2), (64, 128, 8, 2),
    ],
    "local": [
        (64, 32, 4, 4), *((64, 64, 4, s) for s in (1, 2, 3, 4)), (64, 32, 4, 3), (128, 32, 4, 3), (128, 64, 4, 2),
        (128, 64, 4, 3), *((128, 64, 8, s) for s in (1, 2, 3)), (128, 128, 8, 2), (128, 128, 8, 3), (128, 128, 4, 2),
        (64, 128, 4, 2), (64, 128, 4, 3), (64, 128, 8, 2),
    ],
}  # fmt: skip
WINDOWS = {"hash 3": 64, "local": 128}  # the default ones
SIX_HEADS = {"d_model": 768, "n_heads": 6}
COMPILERS = 12  # processes


def kernel(bench: Bench) -> Iterator[Row]:
    """Attention alone on two heads: time, and the share of what its bytes, moved once at copy speed, would take."""
    if not bench.gpu:
        print("  attention: these kernels are Triton's, which does not run here", flush=True)
    for length in bench.lengths:
        for kind in KINDS if bench.gpu else ():
            for window in bench.windows:
                case = f"{kind}, {length} tokens, window {window}"
                yield from bench.tried("reformer", case, length, 1, partial(_alone, bench, kind, length, window))
        window = bench.windows[0]
        case = f"hash, {length} tokens, window {window}"
        yield from bench.tried("FlexAttention", case, length, 1, partial(_flex, bench, length, window))


def _copied(bench: Bench) -> float:
    """Bytes a second that are read and written in a copy."""
    a = torch.empty(2**30, dtype=torch.uint8, device=bench.device)
    b = torch.empty_like(a)
    return 2 * len(a) / bench.seconds(lambda: b.copy_(a))


def passes(kind: str, length: int, window: int, device: str, **changes: int) -> Passes:
    """Both passes of the heads of a layer on one text, in bfloat16. changes: of the novel's sizes."""
    name, rounds = KINDS[kind]
    settings = changes | {"local_window": window, "lsh_window": window, "n_buckets": factors(length), "far_buckets": 0}
    config = ReformerConfig(**(SIZES | settings | {"n_layers": 1, "n_hashes": rounds, "attn_layers": (name,)}))
    model = ReformerLM(config).to(device).train()
    module = model.layers[0][0]
    fused = FusedHeads.of(config, [module])
    assert fused is not None
    context = model.new_pass(torch.zeros(1, length, dtype=torch.int64, device=device)).context
    y = torch.randn(length, config.d_model, device=device).to(LOW)
    with torch.no_grad():
        kept = fused.forward(y, context, 1)[1]
    order, out, (local, hashed) = kept.order, kept.out, kept.lses
    d_out, d_raw = torch.randn_like(out), torch.empty_like(kept.vectors.raw)
    delta = torch.randn(length, config.n_heads, device=device)
    small = fused.small()
    index = [order.order, order.reach] if order is not None else []
    parts = [kept.vectors.keys] if order is not None else [out, out]  # as large as queries and keys
    lse = hashed if order is not None else local
    return {
        "forward": (
            lambda: launch.attend(kept.vectors, order, fused.heads, small, None, window, 1),
            [*parts, out, out, lse, *index],
        ),
        "backward": (
            lambda: launch.attend_back(
                kept.vectors, order, fused.heads, None, window, 1, d_out, kept.lses, delta, d_raw
            ),
            [*parts, out, d_out, lse, delta, *parts, out, *index],
        ),
    }


def _alone(bench: Bench, kind: str, length: int, window: int) -> list[Row]:
    rows: list[Row] = []
    copied, case = _copied(bench), f"{kind}, {length} tokens, window {window}"
    for name, (work, moved) in passes(kind, length, window, bench.device).items():
        seconds = bench.seconds(work)
        rows.append(("reformer", case, name, seconds, "s"))
        share = sum(x.nbytes for x in moved) / copied / seconds
        rows.append(("reformer", case, f"{name}, share of memory bound", share, ""))
    return rows


def tilings(bench: Bench) -> Iterator[Row]:
    """Every tiling of TILINGS, of six heads: what the rule in ops/fused_attention/launch.py should say. All of them are
    compiled beside each other before one is timed."""
    if not bench.gpu:
        print("  tilings: these are Triton's, which does not run here", flush=True)
        return
    length, context = bench.lengths[0], get_context("spawn")
    with context.Pool(COMPILERS) as pool:
        pool.starmap(_compile, [(length, bench.device, n) for n in range(COMPILERS)])
    for kind, sizes in TILINGS.items():
        works = passes(kind, length, WINDOWS[kind], bench.device, **SIX_HEADS)
        for n in sizes:
            case = f"{n[0]} x {n[1]}, {n[2]} warps, {n[3]} stages, {kind}, {length} tokens, window {WINDOWS[kind]}"
            for name, (work, _) in works.items():

                def measured(n: Any = n, name: str = name, work: Any = work, case: str = case) -> list[Row]:
                    with mock.patch.object(launch, "tiles_for", return_value=Tiling(*n)):
                        return [("reformer", case, name, bench.seconds(work), "s")]

                yield from bench.tried("tilings", case, length, 1, measured)


def _compile(length: int, device: str, part: int) -> None:
    """Into Triton's cache on disk, one of COMPILERS parts of all tilings. What one of them lacks (registers, shared
    memory) is told when it is timed."""
    cases = [(kind, Tiling(*n)) for kind, sizes in TILINGS.items() for n in sizes][part::COMPILERS]
    for kind in dict.fromkeys(kind for kind, _ in cases):
        works = passes(kind, length, WINDOWS[kind], device, **SIX_HEADS)
        for tiling in (t for name, t in cases if name == kind):
            for work, _ in works.values():
                with suppress(Exception), mock.patch.object(launch, "tiles_for", return_value=tiling):
                    work()


def _rows(length: int, device: str) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shape = (length * HEADS, D_HEAD)
    return [(torch.randn(shape, generator=draw) * D_HEAD**-0.25).to(device, LOW) for _ in range(3)]


def _layout(length: int, window: int, device: str) -> BucketWindows:
    """One hash round, about 64 positions a bucket, evenly filled."""
    draw = torch.Generator().manual_seed(1)
    buckets = torch.randint(max(1, length // 64), (1, 1, HEADS, length), generator=draw).to(torch.int16)
    return make_bucket_windows(buckets.to(device), [window], block=64, itself=False)


def flex(layout: BucketWindows, device: str) -> tuple[Callable[[], Any], Callable[[Tensor, Tensor, Any], Tensor]]:
    """One hash round in FlexAttention: (what makes its block mask, what attends with flat keys, values and that mask).

    Rows are permuted into sorted order before and back after; blocks of 128 meet themselves and as many before as the
    window reaches, masked by place and reach."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    (now,) = layout.rounds
    order, reach, total, block = now.order, now.reach, len(now.order), 128
    n, back = -(-total // block), -(-(now.window - 1) // block)

    def seen(_b: Tensor, _h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (j < i) & (j > i - reach[i])

    def mask() -> Any:
        here = torch.arange(n, device=device, dtype=torch.int32)
        met = min(back + 1, n)
        columns = torch.zeros(1, 1, n, n, dtype=torch.int32, device=device)
        columns[0, 0, :, :met] = (here[:, None] - here[:met]).clamp_min_(0)
        counts = (here + 1).clamp_max_(met).view(1, 1, n)
        sizes = {"BLOCK_SIZE": block, "seq_lengths": (total, total)}
        return BlockMask.from_kv_blocks(counts, columns, mask_mod=seen, **sizes)

    attention = torch.compile(flex_attention) if device != "cpu" else flex_attention
    read = (order + HEADS).clamp_max(total - 1)

    def attend(k: Tensor, v: Tensor, blocks: Any) -> Tensor:
        keys, values = k.index_select(0, order)[None, None], v.index_select(0, read)[None, None]
        out = attention(keys, keys, values, block_mask=blocks, scale=1.0)
        return torch.empty_like(v).index_copy(0, order, out[0, 0])

    return mask, attend


def _flex(bench: Bench, length: int, window: int) -> list[Row]:
    """The block mask is timed by itself: the pattern is the content's, so it is made anew for every layer and step."""
    mask, attend = flex(_layout(length, window, bench.device), bench.device)
    k, v, upper = _rows(length, bench.device)
    blocks, case = mask(), f"hash, {length} tokens, window {window}"
    with torch.no_grad():
        forward = bench.seconds(lambda: attend(k, v, blocks))
    rows: list[Row] = [
        ("FlexAttention", case, "forward", forward, "s"),
        ("FlexAttention", case, "block mask", bench.seconds(mask), "s"),
    ]
    if bench.gpu:  # it has no backward on a CPU
        leaves = [k.requires_grad_(), v.requires_grad_()]
        both = bench.seconds(lambda: torch.autograd.grad(attend(*leaves, blocks), leaves, upper))
        rows.append(("FlexAttention", case, "backward", both - forward, "s"))
    return rows
