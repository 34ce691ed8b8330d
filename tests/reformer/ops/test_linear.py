"""The fused pieces are their plain definitions: outputs and every gradient, on every backend, in every combination."""

from __future__ import annotations

import itertools
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from reformer.backends.native import library
from reformer.ops.linear import linear, project, squared_relu_mlp
from reformer.ops.norm_rope_relu import native as native_rows
from reformer.ops.norm_rope_relu import pytorch
from reformer.ops.rotary import Rotary
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def plain_project(x, weight, parts: int, heads: int, scale, phase, *, rms: bool, gate=None):
    normed = F.rms_norm(x, x.shape[-1:]) if rms else x
    y = F.linear(normed, weight).view(len(x), parts, heads, -1)
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
    return tuple(out) if gate is None else (*out, F.linear(normed, gate)[..., None])


def rotary(d_head: int, dtype: torch.dtype, start: int) -> Rotary:
    return Rotary(d_head, dtype, torch.device("cpu"), torch.tensor([start]))


def plain_mlp(x: Tensor, widen: Tensor, narrow: Tensor) -> Tensor:
    return F.linear(F.relu(F.linear(F.rms_norm(x, x.shape[-1:]), widen)).square(), narrow)


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_()


# backend -> what it is tested in, and how close it must come
CLOSE = {"torch": (torch.float64, 1e-12), "native": (torch.float32, 2e-5)}
needs_compiler = pytest.mark.skipif(library.library() is None, reason=library.problem())
BACKENDS = ["torch", pytest.param("native", marks=needs_compiler)]


