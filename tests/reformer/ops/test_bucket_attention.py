"""The fast attention is the definition: outputs and every gradient, whatever the lengths, buckets and windows."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reformer.backends.native import library
from reformer.ops.bucket_attention import bucket_attention, bucket_attention_reference, chunks
from reformer.ops.bucket_attention.attend import attend
from reformer.ops.bucket_attention.reference import visible
from reformer.ops.bucket_attention.windows import make_window
from torch import Tensor

# backend -> what it is tested in, and how close it must come to the definition in float64
CLOSE = {"torch": (torch.float64, 1e-12), "native": (torch.float32, 1e-4)}
needs_compiler = pytest.mark.skipif(library.library() is None, reason=library.problem())
BACKENDS = ["torch", pytest.param("native", marks=needs_compiler)]


def both(*arguments: Any, **how: Any) -> list[list[Tensor]]:
    """What `one` finds of the reference, and of the fast version."""
    return [one(function, *arguments, **how) for function in (bucket_attention_reference, bucket_attention)]


def one(
    function: Callable[..., Tensor], length: int, buckets: Tensor, windows: list[int], block: int,
    backend: str = "torch", sink: bool = False, **how: str,
) -> list[Tensor]:  # fmt: skip
    """Output, dq, dk, dv; with a sink, its gradient. The reference's in float64."""
    random = torch.Generator().manual_seed(length)
    _, batch, heads, _ = buckets.shape
    shape, dtype = (batch, heads, length, 8), CLOSE[backend][0]
    q, k, v, g = (torch.randn(shape, generator=random, dtype=dtype) for _ in range(4))
    inputs, names = [q, k, v], ["q", "k", "v"]
    if sink:
        inputs, names = [*inputs, torch.randn(heads, generator=random, dtype=dtype)], [*names, "sink"]
    more = {"block": block, "backend": backend} if function is bucket_attention else {}
    wide = dtype if function is bucket_attention else torch.float64
    leaves = [x.to(wide, copy=True).requires_grad_() for x in inputs]
    given = dict(zip(names, leaves, strict=True))
    out = function(**given, buckets=buckets, windows=windows, **how, **more)
    gradients = torch.autograd.grad(out, leaves, g.to(wide), allow_unused=True)
    return [out, *(torch.zeros_like(i) if x is None else x for i, x in zip(inputs, gradients, strict=True))]


def assert_same(found: list[list[Tensor]], backend: str = "torch") -> None:
    for name, a, b in zip(("out", "dq", "dk", "dv", "dsink")[: len(found[0])], *found, strict=True):
        assert not b.isnan().any(), name
        assert (a - b).abs().max() <= CLOSE[backend][1] * max(1, a.abs().max()), name


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """What torch and C are handed is full of NaN and the largest integers."""
    perturb = -6  # M_PERTURB: glibc fills with the complement of the lowest byte
    torch.use_deterministic_algorithms(True)
    ctypes.CDLL(None).mallopt(perturb, 256)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        ctypes.CDLL(None).mallopt(perturb, 0)
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("length", [1, 2, 63, 111, 200])
@pytest.mark.parametrize("n_buckets", [1, 3, 1000])
@pytest.mark.parametrize(("values", "itself"), [("same", "alone"), ("same", "always"), ("next", "alone")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_fast_is_the_definition(length: int, n_buckets: int, values: str, itself: str, backend: str) -> None:
    random = torch.Generator().manual_seed(n_buckets)
    for windows, block in itertools.product(([5], [64, 1], [7, 300, 20]), (16, 64)):
        buckets = torch.randint(n_buckets, (len(windows), 2, 2, length), generator=random)
        assert_same(both(length, buckets, windows, block, backend, values=values, itself=itself), backend)


@pytest.mark.parametrize("length", [1, 2, 63, 200])
@pytest.mark.parametrize("n_buckets", [1, 3, 1000])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sink_is_the_definition(length: int, n_buckets: int, backend: str) -> None:
    """Its score counts once, not once a round, and positions that see nothing read 0 with gradients that are no NaN."""
    random = torch.Generator().manual_seed(n_buckets)
    for windows in ([5], [7, 300, 20]):
        buckets = torch.randint(n_buckets, (len(windows), 2, 3, length), generator=random)
        assert_same(both(length, buckets, windows, 16, backend, sink=True, values="next"), backend)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 63, 64, 111, 200])
@pytest.mark.parametrize("n_buckets", [1, 3, 1000])
@pytest.mark.parametrize("itself", ["alone", "always"])
def test_fast_is_the_definition_published(length: int, n_buckets: int, itself: str) -> None:
    random = torch.Generator().manual_seed(n_buckets)
    for n_rounds, chunk in itertools.product((1, 2, 4), (5, 32)):
        buckets = torch.randint(n_buckets, (n_rounds, 2, 2, length), generator=random)
        assert_same(both(length, buckets, [chunk] * n_rounds, 64, pattern="chunks", itself=itself))


