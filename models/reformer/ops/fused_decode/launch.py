"""Launches the kernels beside it. n: rows of a batch, each with one more token; streams: int32 [n, d_model], counting
in 2^-bits; weights in any of Triton's types, all else float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from reformer.backends.gpu import on
from reformer.ops.fused_decode import triton_kernels as kernels
from reformer.ops.fused_decode import triton_products as products
from reformer.ops.fused_rows.launch import RANGE_LIMIT, Heads, Small
from reformer.ops.lsh_hash.triton_kernels import COOLEST
from reformer.ops.norm_rope_relu.pytorch import TINY

EPS = torch.finfo(torch.float32).eps
ONE_BY_ONE = 4  # rows, up to which each has programs of its own; of more, tensor cores take ROWS at a time
ROWS, MANY = 16, 64  # and twice as many of more than MANY
MOST_COLUMNS = 16  # of a product that a program makes of one row
NUMBERS = 8192  # of a cache, that a head reads at a time
WARPS = 8  # of a head
MOST_ROUNDS, MOST_ENTRIES = 16, 8192  # hash rounds; keys of a head, which one program goes through


@dataclass(frozen=True)
class Lines:
    """Line positions: the weight, and of each token how many characters it adds and whether a line ends there; line:
    int64 [n], characters of the lines so far, which move on; unknown: below which count they are not known; longest:
    characters of a token."""

    weight: Tensor
    characters: Tensor
    ends: Tensor
    line: Tensor
    unknown: int
    longest: int


@dataclass(frozen=True)
class Window:
    """Rings [n, heads, window, d] of local heads, as WindowCache has them."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Rings:
    """Of LSH heads, as BucketCache has them; the hash: rotations [heads, d, rounds, width], mean [heads, d], factors;
    near: buckets of the rounds after a far first one, 0 where there is none."""

    pairs: Tensor
    times: Tensor
    ids: Tensor
    counts: Tensor
    last: Tensor
    inputs: Tensor
    sizes: tuple[int, ...]
    capacity: int
    rotations: Tensor
    hash_mean: Tensor
    factors: tuple[int, ...]
    near: int


