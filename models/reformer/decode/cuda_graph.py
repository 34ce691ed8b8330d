"""One more token of every row as a captured CUDA graph: all of its kernels started by one call.

What is captured works in the state's own tensors, at fixed addresses, and asks nothing of the GPU. Caches that grow
have no such form, nor have shortened layers, which are worked on only now and then.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Checks = tuple[list[str], Tensor]  # where something was added to a stream, and bool [n], whether it fitted
NEVER = -(2**62)
WARMUP = 2  # tokens that are decoded as usual first: kernels are compiled and libraries opened, which capture forbids


class CudaGraph:
    """Captures a callable: int64 tokens [batch, 1] -> (logits, checks on the GPU)."""

    def __init__(self, decode_one: Callable[[Tensor], tuple[Tensor, Checks]], tokens: Tensor) -> None:
        self.tokens, self.graph, self.autocast = tokens.clone(), torch.cuda.CUDAGraph(), autocast_now()
        self.decode_one = decode_one  # has what the graph reads, and nothing that has the graph
        with torch.cuda.graph(self.graph):
            self.logits, self.checks = decode_one(self.tokens)

    def __call__(self, tokens: Tensor) -> tuple[Tensor, Checks]:
        """What was captured, of tokens [batch, 1]; the captured state moves on."""
        self.tokens.copy_(tokens)
        self.graph.replay()
        return self.logits.clone(), self.checks


def autocast_now() -> tuple[bool, torch.dtype]:
    """What a graph is captured under, and good for."""
    return torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
