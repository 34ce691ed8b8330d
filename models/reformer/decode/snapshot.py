"""A decoding state as named tensors, to be kept in a file, and back: from anyone, so it is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reformer.decode.bucket_cache import BucketState
from reformer.decode.state import GrowingState, State, WindowState
from reformer.layers.line_position import UNKNOWN
from reformer.reversible.shorten_cache import GroupState

if TYPE_CHECKING:
    from reformer.model import ReformerLM

Tensors = dict[str, Tensor]


def state_tensors(state: State) -> Tensors:
    """Everything `state` holds, empty slots left out: independent copies by name."""
    found = {"starts": state.starts, **_of(state.layers, state.position)}
    if state.column is not None:
        found["column"] = state.column
    return {name: t.clone().cpu() for name, t in found.items()}


def restore_state(model: ReformerLM, tensors: Tensors) -> State:
    """The state of `model` that `state_tensors` took apart. Raises ValueError for one that is not this model's."""
    starts = _take(tensors, "starts", torch.int64, [None], 0, None)
    batch = starts.shape[0]
    if not 1 <= batch <= 4096:
        raise ValueError(f"starts has {batch} rows")
    state = model.start(batch)
    state.starts.copy_(starts)
    if state.column is not None:
        state.column.copy_(_take(tensors, "column", torch.int64, [batch], 2 * UNKNOWN, -UNKNOWN))
    _fill_layers(state.layers, tensors, starts)
    return state


def _of(layers: list[Any], position: int) -> Tensors:
    used = ((n, _used(layer, position)) for n, layer in enumerate(layers) if layer is not None)
    return {f"layers.{n}.{name}": t for n, parts in used for name, t in parts.items()}


def _fill_layers(layers: list[Any], tensors: Tensors, starts: Tensor) -> None:
    for n, layer in enumerate(layers):
        if layer is not None:
            prefix = f"layers.{n}."
            _fill(layer, {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}, starts)


def _used(layer: Any, position: int) -> Tensors:
    if isinstance(layer, GroupState):
        own = {"begun": layer.begun, "given": layer.given}
        return own | _of(layer.layers, position // layer.begun.shape[1])
    if isinstance(layer, BucketState):
        rows, slots = layer.times.nonzero(as_tuple=True)
        parts = {name: getattr(layer, name)[rows, slots] for name in ("pairs", "times", "ids")}
        return (
            parts
            | {"rows": rows, "slots": slots, "counts": layer.counts, "last": layer.last}
            | {"before": layer.before}
        )
    length = position if isinstance(layer, GrowingState) else None
    return {"keys": layer.keys[:, :, :length], "values": layer.values[:, :, :length]}


def _fill(layer: Any, parts: Tensors, starts: Tensor) -> None:
    if isinstance(layer, GroupState):
        for name, own in (("begun", layer.begun), ("given", layer.given)):
            own.copy_(_take(parts, name, own.dtype, list(own.shape), None, None))
        _fill_layers(layer.layers, parts, starts // layer.begun.shape[1])
        return
    if isinstance(layer, BucketState):
        _fill_buckets(layer, parts, int(starts.max()))
        return
    shape: list[int | None] = list(layer.keys.shape)
    if isinstance(layer, GrowingState):
        shape[2] = int(starts.max())
    for name in ("keys", "values"):
        found = _take(parts, name, layer.keys.dtype, shape, None, None)
        if isinstance(layer, WindowState):
            getattr(layer, name).copy_(found)
        else:
            setattr(layer, name, found.to(layer.keys.device))


def _fill_buckets(layer: BucketState, parts: Tensors, position: int) -> None:
    rows, slots, rounds = layer.ids.shape
    row = _take(parts, "rows", torch.int64, [None], 0, rows)
    n = len(row)
    slot = _take(parts, "slots", torch.int64, [n], 0, slots)
    pairs = _take(parts, "pairs", layer.pairs.dtype, [n, *layer.pairs.shape[2:]], None, None)
    layer.times[row, slot] = _take(parts, "times", torch.int64, [n], 1, position + 1).to(layer.times.device)
    ids = _take(parts, "ids", torch.int32, [n, rounds], 0, max(layer.sizes))
    layer.pairs[row, slot], layer.ids[row, slot] = pairs.to(layer.pairs.device), ids.to(layer.ids.device)
    layer.counts.copy_(_take(parts, "counts", torch.int64, list(layer.counts.shape), 0, position + 1))
    layer.before.copy_(_take(parts, "before", layer.before.dtype, list(layer.before.shape), None, None))
    layer.last.copy_(_take(parts, "last", torch.int64, [rows, rounds], -1, slots))


def _take(
    tensors: Tensors, name: str, dtype: torch.dtype, shape: list[int | None], low: int | None, high: int | None
) -> Tensor:
    """A tensor by name, of a type, of a shape (None: any size) and, where given, in [low, high)."""
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    found = tensors[name]
    fits = found.dim() == len(shape) and all(b in (None, a) for a, b in zip(found.shape, shape, strict=True))
    if found.dtype != dtype or not fits:
        raise ValueError(f"{name} is {found.dtype} {list(found.shape)}, not {dtype} {shape}")
    if found.numel() and low is not None and int(found.min()) < low:
        raise ValueError(f"{name} is below {low}")
    if found.numel() and high is not None and int(found.max()) >= high:
        raise ValueError(f"{name} reaches {int(found.max())}, beyond {high - 1}")
    return found
