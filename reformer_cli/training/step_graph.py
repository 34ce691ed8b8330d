"""A training step as a CUDA graph: hundreds of kernels started by one call, where a shape comes again and again.

What is captured reads its inputs from tensors that stay where they are and writes its results, gradients among them, to
others. What cannot be captured runs as it is written, and says why once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from reformer_cli.utils.console import warn

Inputs = Sequence[Tensor | None]
WARMUP = 3  # runs of a shape before it is captured: kernels are compiled in them, and room for activations is known


def capture(work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    """(what a piece of work returns, what does it again into the same tensors), by a CUDA graph. RuntimeError where the
    work asks for what a graph cannot have."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        found = work()
    graph.replay()  # capturing computes nothing
    return found, graph.replay


class GraphedStep:
    """work(*inputs) -> tensors, replayed from the fourth call with inputs of the same shapes on.

    held: tensors that work leaves elsewhere than in what it returns (gradients), which a replay writes again.
    """

    def __init__(
        self, work: Callable[..., Tensor], held: Callable[[], list[Tensor | None]], device: torch.device,
        capture: Callable[[Callable[[], Any]], tuple[Any, Callable[[], None]]] = capture,
    ) -> None:  # fmt: skip
        self.work, self.held, self.device, self.capture = work, held, device, capture
        self.shapes: list[Any] = []
        self.calls, self.failed = 0, False
        self.replay: Callable[[], None] | None = None
        self.inputs: list[Tensor | None] = []
        self.found: Tensor | None = None
        self.left: list[Tensor | None] = []

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        """(what work returns, what it leaves in `held`)."""
        shapes = [None if x is None else (x.shape, x.dtype) for x in inputs]
        if shapes != self.shapes:
            self.shapes, self.calls, self.replay, self.found, self.left = shapes, 0, None, None, []
        self.calls += 1
        if self.replay is None and (self.failed or self.calls <= WARMUP):
            return self._as_written(inputs)
        if self.replay is None:
            self.inputs = [None if x is None else x.to(self.device, copy=True) for x in inputs]
            try:
                self.found, self.replay = self.capture(lambda: self.work(*self.inputs))
            except RuntimeError as error:
                self.failed = True
                warn(f"training goes on without a CUDA graph, slower: {str(error).splitlines()[0]}")
                return self._as_written(inputs)
            self.left = self.held()
        else:
            for x, given in zip(self.inputs, inputs, strict=True):
                if x is not None and given is not None:
                    x.copy_(given, non_blocking=True)
            self.replay()
        assert self.found is not None
        return self.found, self.left

    def _as_written(self, inputs: Inputs) -> tuple[Tensor, list[Tensor | None]]:
        on_device = (None if x is None else x.to(self.device, non_blocking=True) for x in inputs)
        return self.work(*on_device), self.held()
