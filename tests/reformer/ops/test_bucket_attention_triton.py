"""Bucket attention in Triton is the definition in float64: outputs and every gradient. `-m gpu`: on a GPU."""

from __future__ import annotations

import pytest
import torch
from builders.devices import DEVICES, LOW
from reformer.ops.bucket_attention import bucket_attention, bucket_attention_reference
from torch import Tensor

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.003}
devices = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture
def gpu():
    return pytest.importorskip("reformer.ops.bucket_attention.triton_launch")


def computed(backend: str, x: list[Tensor], g: Tensor, buckets: Tensor, windows: list[int], **how) -> list[Tensor]:
    """(output, dq, dk, dv); x: q, k, v, or k, v where one vector is query and key."""
    leaves = [t.clone().requires_grad_() for t in x]
    q, k, v = leaves if len(leaves) == 3 else (leaves[0], *leaves)
    if backend == "reference":
        out = bucket_attention_reference(q, k, v, buckets, windows, **how)
    else:
        out = bucket_attention(q, k, v, buckets, windows, backend=backend, **how)
    gradients = torch.autograd.grad(out, leaves, g, allow_unused=True)
    return [out.detach(), *(torch.zeros_like(t) if d is None else d for d, t in zip(gradients, x, strict=True))]


def check(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int, int], n_buckets: int, windows: list[int],
    shared: bool = False, **how,
) -> list[Tensor]:  # fmt: skip
    draw = torch.Generator().manual_seed(shape[2])
    # Scores of unit variance, as callers scale them.
    *x, g = ((torch.randn(shape, generator=draw) * shape[3] ** -0.25).to(dtype) for _ in range(3 if shared else 4))
    buckets = torch.randint(n_buckets, (len(windows), *shape[:3]), generator=draw)
    wanted = computed("reference", [t.double() for t in x], g.double(), buckets, windows, **how)
    found = computed("triton", [t.to(device) for t in x], g.to(device), buckets.to(device), windows, **how)
    for name, a, b in zip(("out", "dk", "dv") if shared else ("out", "dq", "dk", "dv"), wanted, found, strict=True):
        assert b.dtype == dtype
        assert not b.isnan().any(), name
        assert (a - b.cpu()).abs().max() <= CLOSE[dtype] * max(1, a.abs().max()), name
    return found


@devices
@pytest.mark.parametrize("length", [1, 2, 67, 131])
@pytest.mark.parametrize("n_buckets", [1, 9])
@pytest.mark.parametrize(("values", "itself"), [("same", "alone"), ("same", "always"), ("next", "alone")])
def test_recent(gpu, device: str, length: int, n_buckets: int, values: str, itself: str) -> None:
    for windows in ([7], [40, 1, 200]):
        check(device, torch.float32, (2, 2, length, 8), n_buckets, windows, values=values, itself=itself)


@devices
def test_a_sink(gpu, device: str) -> None:
    """What it takes from the kernel is the logsumexp over all rounds, and what sees nothing must not become NaN."""
    draw = torch.Generator().manual_seed(0)
    *x, g = (torch.randn(2, 2, 131, 8, generator=draw) * 0.6 for _ in range(4))
    sink, buckets = torch.randn(2, generator=draw), torch.randint(30, (2, 2, 2, 131), generator=draw)
    wanted = computed("reference", x, g, buckets, [7, 40], values="next", sink=sink)
    x, g, buckets, sink = [t.to(device) for t in x], g.to(device), buckets.to(device), sink.to(device)
    found = computed("triton", x, g, buckets, [7, 40], values="next", sink=sink)
    for name, a, b in zip(("out", "dq", "dk", "dv"), wanted, found, strict=True):
        assert (a - b.cpu()).abs().max() <= CLOSE[torch.float32] * max(1, a.abs().max()), name


@devices
@pytest.mark.parametrize("length", [1, 67, 131])
@pytest.mark.parametrize("itself", ["alone", "always"])
def test_published(gpu, device: str, length: int, itself: str) -> None:
    for rounds, chunk, n_buckets in ((1, 32, 5), (3, 5, 1), (2, 40, 1000)):
        shape = (1, 2, length, 8)
        check(device, torch.float32, shape, n_buckets, [chunk] * rounds, pattern="chunks", itself=itself)


@devices
@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
@pytest.mark.parametrize("d", [32, 48, 64, 128])
def test_widths_and_types(gpu, device: str, dtype: torch.dtype, d: int) -> None:
    check(device, dtype, (1, 2, 150, d), 3, [32, 64], values="next", shared=d == 64)
    check(device, dtype, (1, 1, 100, d), 3, [32], pattern="chunks")