def test_published_slices_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long rows are worked on in several slices; small ones make short rows take that way too."""
    monkeypatch.setattr(chunks, "SCORES_AT_ONCE", 8 * 16 * 3)
    buckets = torch.randint(4, (2, 1, 2, 150), generator=torch.Generator().manual_seed(3))
    assert_same(both(150, buckets, [8, 8], 64, pattern="chunks"))


@pytest.mark.parametrize("pattern", ["windows", "chunks"])
def test_a_thousand(pattern: str) -> None:
    buckets = torch.randint(9, (2, 1, 1, 1000), generator=torch.Generator().manual_seed(0))
    assert_same(both(1000, buckets, [64, 64], 64, pattern=pattern))


@needs_compiler
@pytest.mark.parametrize(("values", "windows"), [("same", [700]), ("next", [300, 40, 600]), ("next", [1, 64])])
def test_native_over_its_tiles_and_segments(values: str, windows: list[int]) -> None:
    """C works on 128 queries, 256 keys and 1,024 places at a time: borders of each, and windows wider than a tile."""
    for n_buckets in (1, 7, 300):
        draw = torch.Generator().manual_seed(n_buckets)
        buckets = torch.randint(n_buckets, (len(windows), 1, 1, 2500), generator=draw)
        assert_same(both(2500, buckets, windows, 64, "native", values=values), "native")


@needs_compiler
def test_native_repeats_bit_for_bit_on_any_number_of_threads() -> None:
    # Atomics, or sums split by thread, would make gradients depend on the machine's load.
    buckets = torch.randint(50, (2, 1, 2, 3000), generator=torch.Generator().manual_seed(0))
    before, found = torch.get_num_threads(), []
    for n in (1, 2, 2, 5):
        torch.set_num_threads(n)
        found.append(one(bucket_attention, 3000, buckets, [64, 64], 64, "native", values="next"))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("window", [1, 20, 64, 700, 3000])
def test_gradients_that_take_the_place_of_queries(window: int, backend: str, poisoned_memory: None) -> None:
    """The trunk lets backward overwrite what it needs no more: the segments of C see each other's queries. Of the
    copies they work on, those beyond the window count nothing, but 0 times a NaN that was never written is NaN."""
    dtype, found = CLOSE[backend][0], []
    layout = make_window(1, 2, 2500, window, torch.device("cpu"), block=64, itself=True)
    for once in (False, True):
        draw = torch.Generator().manual_seed(0)
        q, k, v, g = (torch.randn(1, 2500, 2, 8, dtype=dtype, generator=draw).transpose(1, 2) for _ in range(4))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        delta = torch.empty(5000, dtype=dtype) if once else None
        out = attend(*leaves, layout, self_if_alone=False, delta=delta, backend=backend)
        if delta is not None:
            delta.copy_((out * g).sum(-1).transpose(1, 2).flatten())
        found.append(torch.autograd.grad(out, leaves, g))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


@needs_compiler
def test_native_with_places_beyond_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """u takes 64 bits where length x window asks for it; forced, since 16 million positions would not fit."""
    from reformer.ops.bucket_attention import windows

    buckets = torch.randint(5, (3, 1, 2, 400), generator=torch.Generator().manual_seed(0))
    narrow = both(400, buckets, [20, 30, 40], 64, "native")
    monkeypatch.setattr(windows, "LARGEST_INT32", 1)
    assert windows.make_bucket_windows(buckets, [20, 30, 40], block=64, itself=False).rounds[0].u.dtype == torch.int64
    found = both(400, buckets, [20, 30, 40], 64, "native")
    assert all(torch.equal(a, b) for a, b in zip(narrow[1], found[1], strict=True))


@needs_compiler
@pytest.mark.parametrize("where", ["q", "v"])
def test_native_passes_on_what_is_no_number(where: str) -> None:
    # A maximum that drops NaNs would turn a broken layer into plausible numbers.
    inputs = {name: torch.randn(1, 1, 300, 8) for name in "qkv"}
    inputs[where][:, :, 5] = float("nan")
    buckets = torch.zeros(1, 1, 1, 300, dtype=torch.int64)
    out = bucket_attention(**inputs, buckets=buckets, windows=[40], backend="native", itself="always")
    assert out[:, :, 5].isnan().all()
    assert out[:, :, 250:].isfinite().all()


@pytest.mark.parametrize("values", ["same", "next"])
def test_torch_in_float32_to_rounding(values: str) -> None:
    buckets = torch.randint(9, (2, 1, 2, 1000), generator=torch.Generator().manual_seed(0))
    x = [torch.randn(1, 2, 1000, 8) for _ in range(3)]
    wanted = bucket_attention_reference(*(t.double() for t in x), buckets, [64, 33], values=values)
    assert (bucket_attention(*x, buckets, [64, 33], values=values, backend="torch") - wanted).abs().max() < 2e-5


@pytest.mark.parametrize("ids", ["one bucket", "all different"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_buckets(ids: str, backend: str) -> None:
    length = 130
    row = torch.zeros(length, dtype=torch.int64) if ids == "one bucket" else torch.arange(length)
    buckets = row.expand(2, 1, 1, length)
    for values in ("same", "next"):
        found = both(length, buckets, [300, 10], 16, backend, values=values)
        assert_same(found, backend)
        if ids == "all different" and values == "next":
            assert (found[1][0] == 0).all()  # nothing is seen


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=70),
    st.lists(st.integers(1, 90), min_size=1, max_size=3),
    st.integers(1, 40),
    st.sampled_from(["same", "next"]),
    st.sampled_from(["torch", "native"] if library.library() is not None else ["torch"]),
)
def test_any_buckets(ids: list[int], windows: list[int], block: int, values: str, backend: str) -> None:
    rounds = torch.tensor([ids[r:] + ids[:r] for r in range(len(windows))])
    assert_same(both(len(ids), rounds[:, None, None], windows, block, backend, values=values), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_is_close_and_keeps_its_type(backend: str) -> None:
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 300, 16, generator=random) for _ in range(3))
    buckets = torch.randint(4, (2, 1, 2, 300), generator=random)
    out = bucket_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), buckets, [32, 32], backend=backend)
    wanted = bucket_attention_reference(
        q.bfloat16().float(), k.bfloat16().float(), v.bfloat16().float(), buckets, [32, 32]
    )
    assert out.dtype == torch.bfloat16
    assert (out.float() - wanted).abs().max() < 0.02


def test_a_pair_met_in_every_round_counts_once() -> None:
    # Peers add duplicates up: with three equal rounds the result must be that of one.
    buckets = torch.randint(3, (1, 1, 1, 100), generator=torch.Generator().manual_seed(1))
    q, k, v = (torch.randn(1, 1, 100, 4, dtype=torch.float64) for _ in range(3))
    once = bucket_attention(q, k, v, buckets, [20])
    thrice = bucket_attention(q, k, v, buckets.expand(3, 1, 1, 100), [20, 20, 20])
    assert torch.allclose(once, thrice, atol=1e-12)


def test_visible_set_by_hand() -> None:
    seen = visible(torch.tensor([0, 1, 0, 0, 1, 0])[None, None, None], [2], itself=True)[0, 0]
    expected = [{0}, {1}, {0, 2}, {2, 3}, {1, 4}, {3, 5}]
    assert [set(row.nonzero()[:, 0].tolist()) for row in seen] == expected


@pytest.mark.parametrize("values", ["same", "next"])
def test_the_future_changes_nothing(values: str) -> None:
    # The published chunks leak: how many later tokens fall into lower buckets moves everyone's chunk.
    random = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(1, 1, 120, 4, generator=random) for _ in range(3))
    buckets = torch.randint(5, (2, 1, 1, 120), generator=random)
    out = bucket_attention(q, k, v, buckets, [16, 16], values=values)
    for cut in (1, 50, 119):
        others = [torch.cat([x[:, :, :cut], torch.randn(1, 1, 120 - cut, 4)], 2) for x in (q, k, v)]
        ids = torch.cat([buckets[..., :cut], torch.randint(5, (2, 1, 1, 120 - cut))], -1)
        changed = bucket_attention(*others, ids, [16, 16], values=values)
        assert torch.allclose(out[:, :, :cut], changed[:, :, :cut], atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_uninitialised_memory_is_never_read(backend: str, poisoned_memory: None) -> None:
    for length in (77, 700):
        buckets = torch.arange(length).remainder(6).expand(2, 1, 2, length)
        assert_same(both(length, buckets, [9, 300], 16, backend, values="next"), backend)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"buckets": torch.zeros(1, 1, 1, 9)}, "do not fit"),
        ({"windows": [4, 4]}, "one window a round"),
        ({"windows": [0]}, "at least 1"),
        ({"pattern": "chunks", "values": "next"}, "has values same, not next"),
        ({"v": torch.zeros(1, 1, 9, 4)}, "do not fit"),
        ({"backend": "native", "pattern": "chunks"}, "pattern windows alone"),
        ({"backend": "native", "v": torch.zeros(1, 1, 10, 4).double()}, "of one type"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    x = torch.zeros(1, 1, 10, 4)
    arguments = {
        "q": x,
        "k": x,
        "v": x,
        "buckets": torch.zeros(1, 1, 1, 10, dtype=torch.int64),
        "windows": [4],
    } | change
    with pytest.raises(ValueError, match=message):
        bucket_attention(**arguments)
