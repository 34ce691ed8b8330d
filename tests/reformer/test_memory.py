"""What is alive at the worst moment of a forward and backward pass, in bytes, counted tensor by tensor."""

from __future__ import annotations

import pytest
import torch
from builders.models import small, tokens
from reformer import ReformerConfig
from reformer.memory import Pass
from reformer.ops.bucket_attention import bucket_attention, chunks, layout, windows
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

D = 64


class Alive(TorchDispatchMode):
    """Follows every storage that an operation returns; peak: bytes alive at once beyond what was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        out = function(*arguments, **(named or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                self.storages.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.storages = {key: (ref, n) for key, (ref, n) in self.storages.items() if not ref.expired()}
        self.peak = max(self.peak, sum(n for _, n in self.storages.values()))
        return out


@pytest.fixture(autouse=True)
def _small_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workspace has a fixed size: small, so that short texts show what grows."""
    for module in (layout, windows, chunks):
        monkeypatch.setattr(module, "SCORES_AT_ONCE", 2**13)


def of_attention(length: int, n_rounds: int, pattern: str = "windows") -> int:
    q, k, v = (torch.randn(1, 1, length, D, requires_grad=True) for _ in range(3))
    buckets = torch.randint(length // 16, (n_rounds, 1, 1, length), dtype=torch.int32)
    upper = torch.randn(1, 1, length, D)
    with Alive() as alive:
        bucket_attention(q, k, v, buckets, [32] * n_rounds, pattern=pattern, block=32).backward(upper)
    return alive.peak


@pytest.mark.parametrize("pattern", ["windows", "chunks"])
def test_twice_the_length_twice_the_memory(pattern: str) -> None:
    assert of_attention(4096, 2, pattern) <= 2.05 * of_attention(2048, 2, pattern)


@pytest.mark.parametrize("pattern", ["windows", "chunks"])
def test_rounds_are_merged_as_they_come(pattern: str) -> None:
    """Peers hold queries, keys, values and outputs of every round at once; eight rounds may cost indices alone."""
    more = of_attention(2048, 8, pattern) - of_attention(2048, 1, pattern)
    assert more < 2048 * D * 4  # not even one tensor of vectors


@pytest.mark.slow
def test_depth_costs_nothing_but_buckets() -> None:
    def peak(n_layers: int) -> int:
        model, ids = small(n_layers=n_layers), tokens(512)
        parameters = sum(p.numel() * 4 for p in model.parameters())
        with Alive() as alive:
            model.loss(ids, ids).backward()
        return alive.peak - 2 * parameters  # their gradients, and again where autograd takes them over

    a_stream = 2 * 512 * 32 * 4
    assert peak(12) - peak(2) < a_stream


def test_fused_layers_of_a_gpu_have_no_slices() -> None:
    """20 GiB were forecast for a head that takes a quarter of one. An H200 took 8,784 MiB for 1,048,576 tokens, with
    gradients in bfloat16 7,248."""
    sizes = {"vocab_size": 320, "d_model": 256, "n_layers": 6, "n_heads": 2, "d_ff": 512, "n_hashes": 1}
    for gradients, measured in (("full", 8784), ("bfloat16", 7248)):
        config = ReformerConfig(**sizes, far_buckets=0, n_buckets=(128, 128), gradient_dtype=gradients)
        found = sum(item.size for item in Pass(config, 1, 2**20, 2, False, True).items(0)) / 2**20
        assert abs(found / measured - 1) < 0.1
    published = Pass(ReformerConfig(vocab_size=320, block_style="published", n_layers=1), 1, 2**20, 2, False, True)
    assert not published.is_fused
