"""Each filter is tested by the set it keeps; a model's own generation by its forward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from builders.models import small
from reformer import sampling

# Probabilities 0.5, 0.25, 0.15, 0.1, shuffled.
P = torch.tensor([[0.15, 0.5, 0.1, 0.25]])


def kept(logits: torch.Tensor) -> set[int]:
    return set((logits[0] > -torch.inf).nonzero()[:, 0].tolist())


@pytest.mark.parametrize(("k", "expected"), [(1, {1}), (2, {1, 3}), (3, {0, 1, 3}), (99, {0, 1, 2, 3})])
def test_top_k(k: int, expected: set[int]) -> None:
    assert kept(sampling.keep_top_k(P.log(), k)) == expected


@pytest.mark.parametrize(
    ("p", "expected"), [(0.01, {1}), (0.49, {1}), (0.6, {1, 3}), (0.8, {0, 1, 3}), (0.95, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, expected: set[int]) -> None:
    assert kept(sampling.keep_top_p(P.log(), p)) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.9, {1}), (0.4, {1, 3}), (0.25, {0, 1, 3}), (0.1, {0, 1, 2, 3})])
def test_min_p(share: float, expected: set[int]) -> None:
    assert kept(sampling.keep_min_p(P.log(), share)) == expected


def test_temperature_first_then_top_p() -> None:
    # At a high temperature the nucleus is wider: the conventional order.
    found = sampling.draw(P.log().expand(200, -1), torch.Generator().manual_seed(0), temperature=10, top_p=0.6)
    assert len(set(found.tolist())) == 3


def test_generate_is_what_the_forward_pass_says() -> None:
    model, tokens = small(torch.float64), torch.arange(20)[None].repeat(2, 1)
    found = model.generate(tokens, 12, temperature=0)
    for _ in range(12):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, tokens[:, 20:])


def test_a_row_ends_with_its_stop_token() -> None:
    model, tokens = small(), torch.arange(20)[None].repeat(2, 1)
    free = model.generate(tokens, 30, temperature=2.0, seed=3)
    assert torch.equal(free, model.generate(tokens, 30, temperature=2.0, seed=3))
    end = int(free[0, 4])
    found = model.generate(tokens, 30, temperature=2.0, seed=3, stop_token=end)
    for row, was in zip(found.tolist(), free.tolist(), strict=True):
        cut = was.index(end) if end in was else len(row)
        assert row[: cut + 1] == was[: cut + 1]
        assert set(row[cut:]) <= {end}


def test_typical_tokens_surprise_about_as_much_as_expected() -> None:
    """Entropy 1.208 nats: -log P is off by 0.51 for 0.5, 0.18 for 0.25, 0.69 for 0.15, 1.09 for 0.1."""
    assert kept(sampling.keep_typical(P.log(), 0.2)) == {3}
    assert kept(sampling.keep_typical(P.log(), 0.5)) == {1, 3}
    assert kept(sampling.keep_typical(P.log(), 1.0)) == {0, 1, 2, 3}


def test_top_n_sigma_looks_at_what_is_left() -> None:
    """What another filter left out would make the deviation infinite, and keep everything."""
    logits = torch.tensor([[4.0, 3.0, 0.0, -1.0, -torch.inf]])  # mean 1.5, deviation 2.06
    assert kept(sampling.keep_top_n_sigma(logits, 1.0)) == {0, 1}
    assert kept(sampling.keep_top_n_sigma(logits, 2.0)) == {0, 1, 2}


def test_temperature_follows_the_uncertainty() -> None:
    even, sure = torch.zeros(1, 4), torch.tensor([[50.0, 0.0, 0.0, -torch.inf]])
    assert torch.equal(sampling.scale_by_entropy(even, 1.0, 0.5, 1.0), even)
    assert torch.allclose(sampling.scale_by_entropy(even + 3, 1.0, 0.5, 1.0), (even + 3) / 1.5)
    assert torch.allclose(sampling.scale_by_entropy(sure, 1.0, 0.5, 1.0)[:, :3], sure[:, :3] / 0.5)


def test_top_p_is_its_definition() -> None:
    """By a whole sort, equals in the order of the vocabulary; values alone are sorted faster."""
    draw = torch.Generator().manual_seed(0)
    for n in range(40):
        logits = torch.randn(3, 500, generator=draw).mul(1 + n / 8)
        logits = logits.round() if n % 2 else logits
        logits[1, :400] = -torch.inf
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        shares = ordered.softmax(-1)
        beyond = shares.cumsum(-1) - shares >= 0.9
        expected = logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
        assert torch.equal(sampling.keep_top_p(logits, 0.9), expected)


def test_what_is_picked_is_possible() -> None:
    """Also by the smallest and the largest number; a probability of nothing is never picked, first or last."""
    shares = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.0]])
    for number, token in ((0.0, 1), (1 / 3 - 1e-9, 1), (1 / 3 + 1e-9, 3), (1 - 2**-53, 3)):
        assert sampling.pick(shares, torch.tensor([number], dtype=torch.float64)).tolist() == [token]
    many = torch.linspace(0, 1 - 2**-53, 10_001, dtype=torch.float64)
    share = P.expand(len(many), -1)
    assert (sampling.pick(share, many).bincount(minlength=4) / len(many) - P[0]).abs().max() < 1e-3


@pytest.mark.parametrize("filtered", [sampling.scale, sampling.keep_top_p, sampling.keep_min_p, sampling.keep_typical,
                                      sampling.keep_top_n_sigma, sampling.exclude_top_choices])  # fmt: skip
def test_rows_with_numbers_of_their_own_are_as_alone(filtered: Callable[..., torch.Tensor]) -> None:
    """Large enough that only the likeliest are sorted, and one row for which those are not enough."""
    logits = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0))
    logits[0] *= 9
    numbers = torch.tensor([[0.3], [0.95], [0.07]])
    together = filtered(logits, numbers)
    for row, number, found in zip(logits.split(1), numbers[:, 0].tolist(), together.split(1), strict=True):
        assert torch.equal(filtered(row, number), found)
