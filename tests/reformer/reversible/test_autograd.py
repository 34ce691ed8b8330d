"""The trunk reverses bit for bit, and its gradients are those of the plain network, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from builders.models import VARIANTS, small, tokens
from reformer import NumericalError, ReformerLM
from reformer.layers.context import PassContext
from reformer.layers.embedding import Embedding
from reformer.reversible.autograd import begin, reversible_reference
from reformer.reversible.loss import sliced_loss

LENGTH = 211


def documents() -> torch.Tensor:
    return (torch.arange(LENGTH)[None] // 50).expand(2, -1)


class PlainLoss(torch.autograd.Function):
    """The loss as a node of its own, of activations that exist as a whole."""

    @staticmethod
    def forward(ctx, model: ReformerLM, h: torch.Tensor, targets: torch.Tensor, *parameters: torch.Tensor):
        dh = torch.empty_like(h)
        slices = model.sequence.streams.slices(*targets.shape)
        mean, totals = sliced_loss(
            model.head, lambda here: h[:, here].detach(), targets, slices, lambda here, g: dh[:, here].copy_(g)
        )
        ctx.save_for_backward(dh, *totals)
        return mean.to(h.dtype)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        dh, *totals = ctx.saved_tensors
        return None, dh * grad, None, *(g * grad for g in totals)


def plain_loss(model: ReformerLM, seed: int | None = None) -> torch.Tensor:
    """The loss under ordinary autograd, which keeps every activation."""
    h = reversible_reference(model.new_pass(tokens(LENGTH), documents(), seed), model.embedding_weight())
    return PlainLoss.apply(model, h, tokens(LENGTH, seed=1), *model.head.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_are_those_of_the_plain_network(variant: str, dtype: torch.dtype) -> None:
    ours = small(dtype, dropout=0.1, **VARIANTS[variant]).train()
    plain = copy.deepcopy(ours)
    loss = ours.loss(tokens(LENGTH), tokens(LENGTH, seed=1), documents(), dropout_seed=3)
    wanted = plain_loss(plain, 3)
    assert torch.equal(loss, wanted)
    loss.backward()
    wanted.backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        assert a.grad is not None, name
        assert torch.equal(a.grad, b.grad), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_24_layers_rebuild_bit_for_bit(dtype: torch.dtype) -> None:
    model = small(dtype, n_layers=24)
    context, sequence = PassContext(model.rotary()), model.sequence
    streams = begin(sequence.streams, Embedding(tokens(LENGTH)), model.embedding_weight().detach())
    first = [s.clone() for s in streams]
    with torch.no_grad():
        saved = sequence.run(streams, context)
        assert not torch.equal(streams[0], first[0])
        gradients = [torch.zeros_like(s, dtype=sequence.streams.dtype) for s in streams]
        sequence.run_back(streams, gradients, context, saved)
    assert torch.equal(streams[0], first[0])
    assert torch.equal(streams[1], first[1])


def test_nothing_but_streams_and_buckets_is_saved() -> None:
    def saved(n_layers: int) -> int:
        sizes = []
        model = small(n_layers=n_layers)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model.loss(tokens(LENGTH), tokens(LENGTH))
        return sum(sizes)

    assert saved(2) == saved(12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_loss_have_the_same_gradients(variant: str) -> None:
    """A user's own loss on the logits goes through another autograd function than `loss`."""
    model, targets = small(torch.float64, **VARIANTS[variant]), tokens(LENGTH, seed=1)
    found = []
    for loss in (
        model.loss(tokens(LENGTH), targets),
        torch.nn.functional.cross_entropy(model(tokens(LENGTH)).flatten(0, 1), targets.flatten()),
    ):
        found.append(torch.autograd.grad(2 * loss, list(model.parameters()), allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() < 1e-12


def test_gradient_streams_in_bfloat16_are_close() -> None:
    found = []
    for kind in ("full", "bfloat16"):
        model = small(n_layers=6, gradient_dtype=kind)
        found.append(torch.autograd.grad(model.loss(tokens(LENGTH), tokens(LENGTH)), list(model.parameters())))
    # A gradient of 1e-6 is a sum that cancels: of it rounding may leave less.
    errors = [float((a - b).norm() / a.norm().clamp(min=1e-5)) for a, b in zip(*found, strict=True)]
    assert 0 < max(errors) < 0.05


def test_no_gradient_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under no_grad the loss must not differentiate: validation would cost more than it need."""
    model = small()
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("differentiated"))
    with torch.no_grad():
        assert not model.loss(tokens(LENGTH), tokens(LENGTH)).requires_grad


@pytest.mark.parametrize("size", [64, 4096], ids=["rebuilt", "kept"])
def test_two_backward_passes_agree(size: int) -> None:
    # The streams are rebuilt in place: the second pass must start from the end again, not from what the first left.
    # Of kept graphs the first pass leaves nothing.
    model = small(chunk_tokens=size)
    loss = model.loss(tokens(LENGTH), tokens(LENGTH, seed=1))
    parameters = list(model.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("size", [64, 4096], ids=["rebuilt", "kept"])
def test_frozen_parameters_and_eval_mode(size: int) -> None:
    whole, part = small(chunk_tokens=size), small(chunk_tokens=size)
    for name, p in part.named_parameters():
        p.requires_grad_("layers.1" in name)
    for model in (whole, part):
        model.loss(tokens(LENGTH), tokens(LENGTH, seed=1)).backward()
    for (name, a), (_, b) in zip(whole.named_parameters(), part.named_parameters(), strict=True):
        if "layers.1" in name:
            assert torch.equal(a.grad, b.grad), name
        else:
            assert b.grad is None, name


def test_gradients_add_up_over_two_losses() -> None:
    model = small()
    model.loss(tokens(LENGTH), tokens(LENGTH, seed=1)).backward()
    once = [p.grad.clone() for p in model.parameters()]
    model.loss(tokens(LENGTH), tokens(LENGTH, seed=1)).backward()
    assert all(torch.allclose(2 * a, p.grad) for a, p in zip(once, model.parameters(), strict=True))


def test_global_random_state_is_untouched() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    model = small(dropout=0.3).train()
    a = model.loss(tokens(LENGTH), tokens(LENGTH, seed=1), dropout_seed=1)
    a.backward()
    assert torch.equal(before, torch.get_rng_state())
    fresh = small(dropout=0.3).train()
    assert torch.equal(a, fresh.loss(tokens(LENGTH), tokens(LENGTH, seed=1), dropout_seed=1))
    assert not torch.equal(a, fresh.loss(tokens(LENGTH), tokens(LENGTH, seed=1), dropout_seed=2))


def test_autocast_is_entered_again_in_backward() -> None:
    model = small()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(tokens(LENGTH), tokens(LENGTH, seed=1))
    loss.backward()
    full = small()
    full.loss(tokens(LENGTH), tokens(LENGTH, seed=1)).backward()
    for (name, p), (_, q) in zip(model.named_parameters(), full.named_parameters(), strict=True):
        assert torch.isfinite(p.grad).all(), name
        assert not torch.equal(p.grad, q.grad), name  # it did run in bfloat16
        if p.numel() > 1:  # one number near 0 may change its sign
            assert torch.nn.functional.cosine_similarity(p.grad.flatten(), q.grad.flatten(), 0) > 0.8, name


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_range_guard_names_the_layer(value: float) -> None:
    model = small()
    model.layers[1][-1].output.weight.data.fill_(value)
    with pytest.raises(NumericalError, match="layer 1 feed-forward"):
        model(tokens(LENGTH))
