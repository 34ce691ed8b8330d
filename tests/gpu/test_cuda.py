"""On a GPU: what the CPU computes, from run to run the same. `make gpu`."""

from __future__ import annotations

import pytest
import torch
from core.models import VARIANTS, small, tokens

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_the_cpu(variant: str) -> None:
    model, ids = small(torch.float64, **VARIANTS[variant]), tokens(700)
    with torch.no_grad():
        here = model(ids)
        there = model.to("cuda")(ids.to("cuda"))
    assert (there.cpu() - here).abs().max() < 1e-9


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_the_cpu_and_repeat(variant: str) -> None:
    found = []
    for device in ("cpu", "cuda", "cuda"):
        model, ids = small(torch.float64, **VARIANTS[variant]).to(device), tokens(700).to(device)
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        found.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
    for here, there, again in zip(*found, strict=True):
        assert (here - there).abs().max() < 1e-9
        assert torch.equal(there, again)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_pieces_give_the_logits_of_one_forward(step: int) -> None:
    model, ids = small(torch.float64).to("cuda"), tokens(600).to("cuda")
    with torch.no_grad():
        whole = model(ids)
    state, found = None, []
    for part in ids.split(step, 1):
        logits, state = model.extend(part, state)
        found.append(logits)
    assert (torch.cat(found, 1) - whole).abs().max() < 1e-9
