"""What benchmarks/gpu.py measures: each part yields rows (system, case, measure, value, unit) as it finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from gpu_bench import Bench, Row, autocast_of, timed
from gpu_train import train
from reformer.backends.dispatch import choose
from reformer.ops.bucket_attention import pytorch
from reformer.ops.bucket_attention.layout import row_products
from reformer.ops.bucket_attention.windows import BucketWindows, make_bucket_windows, make_window
from reformer.reversible.autograd import reversible
from systems import SIZES, SYSTEMS, tokens
from torch import Tensor

D_HEAD, HEADS = SIZES["d_head"], SIZES["n_heads"]
LOW = torch.bfloat16


def machine(bench: Bench) -> Iterator[Row]:
    """What the GPU can do: bytes copied (read and written) and products, with the libraries' own kernels."""
    n = 2**30 if bench.gpu else 2**20
    a = torch.empty(n, dtype=torch.uint8, device=bench.device)
    b = torch.empty_like(a)
    yield "machine", f"{n} bytes", "copy", 2 * n / bench.seconds(lambda: b.copy_(a)), "bytes/s"
    size = 8192 if bench.gpu else 128
    for dtype in (torch.bfloat16, torch.float32):
        x, y = (torch.randn(size, size, device=bench.device).to(dtype) for _ in range(2))
        name = str(dtype).removeprefix("torch.")
        yield "machine", f"{name} {size}", "products", 2 * size**3 / bench.seconds(lambda x=x, y=y: x @ y), "FLOP/s"


def _rows(length: int, device: str) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shape = (length * HEADS, D_HEAD)
    return [(torch.randn(shape, generator=draw) * D_HEAD**-0.25).to(device, LOW) for _ in range(3)]


