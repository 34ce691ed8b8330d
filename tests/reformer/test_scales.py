"""Temperatures for heads of pattern recent that take over the weights of published ones."""

from __future__ import annotations

import math

import torch
from builders.models import VARIANTS, small, tokens
from reformer.scales import typical_temperatures


def test_they_are_the_mean_lengths_of_what_is_multiplied() -> None:
    """By hand, for the first layer of each kind: what the trunk hands to its heads."""
    for kind in ("local", "lsh"):
        model, ids = (
            small(torch.float64, **VARIANTS["published"] | {"layers": (kind,), "n_layers": 1}),
            tokens(60, batch=1),
        )
        found = typical_temperatures(model, ids)
        assert list(found) == ["layers.0.0.temperature"]
        heads = model.layers[0][0]
        x = model.embedding_weight()[ids]
        y = torch.nn.functional.rms_norm(x, x.shape[-1:]) @ heads.project.weight.T
        parts = y.unflatten(-1, (-1, 4, 8))[0].norm(dim=-1).mean(0)  # [parts, heads]
        wanted = parts[0] * parts[1] / math.sqrt(8) if kind == "local" else parts[0]
        assert (found["layers.0.0.temperature"] - wanted).abs().max() < 1e-4


def test_groups_of_heads_give_what_all_at_once_give() -> None:
    one, other = (
        typical_temperatures(small(**VARIANTS["published"] | {"head_group": g}), tokens(60, batch=1)) for g in (None, 1)
    )
    assert one.keys() == other.keys()
    assert len(one) == 4  # local, lsh, and of the mixed layer both
    assert all((one[name] - other[name]).abs().max() < 1e-5 for name in one)
    assert sorted(len(t) for t in one.values()) == [1, 3, 4, 4]


def test_a_large_grid_is_looked_at_in_slices() -> None:
    """The same whatever the slices that the trunk works on."""
    one, other = (
        typical_temperatures(small(**VARIANTS["published"] | {"workspace_tokens": n}), tokens(200, batch=1))
        for n in (64, 512)
    )
    assert all((one[name] - other[name]).abs().max() < 1e-5 for name in one)
