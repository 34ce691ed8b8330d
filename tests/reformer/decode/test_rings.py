"""Texts read by the pass of training leave the state that reading them piece by piece leaves, and go on from it.

Guards against a prompt that is read fast and then forgotten: a ring filled in another order than it is read, a value
that is the token's before, what C or a graph would go on from; and against rings that lose the newest of many."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders.devices import DEVICES
from builders.models import CAUSAL, VARIANTS, small, tokens
from reformer import DecodingState, ReformerLM
from reformer.decode.bucket_cache import BucketCache
from reformer.decode.rings import file_new, reachable
from reformer.decode.window_cache import WindowCache
from reformer.reversible.sequence import ReversibleSequence
from torch import Tensor

FUSED: dict[str, Any] = {
    "n_layers": 2, "d_head": 16, "n_heads": 3, "n_lsh_heads": 2, "local_window": 20, "lsh_window": 5, "n_hashes": 2,
    "chunk_tokens": 4096,
}  # fmt: skip
FUSED_CASES: dict[str, dict[str, Any]] = {
    "a far round": {"n_buckets": (4,), "far_buckets": 24, "lsh_window": 3, "n_hashes": 1},
    "lsh and local": {"attn_layers": ("lsh", "local"), "lsh_key_conv": 1},
}


@pytest.fixture
def one_pass(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether first tokens are read by one pass wherever that can be: [no]; it may be changed."""
    wanted = [False]
    monkeypatch.setattr(ReversibleSequence, "prefills", property(lambda sequence: wanted[0]))
    return wanted


def both(model: ReformerLM, ids: Tensor, one_pass: list[bool]) -> tuple[list[Tensor], list[DecodingState]]:
    """Logits and state of a text: piece by piece, and by one pass."""
    found = []
    for one_pass[0] in (False, True):
        found.append(model.extend(ids))
    return [logits for logits, _ in found], [state for _, state in found]


def compare(one: DecodingState, other: DecodingState, close: float) -> None:
    a, b = one.tensors(), other.tensors()
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=close if a[name].is_floating_point() else 0, rtol=0)


@pytest.mark.parametrize("variant", CAUSAL)
def test_the_state_is_the_same(variant: str, one_pass: list[bool]) -> None:
    """Shorter than what keys are made of, than a window and than a group, and past all of them."""
    model = small(torch.float64, **VARIANTS[variant])
    close = 1e-5 if model.config.chunk_heads else 1e-9  # groups of heads are rounded one by one in neither
    for length in (2, 130):
        ids = tokens(length + 9, seed=length)
        with torch.no_grad():
            whole = model(ids)
        logits, states = both(model, ids[:, :length], one_pass)
        compare(*states, 1e-9)
        assert (logits[1] - whole[:, :length]).abs().max() < close
        for start, stop in ((0, 1), (1, 2), (2, 9)):
            more = model.extend(ids[:, length + start : length + stop], states[1])[0]
            assert (more - whole[:, length + start : length + stop]).abs().max() < close