def _layout(kind: str, length: int, window: int, device: str) -> BucketWindows:
    """Local: one bucket; hash: about 64 positions a bucket, evenly filled; hash 2: the union of two such rounds."""
    if kind == "local":
        return make_window(1, HEADS, length, window, torch.device(device), block=64, itself=True)
    rounds = 2 if kind == "hash 2" else 1
    draw = torch.Generator().manual_seed(1)
    buckets = torch.randint(max(1, length // 64), (rounds, 1, HEADS, length), generator=draw).to(torch.int16)
    return make_bucket_windows(buckets.to(device), [window] * rounds, block=64, itself=False)


def kernel(bench: Bench) -> Iterator[Row]:
    """Attention alone on two heads: time, and the share of what its bytes, moved once at copy speed, would take."""
    copied = next(machine(bench))[3]
    for length in bench.lengths:
        for kind in ("local", "hash", "hash 2"):
            for window in bench.windows:
                case = f"{kind}, {length} tokens, window {window}"
                work = partial(_alone, bench, kind, length, window, copied)
                yield from bench.tried("reformer", case, length, 1, work)
        window = bench.windows[0]
        yield from bench.tried("sorting", f"{length} tokens", length, 1, partial(_sorting, bench, length, window))
        case = f"hash, {length} tokens, window {window}"
        yield from bench.tried("FlexAttention", case, length, 1, partial(_flex, bench, length, window))


def _alone(bench: Bench, kind: str, length: int, window: int, copied: float) -> list[Row]:
    passes, case = _passes(bench), f"{kind}, {length} tokens, window {window}"
    k, v, g = _rows(length, bench.device)
    layout, shift = _layout(kind, length, window, bench.device), 0 if kind == "local" else HEADS
    out, lse = passes.forward_pass(k, k, v, layout, shift)
    delta = row_products(out, g)
    index = [x for r in layout.rounds for x in (r.order, r.reach)]

    def back() -> None:
        passes.backward_pass(k, k, v, lse, delta, g, layout, shift, once=False)

    rows: list[Row] = []
    for name, work, moved in (
        ("forward", lambda: passes.forward_pass(k, k, v, layout, shift), [k, v, out, lse]),
        ("backward", back, [k, v, g, lse, delta, k, v]),
    ):
        seconds, least = bench.seconds(work), sum(x.nbytes for x in [*moved, *index])
        rows.append(("reformer", case, name, seconds, "s"))
        rows.append(("reformer", case, f"{name}, share of memory bound", least / copied / seconds, ""))
    return rows


def _passes(bench: Bench) -> Any:
    if choose("auto", torch.empty(1, device=bench.device)) == "triton":
        from reformer.ops.bucket_attention import triton_launch

        return triton_launch
    return pytorch


def _sorting(bench: Bench, length: int, window: int) -> list[Row]:
    buckets = torch.randint(max(1, length // 64), (1, 1, HEADS, length), device=bench.device).to(torch.int16)
    seconds = bench.seconds(lambda: make_bucket_windows(buckets, [window], block=64, itself=False))
    return [("reformer", f"hash, {length} tokens, window {window}", "sort", seconds, "s")]


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
    mask, attend = flex(_layout("hash", length, window, bench.device), bench.device)
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


def tilings(bench: Bench) -> Iterator[Row]:
    """Every tiling of triton_launch.TILINGS on one hash round: what the rule in triton_launch.tiling should say."""
    passes = _passes(bench)
    if passes is pytorch:
        print("  tilings: these are Triton's, which does not run here", flush=True)
        return
    length = bench.lengths[min(1, len(bench.lengths) - 1)]
    k, v, g = _rows(length, bench.device)
    for window in bench.windows:
        layout = _layout("hash", length, window, bench.device)
        out, lse = passes.forward_pass(k, k, v, layout, HEADS)
        delta = row_products(out, g)
        for name, t in passes.TILINGS.items():
            case = f"{name}, hash, {length} tokens, window {window}"

            def measured(t=t, layout=layout, lse=lse, delta=delta, case=case) -> list[Row]:
                one = bench.seconds(lambda: passes.forward_pass(k, k, v, layout, HEADS, t))
                how = {"once": False, "tiles": t}
                two = bench.seconds(lambda: passes.backward_pass(k, k, v, lse, delta, g, layout, HEADS, **how))
                return [("reformer", case, "forward", one, "s"), ("reformer", case, "backward", two, "s")]

            yield from bench.tried("tilings", case, length, 1, measured)


def layer(bench: Bench) -> Iterator[Row]:
    """One layer of the novel model, forward and backward, without head and loss: ours and full attention."""
    for length in bench.lengths:
        for system in ("reformer", "full attention"):

            def measured(system=system, length=length) -> list[Row]:
                model = SYSTEMS[system](length, bench.device, 1)[0]
                text = tokens(length, bench.device)[:, :length]
                upper = torch.randn(1, length, SIZES["d_model"], device=bench.device)

                def work() -> None:
                    with autocast_of(bench):
                        h = reversible(model.new_pass(text), model.embedding_weight())
                    h.backward(upper)

                return timed(bench, system, f"{length} tokens", length, work)

            power = 2 if system == "full attention" else 1
            yield from bench.tried(system, f"{length} tokens", length, power, measured)


def step(bench: Bench) -> Iterator[Row]:
    """A training step (forward and backward) of the novel model and of the peers at its sizes."""
    for length in bench.lengths:
        for system in SYSTEMS:

            def measured(system=system, length=length) -> list[Row]:
                model, loss_of = SYSTEMS[system](length, bench.device)
                batch = tokens(length, bench.device)

                def work() -> None:
                    with autocast_of(bench):
                        loss = loss_of(batch)
                    loss.backward()
                    model.zero_grad(set_to_none=True)

                return timed(bench, system, f"{length} tokens", length, work)

            power = 2 if system == "full attention" else 1
            yield from bench.tried(system, f"{length} tokens", length, power, measured)


def decode(bench: Bench) -> Iterator[Row]:
    """One more token after a context: ours, and the same model with full attention."""
    for length in bench.lengths:
        for system in ("reformer", "full attention"):

            def measured(system=system, length=length) -> list[Row]:
                model = SYSTEMS[system](length, bench.device)[0].eval()
                prompt, state = tokens(length, bench.device)[:, :length], None
                for part in prompt.split(4096, 1):
                    _, state = model.extend(part, state, last_only=True)
                one = prompt[:, :1].contiguous()
                seconds = bench.seconds(lambda: model.extend(one, state))
                return [(system, f"after {length} tokens", "token", seconds, "s")]

            power = 2 if system == "full attention" else 1
            yield from bench.tried(system, f"after {length} tokens", length, power, measured)


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "machine": machine, "train": train, "step": step, "decode": decode, "kernel": kernel, "layer": layer,
    "tilings": tilings,
}  # fmt: skip
# (part, system, length): what is wanted most comes first and peers last; each is a process of its own.
CASES: list[tuple[str, str, int]] = [
    ("machine", "", 0), ("train", "reformer", 0), ("step", "reformer", 65_536), ("step", "reformer", 524_288),
    ("decode", "reformer", 4_096), ("kernel", "reformer", 1_048_576), ("step", "reformer", 1_048_576),
    ("train", "full attention", 0), ("step", "full attention", 65_536), ("step", "reformer", 4_096),
    ("step", "full attention", 524_288), ("kernel", "", 65_536), ("layer", "", 65_536), ("tilings", "", 65_536),
    ("decode", "full attention", 4_096), ("step", "transformers", 65_536), ("step", "reformer-pytorch", 65_536),
    ("step", "transformers", 4_096), ("step", "reformer-pytorch", 524_288),
]  # fmt: skip
