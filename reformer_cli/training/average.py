"""A running mean of the weights: smoother than the last ones, and often better (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Of a model's floating point tensors by name, buffers included; they are the model's own, changed in place."""

    def __init__(self, state: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.state = {name: t.detach() for name, t in state.items() if t.is_floating_point()}
        self.mean = {name: t.clone() for name, t in self.state.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """After step number `steps`. Early on the mean is of few steps, so that it does not remember the beginning."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(_own(self.mean), _own(self.state), 1 - decay)

    @torch.no_grad()
    def reset(self) -> None:
        """Begin anew at the model's weights."""
        for mean, t in zip(_own(self.mean), _own(self.state), strict=True):
            mean.copy_(t)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the mean for its weights."""
        kept = {name: t.clone() for name, t in self.state.items()}
        try:
            self._set(self.mean)
            yield
        finally:
            self._set(kept)

    @torch.no_grad()
    def _set(self, tensors: Mapping[str, Tensor]) -> None:
        for t, other in zip(_own(self.state), _own(tensors), strict=True):
            t.copy_(other)


def _own(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The parts of them that this process holds: all, unless they are sharded."""
    return [getattr(t, "to_local", lambda t=t: t)() for t in tensors.values()]
