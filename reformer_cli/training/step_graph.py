"""A training step as a CUDA graph: hundreds of kernels started by one call, where a shape comes again and again.

What is captured reads its inputs from tensors that stay where they are and writes its results, gradients among them, to
others. Steps with and without an input (batches in which a document ends, and others) are captured one after the other
and kept side by side, in the same memory: what one has left is used up before another is replayed. What uses it up, an
optimiser's step, is captured with it, as a graph of its own: between the two the host looks at the loss. What cannot be
captured runs as it is written, and says why once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reformer_cli.utils.console import warn

Inputs = Sequence[Tensor | None]
WARMUP = 3  # runs of a shape before it is captured: kernels are compiled in them, and room for activations is known


def capture(work: Callable[[], Any], pool: Any = None) -> tuple[Any, Callable[[], None]]:
    """(what a piece of work returns, what does it again into the same tensors), by a CUDA graph. pool: memory that it
    shares with others. RuntimeError where the work asks for what a graph cannot have."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        found = work()
    graph.replay()  # capturing computes nothing
    return found, graph.replay


@dataclass
class Captured:
    """Work on inputs: what it returns, what it leaves in `held`, and what does it again; after: what does that again
    which comes after it, once it was captured."""

    inputs: Inputs
    found: Tensor
    left: list[Tensor | None]
    replay: Callable[[], None]
    after: Callable[[], None] | None = None


class GraphedStep:
    """work(*inputs) -> tensors, replayed from the fourth call with inputs of the same shapes on, as long as the first
    input keeps its shape.

    held: tensors that work leaves elsewhere than in what it returns (gradients), which a replay writes again.
    """

    def __init__(
        self, work: Callable[..., Tensor], held: Callable[[], list[Tensor | None]], device: torch.device,
        capture: Callable[[Callable[[], Any], Any], tuple[Any, Callable[[], None]]] = capture,
    ) -> None:  # fmt: skip
        self.work, self.held, self.device, self.capture = work, held, device, capture
        self.failed, self.first = False, None
        self.pool: Any = None
        self.calls: Counter[Any] = Counter()
        self.captured: dict[Any, Captured] = {}
        self.last: Captured | None = None  # what was replayed in the last call

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        """(what work returns, what it leaves in `held`)."""
        shapes: Any = tuple(None if x is None else (x.shape, x.dtype) for x in inputs)
        if shapes[0] != self.first:  # what was captured of another length is not kept: it holds memory
            self.calls.clear()
            self.captured.clear()
            self.first = shapes[0]
            self.pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        self.last = self.captured.get(shapes)
        if self.last is not None:
            for x, given in zip(self.last.inputs, inputs, strict=True):
                if x is not None and given is not None:
                    x.copy_(given, non_blocking=True)
            self.last.replay()
            return self.last.found, self.last.left
        self.calls[shapes] += 1
        if self.failed or self.calls[shapes] <= WARMUP:
            return self._as_written(inputs)
        fixed = [None if x is None else x.to(self.device, copy=True) for x in inputs]
        try:
            found, replay = self.capture(lambda: self.work(*fixed), self.pool)
        except RuntimeError as error:
            self._refused(error)
            return self._as_written(inputs)
        self.last = self.captured[shapes] = Captured(fixed, found, self.held(), replay)
        return found, self.last.left

    def then(self, work: Callable[[], None]) -> None:
        """Do what comes after the call before and reads what that has left, the same work each time: replayed where the
        call was."""
        if self.last is None or self.failed:
            work()
            return
        if self.last.after is None:
            try:
                self.last.after = self.capture(work, self.pool)[1]
            except RuntimeError as error:
                self._refused(error)
                work()
            return
        self.last.after()

    def _refused(self, error: RuntimeError) -> None:
        self.failed = True
        warn(f"training goes on without a CUDA graph, slower: {str(error).splitlines()[0]}")

    def _as_written(self, inputs: Inputs) -> tuple[Tensor, list[Tensor | None]]:
        on_device = [None if x is None else x.to(self.device, non_blocking=True) for x in inputs]
        try:
            return self.work(*on_device), self.held()
        except torch.OutOfMemoryError:
            if not self.captured:
                raise
        self.captured.clear()  # beside what it holds there is no room for a step as written
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self.work(*on_device), self.held()