def test_it_is_one_pass_that_reads(one_pass: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """And a text that memory has no room for in pieces, the first of them by the pass; scores likewise."""
    model, ids, read, sequence = small(torch.float64), tokens(300), [], ReversibleSequence
    monkeypatch.setattr(sequence, "tokens_at_once", lambda self, rows: 128)
    one_pass[0] = True
    for name in ("prefill", "decode"):
        whole = getattr(sequence, name)

        def seen(self: Any, pair: Any, *rest: Any, name: str = name, whole: Any = whole) -> None:
            read.append((name, pair[0].shape[1]))
            whole(self, pair, *rest)

        monkeypatch.setattr(sequence, name, seen)
    logits, state = model.extend(ids)
    assert read == [("prefill", 128), *[("decode", 32)] * 5, ("decode", 12)]
    read.clear()
    nats, scored = model.score(ids[:, :-1], ids[:, 1:])
    assert read[0] == ("prefill", 128)
    wanted = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    assert (nats - wanted).abs().max() < 1e-12
    model.extend(ids[:, -1:], scored)
    compare(state, scored, 1e-12)
    last, _ = model.extend(ids, model.new_state(2), last_only=True)
    assert (last - logits[:, -1:]).abs().max() < 1e-12
    read.clear()
    model.extend(ids, counts=torch.tensor([300, 7]))
    small(torch.float64, **VARIANTS["chunked"]).extend(ids)  # decoded by another rule than its pass has
    model.train().extend(ids)  # whose pass would change what it hashes by
    assert not any(name == "prefill" for name, _ in read)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", FUSED_CASES)
def test_a_fused_pass_leaves_the_state(device: str, case: str) -> None:
    ids = tokens(52).to(device)
    models = [small(**(FUSED | FUSED_CASES[case]), backend=backend).to(device) for backend in ("triton", "torch")]
    assert models[0].sequence.fused is not None
    assert models[1].sequence.fused is None
    (logits, state), (wanted, old) = (model.extend(ids[:, :45]) for model in models)
    assert (logits - wanted).abs().max() < 2e-4
    compare(state, old, 2e-4)
    for start, stop in ((45, 46), (46, 52)):
        found, expected = (m.extend(ids[:, start:stop], s)[0] for m, s in zip(models, (state, old), strict=True))
        assert (found - expected).abs().max() < 2e-4


@pytest.mark.parametrize("new", [1, 5, 60])
@pytest.mark.parametrize("counted", [False, True])
def test_slots_are_those_of_one_token_after_the_other(new: int, counted: bool) -> None:
    random = torch.Generator().manual_seed(new)
    capacity, sizes = 3, [4, 2]
    buckets = torch.stack([torch.randint(n, (5, new), generator=random) for n in sizes], 1)
    buckets[:, 1] += sizes[0]
    filed = torch.randint(9, (5, sum(sizes)), generator=random)
    counts = torch.randint(new + 1, (5,), generator=random) if counted else None
    held, found = torch.full((5, sum(sizes) * capacity), -1), torch.full((5, sum(sizes) * capacity), -1)
    wanted, newest = filed.clone(), torch.zeros(5, 2, dtype=torch.int64)
    for row in range(5):
        for t in range(new if counts is None else int(counts[row])):
            for r in range(2):
                b = int(buckets[row, r, t])
                newest[row, r] = b * capacity + wanted[row, b] % capacity
                held[row, newest[row, r]] = t
                wanted[row, b] += 1
    filing = file_new(buckets, filed, capacity, counts)
    found[filing.rows, filing.slots] = filing.tokens
    assert torch.equal(found, held)
    assert torch.equal(filed + filing.added, wanted)
    some = counts > 0 if counts is not None else torch.ones(5, dtype=torch.bool)
    assert torch.equal(filing.newest[some], newest[some])


def test_what_can_be_reached_comes_once_and_by_time() -> None:
    times = torch.tensor([[3, 0, 9, 1, 9, 3], [0, 0, 0, 0, 0, 0], [5, 6, 7, 8, 2, 1]])  # three buckets of two slots
    one = torch.tensor([[[1], [2]], [[0], [2]], [[0], [1]]])
    slots, there = reachable(one, times, 3, 2)
    found = times.gather(1, slots) * there
    assert found.tolist() == [[1, 3, 9, 0], [0, 0, 0, 0], [5, 6, 7, 8]]
    slots, there = reachable(one.expand(-1, -1, 4), times, 3, 2)
    assert (times.gather(1, slots) * there).tolist()[2] == [1, 2, 5, 6, 7, 8]


def test_filling_waits_for_nothing() -> None:
    """What has no values, as on a GPU that is not waited for, can be put into rings too."""
    none = torch.empty(0, device="meta")
    x, ids = torch.empty(2, 3, 20, 8, device="meta"), torch.empty(2, 2, 3, 20, dtype=torch.uint8, device="meta")
    BucketCache.empty(2, 3, 8, [6, 4], [5, 5], none, next_values=True, key_inputs=2).fill(x, x, x, ids)
    WindowCache.empty(2, 3, 8, 7, none).fill(x, x)
