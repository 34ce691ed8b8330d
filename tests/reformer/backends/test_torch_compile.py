"""torch.export writes the forward pass down, torch.compile leaves the trunk alone: the same logits and gradients."""

from __future__ import annotations

import io

import pytest
import torch
from builders.models import VARIANTS, small, tokens


@pytest.mark.parametrize(
    "variant", ["default", *(pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS if v != "default")]
)
def test_an_exported_forward_gives_the_same_logits_for_other_tokens(variant: str) -> None:
    """Bug guarded against: a table of positions or a bucket of the tokens traced is written down as a constant."""
    layers = VARIANTS[variant].get("attn_layers", ("mixed",))
    model, ids = small(**VARIANTS[variant] | {"n_layers": len(layers)}), tokens(64)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model, (ids,)), buffer)
    buffer.seek(0)
    again = torch.export.load(buffer).module()
    for seed in (0, 3):
        others = tokens(64, seed=seed)
        assert (again(others) - model(others)).abs().max() < 5e-5
    # What an export makes are tensors without values: none may stay in a cache that the model uses.
    assert model(tokens(64)).isfinite().all()


def test_native_alone_is_no_thing_to_export() -> None:
    with pytest.raises(ValueError, match="backend native cannot be exported: use backend auto or torch"):
        torch.export.export(small(backend="native", n_layers=1), (tokens(8),))


@pytest.mark.parametrize("variant", ["default", "chunked"])
def test_compiling_changes_no_bit(variant: str) -> None:
    """Bug guarded against: a forward pass that was compiled and a backward that was not rebuild other streams."""
    torch._dynamo.reset()
    model = small(**VARIANTS[variant])
    compiled = torch.compile(model, backend="eager")
    for length in (40, 64):
        found = []
        for called in (model, compiled):
            logits = called(tokens(length))
            found.append([logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))])
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.slow
def test_compiled_by_inductor() -> None:
    """In earnest: what is compiled is the head, whose sums it takes in another order."""
    torch._dynamo.reset()
    model, ids = small(), tokens(64)
    logits, wanted = torch.compile(model)(ids), model(ids)
    assert (logits - wanted).abs().max() < 1e-5
    one, other = (torch.autograd.grad(x.square().sum(), model.embedding)[0] for x in (logits, wanted))
    assert (one - other).abs().max() < 1e-4 * other.abs().max()


def test_loss_and_extend_run_inside_compiled_code() -> None:
    torch._dynamo.reset()
    model, ids = small(), tokens(30)
    doubled = torch.compile(lambda x: 2 * model.loss(x, x), backend="eager")(ids)
    assert torch.equal(doubled, 2 * model.loss(ids, ids))
    logits, state = torch.compile(model.extend, backend="eager")(ids)
    assert torch.equal(logits, model.extend(ids)[0])
    assert state.position == 30
