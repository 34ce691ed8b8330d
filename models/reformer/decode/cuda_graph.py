"""One more token of every row as a captured CUDA graph: hundreds of small kernels started by one call.

What is captured works in the state's own tensors, at fixed addresses, and asks nothing of the GPU. Heads whose past
grows have no such form, nor have groups, which are worked on only now and then.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reformer.decode.state import GrowingState, State
from reformer.reversible.sequence import Trunk
from reformer.reversible.shorten_cache import GroupState

if TYPE_CHECKING:
    from reformer.model import ReformerLM

NEVER = -(2**62)
WARM = 2  # tokens that are decoded as usual first: kernels are compiled and libraries opened, which capture forbids


class Graph:
    """Captures what one token does to a state."""

    def __init__(self, model: ReformerLM, tokens: Tensor, state: State) -> None:
        self.tokens, self.graph, self.autocast = tokens.clone(), torch.cuda.CUDAGraph(), _autocast()
        with torch.cuda.graph(self.graph):
            self.logits, self.trunk, self.pending = one_token(model, self.tokens, state)
            self.fits = torch.stack([fits for _, fits in self.pending])

    def run(self, tokens: Tensor) -> Tensor:
        """Logits of tokens [batch, 1]; the state moves on. Raises NumericalError as `Trunk.settle`."""
        self.tokens.copy_(tokens)
        self.graph.replay()
        if not bool(self.fits.all()):
            self.trunk.pending.extend(self.pending)
            self.trunk.settle()
        return self.logits.clone()


def one_token(
    model: ReformerLM, tokens: Tensor, state: State
) -> tuple[Tensor, Trunk, list[tuple[str, Tensor]]]:  # fmt: skip
    """(logits, the trunk, what it has pending) of tokens [batch, 1], without once waiting for the GPU."""
    trunk = model.trunk
    h = model.move(trunk, tokens, state, torch.ones_like(state.starts), whole=True)
    pending = list(trunk.pending)
    trunk.pending.clear()
    return model.head(h), trunk, pending


def by_graph(model: ReformerLM, tokens: Tensor, state: State) -> Tensor | None:
    """Logits of one more token a row from a graph; None where there is none, or none yet."""
    if tokens.device.type != "cuda" or tokens.shape[1] != 1 or torch.cuda.is_current_stream_capturing():
        return None
    if state.graph is None or state.graph.autocast != _autocast():
        if any(isinstance(layer, (GrowingState, GroupState)) for layer in state.layers):
            return None
        state.warm += 1
        if state.warm <= WARM:
            return None
        try:
            state.graph, state.warm = Graph(model, tokens, state), 0
        except RuntimeError as error:  # nothing was computed while capturing: the state is as it was
            state.warm = NEVER
            warnings.warn(f"decoding goes on without a CUDA graph, slower: {error}", stacklevel=3)
            return None
    return state.graph.run(tokens)


def _autocast() -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
