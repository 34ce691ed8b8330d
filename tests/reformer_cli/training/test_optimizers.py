"""Optimisers of our own, against those of PyTorch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from builders.models import small
from torch import Tensor, nn

from reformer_cli.config.schema import TrainConfig
from reformer_cli.training.optimizers import BatchedMuon, Float32Muon, make_optimizers, optimizer_tensors


@pytest.mark.parametrize(
    ("kind", "rate"), [(Float32Muon, 0.02), (BatchedMuon, 0.02), (BatchedMuon, torch.tensor(0.02))]
)
def test_muon_steps_as_torchs_does(kind: type, rate: float | Tensor) -> None:
    """On a CPU that emulates bfloat16 a step of torch's took 11 s instead of 0.2, on a GPU it is 25 kernels a matrix;
    the step must be the same one."""
    torch.manual_seed(0)
    begun = [torch.randn(shape) for shape in ((48, 16), (16, 48), (24, 24), (48, 16))]
    ours, theirs = ([nn.Parameter(t.clone()) for t in begun] for _ in range(2))
    optimizers = (
        kind(ours, {"lr": rate, "weight_decay": 0.1}),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b, first in zip(ours, theirs, begun, strict=True):
        assert (a - b).norm() < 0.02 * (a - first).norm()
        assert torch.equal(*(o.state[p]["momentum_buffer"] for o, p in zip(optimizers, (a, b), strict=True)))


@pytest.mark.parametrize(("precision", "kind"), [("float32", Float32Muon), ("bfloat16", torch.optim.Muon)])
def test_products_are_taken_as_the_runs_precision_says(precision: str, kind: type) -> None:
    """Not by a measurement at each start: a resumed run would go on with other bits."""
    model = small()
    optimizers = make_optimizers(model, dataclasses.replace(TrainConfig(), optimizer="muon", precision=precision))
    assert type(optimizers[0]) is kind
    model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    optimizers[0].step()
    assert any(name.endswith("/momentum_buffer") for name in optimizer_tensors(model, optimizers))
