"""A layer as it is trained on a GPU (reversible/fused.py) is the layer: outputs, every gradient, kept or made again.

Guards against a step of a GPU that learns something else than what a CPU decodes: heads of one product that are
another's, a document that sees its neighbour, a round that counts a pair twice; and against activations that, kept
where there is room, give other bits than those that are made again. In Triton's interpreter: small sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders.devices import DEVICES
from builders.models import small, tokens
from reformer import ReformerLM
from torch import Tensor

SIZES: dict[str, Any] = {
    "n_layers": 1, "d_model": 32, "n_heads": 3, "n_lsh_heads": 1, "d_head": 16, "local_window": 20, "lsh_window": 5,
    "n_hashes": 2, "chunk_tokens": 4096,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "two rounds": {},
    "a far round": {"n_buckets": (4,), "far_buckets": 24, "lsh_window": 3, "n_hashes": 1},
    "three rounds and a far one": {"n_buckets": (4,), "far_buckets": 24, "lsh_window": 3, "n_hashes": 3},
    "five rounds": {"n_hashes": 5, "attn_layers": ("lsh",)},  # of which the last four are compared in a loop
    "lsh alone": {"attn_layers": ("lsh",), "n_hashes": 1, "lsh_key_conv": 1},
    "local alone": {"attn_layers": ("local",)},
}
EVERYTHING, NOTHING = 2**40, 0  # bytes that may be kept


def trained(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    backend: str,
    room: int,
    documents: bool = False,
    length: int = 40,
    seed_of: Tensor | None = None,
    **changes: Any,
) -> tuple[ReformerLM, list[Tensor]]:
    """A model after the backward of a loss, and what came of it: the loss, every gradient, the running means."""
    monkeypatch.setattr("reformer.reversible.sequence.room", lambda device: room)
    model = small(torch.float32, **(SIZES | changes), backend=backend).train().to(device)
    ids, place = tokens(length + 1).to(device), torch.arange(length, device=device)
    begins = torch.tensor([[30, 70], [7, 65]], device=device)
    numbers = (place >= begins[:, :1]).long() + (place >= begins[:, 1:]).long()
    loss = model.loss(ids[:, :-1], ids[:, 1:], numbers if documents else None, seed_of)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return model, [loss.detach(), *gradients, *(b for n, b in model.named_buffers() if n.endswith("hash_mean"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_a_fused_layer_is_the_layer(monkeypatch: pytest.MonkeyPatch, device: str, case: str) -> None:
    documents, length = case in ("two rounds", "local alone"), 80 if case == "two rounds" else 40
    if case == "local alone":  # a hidden layer made slice by slice, of which the last is shorter
        monkeypatch.setattr("reformer.layers.fused_mlp.AT_ONCE", 128 * 33)
    model, found = trained(monkeypatch, device, "triton", NOTHING, documents, length, **CASES[case])
    assert model.sequence.fused is not None
    _, wanted = trained(monkeypatch, device, "torch", NOTHING, documents, length, **CASES[case])
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm().clamp_min(1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["local", "lsh"])
def test_dropout_is_the_same_forwards_and_backwards(monkeypatch: pytest.MonkeyPatch, device: str, kind: str) -> None:
    """Of one kind of heads a fused layer has the steps of the layer, so that the same numbers are dropped."""
    seed = torch.tensor([3], device=device)
    found, other, wanted = (
        trained(monkeypatch, device, backend, NOTHING, attn_layers=(kind,), n_hashes=1, dropout=0.3, seed_of=given)[1]
        for backend, given in (("triton", seed), ("triton", seed + 1), ("torch", seed))
    )
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm().clamp_min(1e-3)
    assert not torch.equal(found[0], other[0])


@pytest.mark.parametrize("device", DEVICES)
def test_what_dropout_leaves(device: str) -> None:
    from reformer.ops.fused_rows.launch import dropout

    x, seed = torch.ones(3, 37, 50, device=device), torch.tensor([2**40 + 7], device=device)
    masks = [dropout(x, seed, number, start, 0.25) for number, start in ((0, 0), (1, 0), (0, 37), (0, 0))]
    for mask in masks:
        assert mask.unique().tolist() == [0.0, pytest.approx(4 / 3)]
        assert abs(float((mask == 0).float().mean()) - 0.25) < 0.03
    assert torch.equal(masks[0], masks[3])
    for one in masks[1:3]:  # neither the same nor moved along
        assert abs(float(((one == 0) & (masks[0] == 0)).float().mean()) - 0.0625) < 0.02


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_kept_changes_no_bit(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    _, rebuilt = trained(monkeypatch, device, "triton", NOTHING, n_hashes=1)
    for room in (EVERYTHING, 97_000):
        model, kept = trained(monkeypatch, device, "triton", room, n_hashes=1)
        assert model.sequence.keeps(2, 40) == (2 if room == EVERYTHING else 1)
        assert all(torch.equal(a, b) for a, b in zip(rebuilt, kept, strict=True))


def test_a_text_too_long_for_fused_steps_goes_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card without the memory for all of it at once; it used to end there. With room to the byte it is fused."""
    model = small(torch.float32, **SIZES, backend="triton")
    assert model.sequence.fused is not None
    needed = 2 * 32 * (4 + 4) + 3 * max(step.kept_bytes(4) for step in model.sequence.fused)
    ids = tokens(50)
    for left, is_fused in ((0, True), (1, False)):
        monkeypatch.setattr("reformer.reversible.sequence.unused", lambda device, n=left: ids.numel() * needed - n)
        assert (model.new_pass(ids).sequence.fused is not None) == is_fused


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_on_a_cpu_too_as_many_steps_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """And a second backward of the same pass, whose streams stand where the kept steps end, gives the same."""
    found = []
    for kept in (0, steps):
        model = small(torch.float32, chunk_tokens=4096, n_layers=2, n_hashes=2).train()
        sequence, ids = model.sequence, tokens(91)
        each = 2 * 90 * sequence.graph_bytes / len(sequence.steps())
        monkeypatch.setattr("reformer.reversible.sequence.room", lambda device, kept=kept, each=each: each * kept + 1)
        assert sequence.keeps(2, 90) == kept
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        for again in (True, False):
            model.zero_grad()
            loss.backward(retain_graph=again)
            found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_what_cannot_be_fused_runs_step_by_step() -> None:
    for changes in ({"d_head": 8}, {"activation": "swiglu"}, {"attn_layers": ("full",)}, {"chunk_heads": 1}):
        assert small(torch.float32, **(SIZES | {"backend": "triton"} | changes)).sequence.fused is None


def test_overflow_is_told_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    from reformer import NumericalError
    from reformer.reversible.streams import check_fits

    model = small(torch.float32, **SIZES, backend="triton", attn_layers=("local",)).train()
    with torch.no_grad():
        model.layers[0][1].output.weight.fill_(float("nan"))
    ids, checks = tokens(21), []
    model.loss(ids[:, :-1], ids[:, 1:], checks=checks)
    with pytest.raises(NumericalError, match="layer 0 feed-forward"):
        check_fits(*checks[0], model.config.stream_bits)