@devices
def test_windows_wider_than_what_is_scanned(gpu, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond, a block meets every query up to the window instead of looking for the last that sees it."""
    check(device, torch.float32, (1, 1, 700, 8), 2, [512])
    monkeypatch.setattr(gpu, "MOST_SCANNED", 16)
    check(device, torch.float32, (1, 1, 300, 8), 2, [100, 20])


@devices
def test_every_tiling(gpu, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for tiles in gpu.TILINGS.values():
        monkeypatch.setattr(gpu, "tiling", lambda *_, t=tiles: t)
        check(device, torch.bfloat16, (1, 2, 150, 64), 3, [32, 64], values="next", shared=True)


@devices
def test_documents_folded_into_buckets(gpu, device: str) -> None:
    # Ids beyond 16 bits, of which most are empty.
    check(device, torch.float32, (1, 1, 200, 8), 2**20, [9, 9])
    check(device, torch.float32, (1, 1, 200, 8), 2**20, [9, 9], pattern="chunks")


@devices
def test_gradients_repeat_bit_for_bit(gpu, device: str) -> None:
    # Atomic additions would end in a different order every time.
    found = [check(device, torch.float32, (1, 2, 300, 16), 9, [16, 16], values="next", shared=True) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@devices
@pytest.mark.parametrize("bits", [32, 64])
def test_u_in_64_bits_where_places_ask_for_it(gpu, device: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from reformer.ops.bucket_attention import windows

    if bits == 64:
        monkeypatch.setattr(windows, "LARGEST_INT32", 1)
    check(device, torch.float32, (1, 2, 90, 8), 5, [20, 30, 40])


@devices
def test_rows_beyond_32_bits(gpu, device: str) -> None:
    """A million tokens of many heads have more numbers than 2^31. Memory that is never touched costs nothing on a CPU;
    the places lie at the very end of it."""
    from reformer.ops.bucket_attention.windows import BucketWindows, make_window

    if device == "cuda" and torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GiB of GPU memory")
    length, d, total = 40, 64, 2**25 + 2**21  # 2.3 billion numbers
    plain = make_window(1, 1, length, 8, torch.device(device), block=64, itself=True)
    (now,) = plain.rounds
    far = BucketWindows([type(now)(now.order + (total - length), now.reach, None, 8)], 64, True)
    x = [torch.randn(length, d, dtype=torch.bfloat16).to(device) for _ in range(4)]
    out, lse = gpu.forward_pass(*x[:3], plain, 0)
    delta = (out.float() * x[3].float()).sum(1)
    wanted = gpu.backward_pass(*x[:3], lse, delta, x[3], plain, 0, once=False)

    def at_the_end(rows: Tensor) -> Tensor:
        whole = rows.new_empty(total, *rows.shape[1:])
        whole[-length:] = rows
        return whole

    q, k, v, g = map(at_the_end, x)
    far_out, far_lse = gpu.forward_pass(q, k, v, far, 0)
    assert torch.equal(far_out[-length:], out)
    found = gpu.backward_pass(q, k, v, far_lse, at_the_end(delta), g, far, 0, once=False)
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a[-length:], b)


@devices
def test_what_is_no_number_is_passed_on(gpu, device: str) -> None:
    # A maximum that drops NaNs would turn a broken layer into plausible numbers.
    for where in "qv":
        inputs = {name: torch.randn(1, 1, 300, 16, device=device) for name in "qkv"}
        inputs[where][:, :, 5] = float("nan")
        buckets = torch.zeros(1, 1, 1, 300, dtype=torch.int64, device=device)
        out = bucket_attention(**inputs, buckets=buckets, windows=[40], backend="triton", itself="always")
        assert out[:, :, 5].isnan().all()
        assert out[:, :, 250:].isfinite().all()


def test_what_triton_cannot_do_is_refused_and_not_done_otherwise() -> None:
    x, buckets = torch.zeros(1, 1, 10, 4, dtype=torch.float64), torch.zeros(1, 1, 1, 10, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"takes float32, bfloat16 or float16 on one GPU, not torch\.float64 on cpu"):
        bucket_attention(x, x, x, buckets, [4], backend="triton")


@devices
def test_a_head_too_wide_is_refused(gpu, device: str) -> None:
    x, buckets = torch.zeros(1, 1, 10, 512, device=device), torch.zeros(1, 1, 1, 10, dtype=torch.int64, device=device)
    with pytest.raises(ValueError, match="heads up to 256 wide, not 512"):
        bucket_attention(x, x, x, buckets, [4], backend="triton")
