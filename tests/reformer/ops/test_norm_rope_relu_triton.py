"""Triton's passes over rows are those of pytorch.py, its loss is cross-entropy; a whole model is the same with them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.devices import DEVICES
from builders.models import VARIANTS, small, tokens
from reformer import NumericalError
from reformer.inference import one_token
from reformer.ops.cross_entropy import IGNORE_INDEX, cross_entropy, softcapped
from reformer.ops.norm_rope_relu import pytorch
from reformer.reversible.autograd import begin
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CLOSE = {torch.float32: 3e-6, torch.bfloat16: 0.02}  # the interpreter cuts bfloat16 off, where a GPU rounds
devices = pytest.mark.parametrize("device", DEVICES)
dtypes = pytest.mark.parametrize("dtype", list(CLOSE))


@pytest.fixture
def kernels():
    pytest.importorskip("triton")
    from reformer.ops.norm_rope_relu import triton_kernels as found

    return found


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def assert_same(found, wanted, dtype: torch.dtype) -> None:
    for a, b in zip(found, wanted, strict=True):
        if b is None:
            assert a is None
            continue
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert (a.float() - b.float()).abs().max() <= CLOSE[dtype] * max(1, b.abs().max())


@devices
@dtypes
@pytest.mark.parametrize("shape", [(1, 6), (77, 48), (3, 256)])
def test_norms(kernels, device: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    x, dy = torch.randn(shape, device=device), torch.randn(shape, device=device).to(dtype)
    x[0] = 0  # harmless
    y, inverse = pytorch.rms_norm(x, dtype)
    assert_same(kernels.rms_norm(x, dtype), (y, inverse), dtype)
    wanted = pytorch.rms_norm_backward(dy, y, inverse, torch.float32)
    assert_same([kernels.rms_norm_backward(dy, y, inverse, torch.float32)], [wanted], dtype)


@devices
@dtypes
@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("how", ["plain", "scaled", "turned"])
def test_split(kernels, device: str, dtype: torch.dtype, parts: int, how: str) -> None:
    for n, m, heads, d in ((1, 1, 1, 8), (90, 30, 2, 12)):
        raw = torch.randn(n, parts * heads * d, device=device).to(dtype)
        grads = [torch.randn(n, heads, d, device=device).to(dtype) for _ in range(parts)]
        scale = 1 + torch.rand(parts - 1, heads, device=device) if how != "plain" else None
        phase = torch.polar(torch.ones(m, d // 2), torch.rand(m, d // 2)).to(device) if how == "turned" else None
        outs, lengths = pytorch.qk_norm_rope(raw, parts, heads, scale, phase)
        found, found_lengths = kernels.qk_norm_rope(raw, parts, heads, scale, phase)
        assert_same([*found, found_lengths], [*outs, lengths], dtype)
        assert all(x.is_contiguous() for x in found)
        given = (grads, outs, lengths, scale, phase)
        assert_same(kernels.qk_norm_rope_backward(*given), pytorch.qk_norm_rope_backward(*given), dtype)


@devices
@dtypes
def test_squared_relu(kernels, device: str, dtype: torch.dtype) -> None:
    h, d = (torch.randn(37, 150, device=device).to(dtype) for _ in range(2))
    h[0, 0] = float("nan")
    mine, theirs = h.clone(), h.clone()
    squares = [x.squared_relu_(y).nan_to_num(-1) for x, y in ((kernels, mine), (pytorch, theirs))]
    assert_same(squares[:1], squares[1:], dtype)
    assert torch.equal(mine.nan_to_num(-1), theirs.nan_to_num(-1))
    wanted = pytorch.squared_relu_backward_(d.clone(), theirs.nan_to_num(1))
    assert_same([kernels.squared_relu_backward_(d.clone(), theirs.nan_to_num(1))], [wanted], dtype)


@devices
@dtypes
def test_streams_bit_for_bit(kernels, device: str, dtype: torch.dtype) -> None:
    """A run begun with one backend goes on with the other. Whole, and slices of a batch that lie apart."""
    plain = torch.randint(-(2**22), 2**22, (2, 50, 60), dtype=torch.int32, device=device)
    x = (torch.randn(2, 50, 60, device=device) * torch.logspace(-6, 2, 60, device=device)).to(dtype)
    x[0, 0, :3] = torch.tensor([0.5, 1.5, 2.5]) / 2**20  # halves are rounded to even
    for here in (slice(0, 50), slice(7, 31)):
        compiled = plain.clone()
        for sign, limit in ((1, 2**30), (-1, None), (1, None)):
            assert pytorch.add_fixed_(plain[:, here], x[:, here], 20, sign, limit)
            assert kernels.add_fixed_(compiled[:, here], x[:, here], 20, sign, limit)
            assert torch.equal(plain, compiled)
        found, wanted = (r.from_fixed(plain[:, here], 20, dtype) for r in (kernels, pytorch))
        if dtype == torch.float32 or device == "cuda":
            assert torch.equal(found, wanted)
        assert torch.allclose(found.float(), wanted.float(), rtol=2**-7, atol=0)


@devices
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1024.0, -1e30])
def test_guard_sees_one_bad_number(kernels, device: str, value: float) -> None:
    x = torch.zeros(1, 100, 100, device=device)
    assert kernels.add_fixed_(torch.zeros_like(x, dtype=torch.int32), x, 20, 1, 2**30)
    full = torch.full((1, 100, 100), 2**30 - 1, dtype=torch.int32, device=device)
    x[0, 99, 98] = 2.0**-20
    assert not kernels.add_fixed_(full, x, 20, 1, 2**30)  # the sum leaves the range
    x[0, 99, 98] = value
    assert not kernels.add_fixed_(torch.zeros_like(x, dtype=torch.int32), x, 20, 1, 2**30)


@devices
@pytest.mark.parametrize("softcap", [0.0, 5.0])
@pytest.mark.parametrize("width", [1, 50, 3000])
def test_loss_is_cross_entropy(kernels, device: str, softcap: float, width: int) -> None:
    raw = (4 * torch.randn(9, width, device=device)).double()
    targets = torch.randint(width, (9,), device=device)
    targets[2] = IGNORE_INDEX
    found = []
    for logits in (raw.clone(), raw.float()):
        leaf = logits.requires_grad_()
        if logits.dtype == torch.float64:
            nats = F.cross_entropy(softcapped(leaf, softcap), targets, ignore_index=IGNORE_INDEX, reduction="sum")
        else:
            nats = cross_entropy(leaf * 1.0, targets, softcap, backend="triton")
        found.append([nats.detach(), *torch.autograd.grad(nats / 8, leaf)])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() < 1e-5 * max(1, a.abs().max())


def step(device: str, backend: str, **changes) -> list[Tensor]:
    model = small(backend=backend, **changes).to(device)
    ids, targets = tokens(75).to(device), tokens(75, seed=1).to(device)
    targets[0, :5] = IGNORE_INDEX
    loss = model.loss(ids, targets)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@devices
@pytest.mark.parametrize("variant", ["default", "chunked"])
def test_a_model_is_the_same(kernels, device: str, variant: str) -> None:
    changes = {"n_layers": 1} | (VARIANTS["chunked"] | {"n_layers": 2} if variant == "chunked" else {})
    for a, b in zip(step(device, "triton", **changes), step(device, "torch", **changes), strict=True):
        assert (a - b).abs().max() < 2e-5 * max(1, b.abs().max())


@devices
def test_extend_is_forward(kernels, device: str) -> None:
    model, ids = small(backend="triton", n_layers=1, n_hashes=2).to(device), tokens(60).to(device)
    with torch.no_grad():
        whole = model(ids)
    state, found = None, []
    for part in ids.split([40, 1, 1, 18], 1):
        logits, state = model.extend(part, state)
        found.append(logits)
    assert (torch.cat(found, 1) - whole).abs().max() < 1e-4


@devices
def test_overflow_names_the_layer_that_began_it(kernels, device: str) -> None:
    # On a GPU nobody waits for the limit of every slice: all are looked at when the last layer is done.
    model = small(backend="triton", n_layers=2).to(device)
    with torch.no_grad():
        model.layers[0][1].output.weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="layer 0 attention: values"):
        model.loss(tokens(20).to(device), tokens(20).to(device))


class _NothingIsAsked(TorchDispatchMode):
    """Operations whose result the program waits for cannot be captured into a graph."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "unique", "masked_select")), (
            func
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", ["default", "lsh, swiglu", "chunked"])
@pytest.mark.parametrize("device", DEVICES[:1])
def test_one_token_waits_for_nothing(kernels, device: str, variant: str) -> None:
    """What a CUDA graph captures, in the interpreter: the same logits as extend's, and no look at a number."""
    changes = VARIANTS[variant] | {"backend": "triton", "n_layers": 1}
    model, ids = small(**changes), tokens(12)
    state = model.extend(ids[:, :9])[1]
    other = state.clone()
    for t in range(9, 12):
        with torch.no_grad(), _NothingIsAsked():
            found, (_, fits) = one_token(model, state)(ids[:, t : t + 1])
        assert fits.all()
        assert (found - model.extend(ids[:, t : t + 1], other)[0]).abs().max() < 1e-6


def test_the_ban_is_one() -> None:
    with pytest.raises(AssertionError), _NothingIsAsked():
        bool(torch.zeros(3).any())


@devices
def test_rebuilt_streams_are_the_very_bits(kernels, device: str) -> None:
    model, ids = small(backend="triton", n_layers=1).to(device), tokens(75).to(device)
    p = model.new_pass(ids)
    sequence, context = p.sequence, p.context
    with torch.no_grad():
        begun = begin(sequence.streams, p.embedding, model.embedding_weight())
        streams = [s.clone() for s in begun]
        saved = sequence.run(streams, context)
        gradients = [torch.randn_like(s, dtype=torch.float32) for s in streams]
        sequence.run_back(streams, gradients, context, saved)
    assert all(torch.equal(a, b) for a, b in zip(begun, streams, strict=True))
