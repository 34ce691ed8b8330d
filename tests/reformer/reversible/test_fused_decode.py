"""One more token by the kernels of a GPU (reversible/fused_decode.py) is one more token: logits, and the whole state.

Guards against a decoder that writes another text than the model that was trained: a ring that is read after the token
was filed or one place further, a newest entry without its value, a pair that two rounds count twice, a row that stands
where another does; and against a state that the other paths cannot go on from. In Triton's interpreter: few tokens."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from builders.devices import DEVICES
from builders.models import small, tokens
from reformer import NumericalError, ReformerLM
from reformer.decode.state import DecodingState
from reformer.inference import one_token
from reformer.reversible.streams import check_fits

SIZES: dict[str, Any] = {
    "n_layers": 1, "d_model": 32, "n_heads": 3, "n_lsh_heads": 1, "d_head": 16, "d_ff": 32, "local_window": 20,
    "lsh_window": 5, "n_hashes": 2,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "two rounds": {"lsh_window": 12},
    "one round, rings of one": {"n_hashes": 1, "lsh_window": 2, "n_buckets": (40,), "n_layers": 2},
    "a far round, lines": {"n_buckets": (4,), "far_buckets": 24, "lsh_window": 3, "line_positions": 6},
    "lsh alone": {"attn_layers": ("lsh",), "lsh_key_conv": 1, "n_buckets": (4, 6)},
    "local alone": {"attn_layers": ("local",), "positions": "none"},
}


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which each costs the interpreter as much as a large one; and of a cache and a hash a few numbers at a time."""
    if not torch.cuda.is_available():
        launch = pytest.importorskip("reformer.ops.fused_decode.launch")
        monkeypatch.setattr(launch, "MOST_COLUMNS", 64)
        monkeypatch.setattr(launch, "NUMBERS", 256)


def started(
    device: str, counts: list[int], **changes: Any
) -> tuple[ReformerLM, DecodingState, ReformerLM, DecodingState]:
    """A model that Triton computes, one that PyTorch does, and the states of both after so many tokens of each row."""
    found = [small(torch.float32, **(SIZES | changes), backend=name).to(device) for name in ("triton", "torch")]
    state = found[1].new_state(len(counts))
    if any(counts):
        ids = tokens(max(counts), len(counts)).to(device)
        found[1].extend(ids, state, counts=torch.tensor(counts, device=device))
    return found[0], found[0].load_state(state.tensors()), found[1], state


def equal(found: DecodingState, wanted: DecodingState) -> None:
    ours, theirs = found.tensors(), wanted.tensors()
    assert ours.keys() == theirs.keys()
    for name, x in theirs.items():
        y = ours[name]
        assert torch.allclose(x, y, rtol=0, atol=1e-4 if x.is_floating_point() else 0), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_a_token_is_the_token(device: str, case: str) -> None:
    model, state, other, wanted = started(device, [61, 13], **CASES[case])
    decode, ids = one_token(model, state), tokens(2, seed=3).to(device)
    assert type(decode).__name__ == "FusedToken"
    for t in range(2):
        with torch.no_grad():
            logits, (_, fits) = decode(ids[:, t : t + 1])
        assert fits.all()
        assert (logits - other.extend(ids[:, t : t + 1], wanted)[0]).abs().max() < 1e-4
        equal(state, wanted)


@pytest.mark.parametrize("device", DEVICES)
def test_rows_that_tensor_cores_take_together(device: str) -> None:
    """More than the products of one row are made for, the first of them without any token."""
    model, state, other, wanted = started(device, [0, 3, 30, 61, 5], line_positions=4)
    ids = tokens(2, 5, seed=4).to(device)
    for t in range(2):
        with torch.no_grad():
            logits, _ = one_token(model, state)(ids[:, t : t + 1])
        assert (logits - other.extend(ids[:, t : t + 1], wanted)[0]).abs().max() < 1e-4
        equal(state, wanted)


def test_overflow_is_told_once_and_names_its_layer() -> None:
    model, state, _, _ = started("cpu", [0])
    decode, feed_forward = one_token(model, state), model.layers[0][2]
    weight = feed_forward.output.weight.detach().clone()
    with torch.no_grad():
        feed_forward.output.weight.fill_(float("nan"))
        checks = decode(tokens(1, 1))[1]
        with pytest.raises(NumericalError, match="layer 0 feed-forward"):
            check_fits(*checks, model.config.stream_bits)
        feed_forward.output.weight.copy_(weight)
        assert decode(tokens(1, 1))[1][1].all()


@pytest.mark.parametrize("d_head", [8, 16])
def test_a_state_goes_with_the_last_that_has_it(d_head: int) -> None:
    """Its graph keeps what it was captured from; were the state a part of that, a GPU's memory would fill up."""
    gc.disable()
    try:
        model = small(torch.float32, **(SIZES | {"d_head": d_head}), backend="triton")
        state = model.new_state(1)
        state.graph = one_token(model, state)  # type: ignore[assignment]
        known = weakref.ref(state)
        del state
        assert known() is None
    finally:
        gc.enable()


def test_what_has_no_such_kernels_is_decoded_step_by_step() -> None:
    axial = {"positions": "axial", "axial_dims": (16, 16)}
    for changes in ({"lsh_window": 1}, {"n_hashes": 17}, {"d_head": 8}, {"local_window": 9000}, axial):
        model = small(torch.float32, **(SIZES | {"backend": "triton"} | changes))
        assert type(one_token(model, model.new_state(1))).__name__ == "function"
