"""Hashing in slices is the definition, and near vectors share buckets more often than far ones."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from builders.devices import DEVICES
from builders.models import small
from reformer.attention.lsh import LSHAttention
from reformer.layers.context import PassContext
from reformer.ops.lsh_hash import lsh_hash, lsh_hash_reference, pytorch, rotation_width


@pytest.mark.parametrize("factors", [(2,), (64,), (4, 6), (64, 128)])
def test_slices_give_the_definition(factors: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "PROJECTIONS_AT_ONCE", 1000)
    x = torch.randn(2, 3, 50, 16, generator=torch.Generator().manual_seed(0))
    rotations = torch.randn(3, 16, 2, rotation_width(factors), generator=torch.Generator().manual_seed(1))
    found = lsh_hash(x, rotations, factors)
    assert torch.equal(found.long(), lsh_hash_reference(x, rotations, factors))
    assert found.max() < torch.tensor(factors).prod()


def test_one_round_more_looks_far_back() -> None:
    """Fine rounds alone lose what is only alike; coarse ones, of a long text, all but its end."""
    branch = small(n_buckets=(4,), far_buckets=256, n_hashes=2).layers[0][1]
    plain = small(n_buckets=(4, 64), n_hashes=3).layers[0][1]
    assert (branch.sizes, plain.sizes) == ([256, 4, 4], [256, 256, 256])
    assert torch.equal(branch.rotations, plain.rotations)
    x = torch.randn(2, 1, 500, 8)
    found, wanted = branch.buckets(x, branch.all_heads), plain.buckets(x, plain.all_heads)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1:], wanted[1:] % 4)
    assert found[0].max() > 100


def test_training_on_short_contexts_leaves_the_far_round_out() -> None:
    """Trained with a fine round in a coarse one's place on contexts of 1,024, models were 0.3 to 0.7 % worse."""
    branch = small(n_buckets=(4,), far_buckets=256, n_hashes=2, lsh_window=8).layers[0][1]
    branch.gate = None
    short, long = torch.randn(1, 1, 32, 8), torch.randn(1, 1, 33, 8)
    near = branch.buckets(short, branch.all_heads)[1:]
    parts = tuple(torch.randn(1, 32, 1, 8).transpose(1, 2) for _ in range(2))
    config = dataclasses.replace(branch.config, far_buckets=0)
    branch.train()
    assert torch.equal(branch.buckets(short, branch.all_heads), near)
    assert len(branch.buckets(long, branch.all_heads)) == 3
    without = LSHAttention(config, 1).train()
    without.gate = None
    weights = branch.state_dict()
    without.load_state_dict(weights | {"rotations": branch.rotations[:, :, 1:, :2]})
    context = PassContext()
    found, wanted = (f.attend(parts, context, f.all_heads)[0] for f in (branch, without))
    assert torch.equal(found, wanted)


def test_ids_take_the_smallest_type() -> None:
    # Sort keys of the peers overflow; ours are the bare ids, and 8,192 of them fit 16 bits.
    x = torch.randn(1, 1, 4, 8)
    for factors, dtype in (((256,), torch.uint8), ((64, 128), torch.int16), ((512, 512), torch.int32)):
        assert lsh_hash(x, torch.randn(1, 8, 1, rotation_width(factors)), factors).dtype == dtype


def test_the_centre_is_subtracted() -> None:
    # With a common mean nearly everything falls into one bucket; without it the buckets fill evenly.
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 4000, 16, generator=random) + 4.0
    rotations = torch.randn(1, 16, 1, 16, generator=random)
    crowded = lsh_hash(x, rotations, (32,)).unique().numel()
    spread = lsh_hash(x, rotations, (32,), torch.full((1, 16), 4.0)).unique().numel()
    assert crowded < 16 < spread


def test_near_vectors_collide_more_often() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 2000, 32, generator=random)
    near, far = x + 0.2 * torch.randn(x.shape, generator=random), torch.randn(x.shape, generator=random)
    rotations = torch.randn(1, 32, 1, 32, generator=random)
    share = [(lsh_hash(x, rotations, (64,)) == lsh_hash(y, rotations, (64,))).float().mean() for y in (near, far)]
    assert share[0] > 0.6
    assert share[1] < 0.05


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("factors", [(2,), (64,), (4, 6), (64, 128), (6, 150)])
def test_triton_gives_the_definition(device: str, factors: tuple[int, ...]) -> None:
    x = torch.randn(2, 70, 3, 20, generator=torch.Generator().manual_seed(0)).transpose(1, 2)  # token by token
    rotations = torch.randn(3, 20, 2, rotation_width(factors), generator=torch.Generator().manual_seed(1))
    hash_mean = torch.randn(3, 20, generator=torch.Generator().manual_seed(2))
    for middle in (None, hash_mean):
        wanted = lsh_hash(x, rotations, factors, middle)
        on = None if middle is None else middle.to(device)
        found = lsh_hash(x.to(device), rotations.to(device), factors, on, backend="triton").cpu()
        assert found.dtype == wanted.dtype
        # Projections that are equal to rounding may change places; here they are far between.
        assert (found != wanted).float().mean() < 0.005
    zeros = lsh_hash(torch.zeros_like(x).to(device), rotations.to(device), factors, backend="triton").cpu()
    assert (zeros == 0).all()  # of equals the first
