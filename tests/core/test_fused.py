"""The fused pieces are their plain definitions: outputs and every gradient, across slices, in every combination."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from reformer import fused
from reformer.fused import linear, project, squared_relu_mlp
from reformer.positions import Rotary
from torch import Tensor


def plain_project(x, weight, parts: int, heads: int, scale, phase, *, rms: bool):
    y = F.linear(F.rms_norm(x, x.shape[-1:]) if rms else x, weight).view(len(x), parts, heads, -1)
    out = []
    for p in range(parts):
        part = y[:, p]
        if scale is not None and p < parts - 1:
            part = F.normalize(part, dim=-1) * scale[p][:, None]
            if phase is not None:
                a, b = part[..., ::2], part[..., 1::2]
                cos, sin = phase.real[:, None], phase.imag[:, None]
                part = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
        out.append(part)
    return tuple(out)


def rotary(d_head: int, dtype: torch.dtype, start: int) -> Rotary:
    return Rotary(d_head, 10_000.0, dtype, torch.device("cpu"), start)


def plain_mlp(x: Tensor, widen: Tensor, narrow: Tensor) -> Tensor:
    return F.linear(F.relu(F.linear(F.rms_norm(x, x.shape[-1:]), widen)).square(), narrow)


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_()


def assert_same(found, wanted, leaves: list[Tensor], tolerance: float) -> None:
    found, wanted = (x if isinstance(x, tuple) else (x,) for x in (found, wanted))
    upper = [torch.randn_like(x) for x in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() < tolerance
    gradients = [torch.autograd.grad(x, leaves, upper) for x in (found, wanted)]
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() < tolerance * 10


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(fused, "SLICE", 5)


@pytest.mark.parametrize("tokens", [1, 5, 13])
def test_project(tokens: int) -> None:
    for parts, scaled, turned, rms in itertools.product((2, 3), (True, False), (True, False), (True, False)):
        x, weight = drawn(tokens, 6), drawn(parts * 2 * 4, 6)
        scale = (1 + torch.rand(parts - 1, 2, dtype=torch.float64)).requires_grad_() if scaled else None
        phase = rotary(4, torch.float64, 1000).phase(slice(0, tokens)) if turned else None
        leaves = [x, weight] + ([scale] if scale is not None else [])
        arguments = (x, weight, parts, 2, scale, phase)
        assert_same(project(*arguments, rms=rms), plain_project(*arguments, rms=rms), leaves, 1e-12)


@pytest.mark.parametrize("tokens", [1, 5, 13])
def test_squared_relu_mlp(tokens: int) -> None:
    leaves = [drawn(tokens, 6), drawn(20, 6), drawn(6, 20)]
    assert_same(squared_relu_mlp(*leaves), plain_mlp(*leaves), leaves, 1e-12)


@pytest.mark.parametrize("tokens", [1, 5, 13])
def test_linear(tokens: int) -> None:
    leaves = [drawn(tokens, 6), drawn(20, 6)]
    assert_same(linear(*leaves), F.linear(*leaves), leaves, 1e-12)


def test_rows_of_zeros_are_harmless() -> None:
    x, weight = torch.zeros(3, 6, requires_grad=True), drawn(16, 6, dtype=torch.float32)
    scale = torch.ones(1, 2, requires_grad=True)
    parts = project(x, weight, 2, 2, scale, None, rms=True)
    sum(p.sum() for p in parts).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all((p == 0).all() for p in parts)


def test_autocast_names_the_products_and_nothing_else() -> None:
    leaves = [drawn(13, 6, dtype=torch.float32), drawn(20, 6, dtype=torch.float32), drawn(6, 20, dtype=torch.float32)]
    with torch.autocast("cpu", torch.bfloat16):
        out = squared_relu_mlp(*leaves)
    assert out.dtype == torch.float32
    wanted = plain_mlp(*leaves)
    error = (out - wanted).abs().max() / wanted.abs().max()
    assert 1e-5 < error < 0.03  # products were rounded, sums were not
    gradients = torch.autograd.grad(out.sum(), leaves)
    for a, b in zip(gradients, torch.autograd.grad(wanted.sum(), leaves), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() / b.norm() < 0.03


def test_positions_far_out_turn_exactly() -> None:
    """In float32 the angle of the ten-millionth token would be off by a whole turn."""
    low, high = (rotary(8, dtype, 10_000_000).phase(slice(0, 3)) for dtype in (torch.float32, torch.float64))
    assert (low - high).abs().max() < 1e-6