def begin(
    tokens: Tensor, embedding: Tensor, lines: Lines | None, seen: Tensor, speeds: Tensor | None, bits: int, bad: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(both streams; the rotary phase float32 [n, d / 2, 2] by speeds float64 [d / 2], if there are any) of tokens
    int64 [n], those beyond the embedding [vocab_size, d_model] taken for its ends."""
    n, (vocab_size, d) = len(tokens), embedding.shape
    first, second = (torch.empty(n, d, dtype=torch.int32, device=tokens.device) for _ in range(2))
    half = len(speeds) if speeds is not None else 0
    phase = torch.empty(n, half, 2, dtype=torch.float32, device=tokens.device) if half else None
    some = lines or Lines(embedding, embedding, embedding, seen, 0, 0)
    with on(tokens):
        kernels._begin[(n,)](
            tokens, embedding, some.weight, some.characters, some.ends, some.line, seen,
            seen if speeds is None else speeds, first, second, first if phase is None else phase, bad, EPS, 2.0**bits,
            RANGE_LIMIT, len(some.weight) - 2, some.unknown, float(some.longest), vocab_size, D=d,
            BLOCK_D=triton.next_power_of_2(d), HALF=half, BLOCK_HALF=triton.next_power_of_2(max(half, 1)),
            LINES=lines is not None, TURNED=half > 0,
        )  # fmt: skip
    return first, second, phase


def to_heads(stream: Tensor, weights: Sequence[Tensor], bits: int) -> Tensor:
    """Up to four matrices [.., d_model], one below the other, times a stream's norm: [n, all their rows]."""
    n, d = stream.shape
    sizes = [len(w) for w in weights] + [0] * (4 - len(weights))
    raw = torch.empty(n, sum(sizes), dtype=torch.float32, device=stream.device)
    fixed, grid = tiles(n, d, sizes)
    with on(stream):
        products._to_heads[grid](
            stream, *weights, *[weights[0]] * (4 - len(weights)), raw, n, 2.0**-bits, EPS, raw.shape[1], K=d,
            **{f"N{i}": size for i, size in enumerate(sizes)}, **fixed,
        )  # fmt: skip
    return raw


def attend_new(
    raw: Tensor, heads: Heads, small: Small, window: Window | None, rings: Rings | None, phase: Tensor | None,
    seen: Tensor,
) -> Tensor:  # fmt: skip
    """What `to_heads` gives of a layer's projections and gates -> what its heads read, gated, [n, all heads * d]; the
    caches take the tokens in."""
    n, d = len(raw), heads.d
    out = torch.empty(n, heads.all * d, dtype=torch.float32, device=raw.device)
    w = window or Window(raw, raw)
    r = rings or Rings(raw, seen, seen, seen, seen, raw, (1,), 1, raw, raw, (2,), 0)
    size, rounds = (w.keys.shape[2] if window is not None else 1), len(r.sizes)
    padded = triton.next_power_of_2(rounds)
    longest = max(size, rounds * r.capacity)
    columns = min(triton.next_power_of_2(max(r.factors) // 2), max(1, NUMBERS // (d * padded)))
    with on(raw):
        kernels._attend_new[(n, heads.all)](
            raw, out, seen, small.local, w.keys, w.values, raw if phase is None else phase, small.lsh, small.conv,
            small.sink, r.rotations, r.hash_mean, r.inputs, r.pairs, r.times, r.ids, r.counts, r.last, raw.shape[1],
            r.times.shape[-1], r.counts.shape[-1], r.sizes[0], r.sizes[-1], sum(r.factors) // 2, r.near, TINY,
            D=d, LOCAL=heads.local, LSH=heads.lsh, WINDOW=size, TURNED=phase is not None, TAPS=heads.taps,
            T=triton.next_power_of_2(heads.taps), TILE=min(NUMBERS // d, max(16, triton.next_power_of_2(longest))),
            CAPACITY=r.capacity, ROUNDS=rounds, R=padded, COLUMNS=columns, FACTORS=r.factors,
            N_FACTORS=len(r.factors), COOLEST=COOLEST, num_warps=WARPS, num_stages=1,
        )  # fmt: skip
    return out


def widen(stream: Tensor, weight: Tensor, bits: int) -> Tensor:
    """relu(weight x)^2 of a stream's norm x: [n, d_ff]."""
    (n, d), size = stream.shape, len(weight)
    h = torch.empty(n, size, dtype=torch.float32, device=stream.device)
    fixed, grid = tiles(n, d, [size])
    with on(stream):
        products._widen[grid](stream, weight, h, n, 2.0**-bits, EPS, K=d, N=size, **fixed)
    return h


def onto_stream(x: Tensor, weights: Sequence[Tensor], stream: Tensor, bits: int, bad: Tensor) -> None:
    """stream += x times one or two matrices side by side, rounded; bad [0] becomes 1 where that leaves RANGE_LIMIT."""
    (n, d), widths = stream.shape, [w.shape[1] for w in weights]
    fixed, grid = tiles(n, max(widths), [d])
    with on(stream):
        products._onto_stream[grid](
            x, weights[0], weights[-1], stream, bad, n, 2.0**bits, RANGE_LIMIT, K0=widths[0],
            K1=widths[1] if len(widths) > 1 else 0, N=d, **fixed,
        )  # fmt: skip


def logits(
    first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None, softcap: float, bits: int, seen: Tensor,
    flags: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(logits [n, vocab_size] in the weight's type; bool [m], whether flags [m, 4] begin with 0, as all do afterwards).
    seen grows by one."""
    (n, d), size, f = first.shape, len(weight), len(flags)
    found, fits = weight.new_empty(n, size), torch.empty(f, dtype=torch.bool, device=flags.device)
    fixed, grid = tiles(n, d, [size])
    with on(first):
        products._logits[grid](
            first, second, weight, weight if bias is None else bias, found, seen, flags, fits, n, 2.0**-bits, EPS,
            softcap, K=d, N=size, BIASED=bias is not None, CAPPED=softcap > 0, FLAGS=f,
            BLOCK_FLAGS=triton.next_power_of_2(f), **fixed,
        )  # fmt: skip
    return found, fits


def tiles(n: int, k: int, sizes: Sequence[int]) -> tuple[dict[str, int], tuple[int, int]]:
    """(sizes of a program, the grid) of products of n rows of k numbers by matrices of so many rows."""
    wide = max(16, triton.next_power_of_2(k))
    tile = {"ROWS": ROWS if n <= MANY else 2 * ROWS, "BLOCK_N": 32, "BLOCK_K": min(128, wide), "num_stages": 1}
    if n <= ONE_BY_ONE:
        columns = max(4, 128 * MOST_COLUMNS // min(1024, wide))
        tile |= {"ROWS": 1, "BLOCK_N": min(MOST_COLUMNS, columns), "BLOCK_K": min(1024, wide)}
    blocks = sum(triton.cdiv(size, tile["BLOCK_N"]) for size in sizes)
    return tile | {"num_warps": 4}, (blocks, triton.cdiv(n, tile["ROWS"]))