def assert_same(found, wanted, leaves: list[Tensor], tolerance: float) -> None:
    found, wanted = (x if isinstance(x, tuple) else (x,) for x in (found, wanted))
    upper = [torch.randn_like(x) for x in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() < tolerance * max(1, b.abs().max())
    gradients = [torch.autograd.grad(x, leaves, upper) for x in (found, wanted)]
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() < tolerance * 10 * max(1, b.abs().max())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [1, 5, 150])
def test_project(tokens: int, backend: str) -> None:
    dtype, tolerance = CLOSE[backend]
    for parts, scaled, turned, rms, gated in itertools.product((2, 3), *[(True, False)] * 4):
        x, weight = drawn(tokens, 6, dtype=dtype), drawn(parts * 2 * 4, 6, dtype=dtype)
        scale = (1 + torch.rand(parts - 1, 2, dtype=dtype)).requires_grad_() if scaled else None
        phase = rotary(4, dtype, 1000).phase(slice(0, tokens)) if turned and scaled else None
        gate = drawn(2, 6, dtype=dtype) if gated else None
        leaves = [x, weight, *(leaf for leaf in (scale, gate) if leaf is not None)]
        arguments = (x, weight, parts, 2, scale, phase)
        found = project(*arguments, rms=rms, backend=backend, gate=gate)
        assert_same(found, plain_project(*arguments, rms=rms, gate=gate), leaves, tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_go_round_with_the_rows_of_a_batch(backend: str) -> None:
    dtype, tolerance = CLOSE[backend]
    x, weight = drawn(3 * 7, 6, dtype=dtype), drawn(2 * 4, 6, dtype=dtype)
    scale, phase = torch.ones(1, 1, dtype=dtype, requires_grad=True), rotary(4, dtype, 5).phase(slice(0, 7))
    found = project(x, weight, 2, 1, scale, phase, rms=True, backend=backend)
    wanted = plain_project(x, weight, 2, 1, scale, phase.repeat(3, 1), rms=True)
    assert_same(found, wanted, [x, weight, scale], tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens", [1, 5, 150])
def test_squared_relu_mlp(tokens: int, backend: str) -> None:
    dtype, tolerance = CLOSE[backend]
    leaves = [drawn(tokens, 6, dtype=dtype), drawn(20, 6, dtype=dtype), drawn(6, 20, dtype=dtype)]
    assert_same(squared_relu_mlp(*leaves, backend), plain_mlp(*leaves), leaves, tolerance)


@pytest.mark.parametrize("tokens", [1, 5, 13])
def test_linear(tokens: int) -> None:
    leaves = [drawn(tokens, 6), drawn(20, 6)]
    assert_same(linear(*leaves), F.linear(*leaves), leaves, 1e-12)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_streams_are_those_of_torch(dtype: torch.dtype) -> None:
    """Bit for bit: a run begun with one backend goes on with the other. 2 x 2,500 numbers, whole and in slices."""
    plain = torch.randint(-(2**22), 2**22, (2, 50, 50), dtype=torch.int32)
    x = torch.randn(2, 50, 50).to(dtype)
    x[0, 0, :3] = torch.tensor([0.5, 1.5, 2.5]) / 2**20  # halves are rounded to even
    for here in (slice(0, 50), slice(7, 31)):
        compiled = plain.clone()
        for sign, limit in ((1, 2**30), (-1, None), (1, None)):
            assert pytorch.add_fixed_(plain[:, here], x[:, here], 20, sign, limit)
            assert native_rows.add_fixed_(compiled[:, here], x[:, here], 20, sign, limit)
            assert torch.equal(plain, compiled)
        assert torch.equal(
            pytorch.from_fixed(plain[:, here], 20, dtype), native_rows.from_fixed(compiled[:, here], 20, dtype)
        )


@pytest.mark.parametrize("passes", [pytorch, pytest.param(native_rows, marks=needs_compiler)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1024.0, -1e30])
def test_guard_sees_one_bad_number(passes: ModuleType, value: float) -> None:
    x = torch.zeros(1, 100, 100)
    assert passes.add_fixed_(torch.zeros_like(x, dtype=torch.int32), x, 20, 1, 2**30)
    full = torch.full((1, 100, 100), 2**30 - 1, dtype=torch.int32)
    x[0, 99, 98] = 2.0**-20
    assert not passes.add_fixed_(full, x, 20, 1, 2**30)  # the sum leaves the range
    x[0, 99, 98] = value
    assert not passes.add_fixed_(torch.zeros_like(x, dtype=torch.int32), x, 20, 1, 2**30)


@needs_compiler
def test_bfloat16_is_rounded_as_torch_rounds_it() -> None:
    x = torch.randn(300, 37) * torch.logspace(-30, 30, 37)
    x[0, :5] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0])
    outs, _ = native_rows.qk_norm_rope(x.bfloat16(), 1, 1, None, None)  # what is one already stays as it is
    assert torch.equal(outs[0].nan_to_num(1), x.bfloat16()[:, None].nan_to_num(1))
    found = native_rows.rms_norm_backward(x, torch.zeros_like(x), torch.ones(300, 1), torch.bfloat16)
    assert torch.equal(found[1:], x[1:].bfloat16())
    assert found[0].isnan().all()  # its mean is no number


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
    assert out.dtype == torch.bfloat16
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


def test_no_gradient_of_a_frozen_matrix_is_made() -> None:
    """It was made and thrown away: a step with all matrices frozen took as long as if most were trained."""

    def backward(frozen: bool) -> tuple[Tensor, int]:
        made = torch.Generator().manual_seed(0)
        x = torch.randn(10, 8, generator=made).requires_grad_()
        square, wide, narrow = (torch.randn(n, m, generator=made) for n, m in ((8, 8), (32, 8), (8, 32)))
        for weight in (square, wide, narrow):
            weight.requires_grad_(not frozen)
        (parts,) = project(x, square, 1, 2, None, None, rms=True, backend="torch")
        y = linear(squared_relu_mlp(parts.flatten(1), wide, narrow, "torch"), square)
        with FlopCounterMode(display=False) as counter:
            y.sum().backward()
        assert x.grad is not None
        return x.grad, counter.get_total_flops()

    (trained, all_flops), (frozen, few) = backward(False), backward(True)
    assert torch.equal(trained, frozen)
    assert few == all_flops // 2
