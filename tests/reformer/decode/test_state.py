"""A decoding state taken apart and put together goes on as the one it was; a foreign or tampered one is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders.models import VARIANTS, small, tokens
from torch import Tensor


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("length", [1, 77])
def test_goes_on_as_it_was(changes: dict[str, Any], length: int) -> None:
    model = small(**changes)
    tokens = torch.randint(0, model.config.vocab_size, (2, length + 30), generator=torch.Generator().manual_seed(0))
    _, state = model.extend(tokens[:, :length])
    again = model.load_state(state.tensors())
    for start in range(length, length + 30, 5):
        part = tokens[:, start : start + 5]
        assert torch.equal(model.extend(part, state)[0], model.extend(part, again)[0])


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_one_that_was_used_and_reset_is_a_new_one(changes: dict[str, Any]) -> None:
    """A server gives the memory of one text to the next, which must not read a word of it."""
    model, (first, second) = small(**changes), tokens(90, 2)[:, None]
    new, used = model.new_state(1), model.new_state(1)
    if not used.fixed_shape:
        pytest.skip("it is not kept")
    model.extend(first[:, :50], used)
    model.mark(used, 40)
    model.extend(first[:, 50:], used)
    used.reset()
    for start, stop in ((0, 40), (40, 41), (41, 90)):
        part = second[:, start:stop]
        assert torch.equal(model.extend(part, new)[0], model.extend(part, used)[0])
    assert used.nbytes == new.nbytes
    assert all(torch.equal(t, used.tensors()[name]) for name, t in new.tensors().items())


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_few_of_each_row_have_the_bits_that_each_has_alone(changes: dict[str, Any]) -> None:
    """The ends of several texts' prompts, of different lengths, which C reads together: what fills a row up is no part
    of it, not even of the next one's."""
    model = small(**changes)
    begun, ends, more = tokens(20, batch=3), tokens(6, batch=3, seed=1), tokens(3, batch=3, seed=2)
    state, apart = model.new_state(3), [model.new_state(1) for _ in range(3)]
    model.extend(begun, state)
    for n, lengths in enumerate(([6, 1, 3], [2, 6, 5])):
        counts = torch.tensor(lengths)
        joint = [
            model.extend(ends, state, last_only=True, counts=counts)[0],
            model.extend(more[:, n : n + 1], state)[0],
        ]
        for row, one in enumerate(apart):
            if n == 0:
                model.extend(begun[row : row + 1], one)
            alone = [model.extend(ends[row : row + 1, : lengths[row]], one)[0][:, -1:]]
            alone.append(model.extend(more[row : row + 1, n : n + 1], one)[0])
            for a, b in zip(joint, alone, strict=True):
                if state.program is not None and state.program.is_shared:
                    assert torch.equal(a[row], b[0])
                assert (a[row] - b[0]).abs().max() < 2e-5


def test_what_is_kept_is_what_is_used() -> None:
    model = small()
    _, state = model.extend(torch.ones(1, 40, dtype=torch.int64))
    kept = sum(t.nbytes for t in state.tensors().values())
    assert kept < 2 * state.nbytes


def spoil(tensors: dict[str, Tensor], name: str, value: Any) -> str:
    """Change one tensor of the layer that has it; returns its full name."""
    full = next(key for key in tensors if key.endswith(name))
    if value is None:
        del tensors[full]
    elif isinstance(value, Tensor):
        tensors[full] = value
    else:
        tensors[full] = tensors[full].clone()
        tensors[full].view(-1)[0] = value
    return full


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("slots", 10**9, "slots reaches 1000000000"),
        ("slots", -1, "slots is below 0"),
        ("rows", 99, "rows reaches"),
        ("last", 10**9, "last reaches"),
        ("last", -7, "last is below -1"),
        ("counts", -1, "counts is below 0"),
        ("ids", 10**6, "ids reaches"),
        ("times", 10**6, "times reaches"),
        ("keys", None, "keys is missing"),
        ("keys", torch.zeros(3), "keys is torch.float32"),
        ("pairs", torch.zeros(1, 2, 8, dtype=torch.float64), "pairs is torch.float64"),
        ("seen", torch.zeros(10**6, dtype=torch.int64), "seen has 1000000 rows"),
    ],
)
def test_a_tampered_state_is_refused(name: str, value: Any, message: str) -> None:
    """Slots and counts are addresses in C: one beyond its ring would write into foreign memory."""
    model = small()
    _, state = model.extend(torch.ones(1, 40, dtype=torch.int64))
    tensors = state.tensors()
    spoil(tensors, name, value)
    with pytest.raises(ValueError, match=message):
        model.load_state(tensors)


@pytest.mark.parametrize("variant", ["default", "far round", "groups of heads"])
def test_rows_are_copied_in_c_as_in_pytorch(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = small(**VARIANTS[variant]).extend(tokens(150, batch=3))[1]
    rows = torch.tensor([2, 0, 2, 1])
    found = state.select(rows).tensors()
    monkeypatch.setattr("reformer.decode.bucket_cache.library", lambda: None)
    expected = state.select(rows).tensors()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    "variant", ["default", "far round", "line positions", "groups of 3", "groups of heads", "chunked"]
)
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_rewinds_to_its_marks(variant: str, backend: str) -> None:
    """What was tried is taken back whole: rings that were full, entries whose value came later, nested marks."""
    model, ids = small(backend=backend, **VARIANTS[variant]), tokens(300, batch=2)
    state = model.extend(ids[:, :90])[1]
    model.mark(state, 200)
    outer = state.tensors()
    for part in ids[:, 90:130].split([1, 3, 36], 1):
        model.extend(part, state)
    model.mark(state, 80)
    inner = state.tensors()
    for stop in (210, 131):
        for part in ids[:, 130:stop].split(70, 1):
            model.extend(part, state)
        state.rewind()
        found = state.tensors()
        assert found.keys() == inner.keys()
        assert all(torch.equal(found[name], inner[name]) for name in found)
    state.unmark()
    model.extend(ids[:, 130:133], state)
    state.rewind()
    found = state.tensors()
    assert found.keys() == outer.keys()
    assert all(torch.equal(found[name], outer[name]) for name in found)
