"""Token by token is the parallel pass: any pieces, every variant, past every internal capacity."""

from __future__ import annotations

import pytest
import torch
from core.models import CAUSAL, VARIANTS, small, tokens
from reformer import ReformerLM
from torch import Tensor


def in_pieces(model: ReformerLM, ids: Tensor, step: int) -> Tensor:
    state, found = None, []
    for part in ids.split(step, 1):
        logits, state = model.extend(part, state)
        found.append(logits)
    return torch.cat(found, 1)


@pytest.mark.parametrize("variant", CAUSAL)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_pieces_give_the_logits_of_one_forward(variant: str, step: int) -> None:
    # Entries are dropped and windows moved several times: the first capacity is 256.
    model, ids = small(torch.float64, **VARIANTS[variant]), tokens({1: 600, 7: 900, 1000: 1500}[step])
    with torch.no_grad():
        whole = model(ids)
    # Groups of heads are rounded to the streams' unit one by one, which decoding need not do.
    assert (in_pieces(model, ids, step) - whole).abs().max() < (1e-5 if model.config.head_group else 1e-12)


def test_float32_to_rounding() -> None:
    model, ids = small(), tokens(400)
    with torch.no_grad():
        whole = model(ids)
    for step in (1, 7, 100):
        assert (in_pieces(model, ids, step) - whole).abs().max() < 2e-5


@pytest.mark.parametrize("variant", CAUSAL)
def test_later_tokens_change_no_earlier_logit(variant: str) -> None:
    model, ids = small(torch.float64, **VARIANTS[variant]), tokens(400)
    with torch.no_grad():
        whole = model(ids)
        for cut in (1, 130, 399):
            other = torch.cat([ids[:, :cut], tokens(400, seed=9)[:, cut:]], 1)
            assert (model(other)[:, :cut] - whole[:, :cut]).abs().max() < 1e-12


def test_the_far_past_is_reached() -> None:
    # A window of 20 and 3 layers reach 60 tokens back; only the hash carries a change at 0 to 399.
    ids = tokens(400)
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 50
    for kind, reaches in (("lsh", True), ("local", False)):
        model = small(torch.float64, layers=(kind,))
        with torch.no_grad():
            moved = (model(changed)[:, 390:] - model(ids)[:, 390:]).abs().max() > 1e-9
        assert bool(moved) == reaches


def test_documents_never_meet() -> None:
    model = small(torch.float64)
    a, b = tokens(60), tokens(90, seed=1)
    documents = torch.cat([torch.zeros(2, 60), torch.ones(2, 90)], 1).long()
    with torch.no_grad():
        packed = model(torch.cat([a, b], 1), documents)
        assert (packed[:, :60] - model(a)).abs().max() < 1e-12
        # Rotary positions are relative, LSH heads have none: where a document starts makes no difference.
        assert (packed[:, 60:] - model(b)).abs().max() < 1e-12


def test_documents_of_a_pack_can_change_places() -> None:
    model, parts = small(torch.float64), [tokens(n, seed=n) for n in (60, 90, 33)]

    def packed(order: list[int]) -> list[Tensor]:
        ids = torch.cat([parts[n] for n in order], 1)
        documents = torch.cat([torch.full_like(parts[n], n) for n in order], 1)
        found = model(ids, documents).split([parts[n].shape[1] for n in order], 1)
        return [found[order.index(n)] for n in range(3)]

    with torch.no_grad():
        for one, other in zip(packed([0, 1, 2]), packed([2, 0, 1]), strict=True):
            assert (one - other).abs().max() < 1e-12


def test_published_at_once_is_one_forward_and_goes_on() -> None:
    """Chunks move with later text; the newest token must see what it would see as the last one of the text."""
    model, ids = small(torch.float64, **VARIANTS["published"] | {"n_layers": 1}), tokens(100)
    with torch.no_grad():
        logits, state = model.extend(ids[:, :70])
        assert (logits - model(ids[:, :70])).abs().max() < 1e-12
        for n in range(70, 100):
            logits, state = model.extend(ids[:, n : n + 1], state)
            assert (logits[:, 0] - model(ids[:, : n + 1])[:, -1]).abs().max() < 1e-12


def test_state_is_bounded_and_clones_are_apart() -> None:
    model = small()
    state, held = None, []
    for n in range(12):
        _, state = model.extend(tokens(1000, seed=n), state)
        held.append(state.nbytes)
    assert state.position == 12_000
    assert max(held[3:]) <= 1.01 * held[2]
    copy = state.clone()
    one, _ = model.extend(tokens(1), state)
    model.extend(tokens(5, seed=3), state)
    other, _ = model.extend(tokens(1), copy)
    assert torch.equal(one, other)


def test_score_is_the_loss() -> None:
    model = small(torch.float64)
    ids, targets = tokens(300), tokens(300, seed=1)
    targets[0, :7] = -100
    nats, _ = model.score(ids[:, :200], targets[:, :200])
    more, _ = model.score(ids, targets)
    assert (nats - more[:, :200]).abs().max() < 1e-12
    assert (nats[0, :7] == 0).all()
    mean = more.sum() / (targets >= 0).sum()
    assert abs(float(mean - model.loss(ids, targets).detach())) < 1e-12
    logits = model(ids).detach()
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert abs(float(mean - wanted)) < 1e-12


def test_wrong_calls_are_refused() -> None:
    model = small()
    _, state = model.extend(tokens(3))
    with pytest.raises(ValueError, match="batch of 2"):
        model.extend(tokens(3, batch=1), state)
    with pytest.raises(ValueError, match="vocab_size 50"):
        model(torch.full((1, 3), 50))
    with pytest.raises(ValueError, match="at least one"):
        model.extend(tokens(3)[:, :0])
    axial = small(**VARIANTS["full, layer norm, axial"])
    with pytest.raises(ValueError, match="1601 tokens exceed the 1600"):
        axial(tokens(1601))
    with pytest.raises(ValueError, match="dropout_seed"):
        small(dropout=0.5).train()(tokens(3))
