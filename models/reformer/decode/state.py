"""All that a model keeps of the tokens it has seen, and how it becomes named tensors in a file and comes back."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from reformer.decode.cache import Cache, load_all, select_all, take, tensors_of
from reformer.decode.cuda_graph import CudaGraph
from reformer.decode.program import Kept, NativeProgram

MOST_ROWS = 4096  # of a state that is read from a file
UNKNOWN = -(2**40)  # a text began in the middle of a line: below every count, and whatever is added to it as well


@dataclass
class DecodingState:
    """seen: int64 [batch], tokens of each row; caches: one a coupling, None for those without memory; line_position:
    int64 [batch], characters of the line so far, where the model counts them (layers/line_position.py)."""

    seen: Tensor
    caches: list[Cache | None]
    line_position: Tensor | None = None
    program: NativeProgram | None = field(default=None, repr=False)  # the model in C, if that can be
    kept: Kept = field(init=False, repr=False)  # these caches, as the program knows them
    unsupported: bool = field(default=False, repr=False)  # it was found that it cannot be
    graph: CudaGraph | None = field(default=None, repr=False)  # one token of each row as a captured CUDA graph
    marks: list[tuple[Tensor, Tensor | None]] = field(default_factory=list, repr=False)
    warmup: int = field(default=0, repr=False)  # tokens decoded one by one before that is captured

    def __post_init__(self) -> None:
        self.kept = Kept(self.batch, self.caches, self.line_position)

    @property
    def batch(self) -> int:
        return len(self.seen)

    @property
    def position(self) -> int:
        """Tokens seen by the row that has seen most."""
        return int(self.seen.max())

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return sum(cache.nbytes for cache in self.caches if cache is not None)

    @property
    def fixed_shape(self) -> bool:
        """Whether all caches stay as large as they are."""
        return all(cache is None or cache.fixed_shape for cache in self.caches)

    def clone(self) -> DecodingState:
        """An independent copy: extending one leaves the other."""
        return self.select(torch.arange(self.batch, device=self.seen.device))

    def select(self, rows: Tensor) -> DecodingState:
        """An independent state whose rows are these, which may repeat: one prompt, many continuations."""
        line_position = self.line_position[rows] if self.line_position is not None else None
        return DecodingState(self.seen[rows], select_all(self.caches, rows), line_position)

    @torch.inference_mode()  # some tensors may have been made in it, and then change in it alone
    def mark(self, tokens: int, native: bool) -> None:
        """See `ReformerLM.mark`; native: whether C alone will file what comes."""
        self.marks.append((self.seen.clone(), self.line_position.clone() if self.line_position is not None else None))
        for cache in self.caches:
            if cache is not None:
                cache.mark(self.position, tokens, native)

    @torch.inference_mode()
    def rewind(self) -> None:
        """Stand again where the newest mark was set, bit for bit; it stays."""
        seen, line_position = self.marks[-1]
        self.seen.copy_(seen)
        if self.line_position is not None and line_position is not None:
            self.line_position.copy_(line_position)
        for cache in self.caches:
            if cache is not None:
                cache.rewind()

    @torch.inference_mode()
    def unmark(self) -> None:
        """Forget the newest mark: there is no way back to it."""
        self.marks.pop()
        for cache in self.caches:
            if cache is not None:
                cache.unmark()

    @torch.inference_mode()
    def reset(self) -> None:
        """Be as before any token, with the memory that it has: new memory is slow to touch. Only of `fixed_shape`."""
        assert self.fixed_shape
        self.marks = []
        self.seen.zero_()
        if self.line_position is not None:
            self.line_position.fill_(UNKNOWN)
        for cache in self.caches:
            if cache is not None:
                cache.reset()

    def tensors(self) -> dict[str, Tensor]:
        """Everything it holds, empty slots left out: independent copies by name, to be kept in a file."""
        found = {"seen": self.seen, **tensors_of(self.caches, self.position)}
        if self.line_position is not None:
            found["line_position"] = self.line_position
        return {name: t.clone().cpu() for name, t in found.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put what `tensors` gave into this state, which has seen nothing. Raises ValueError for another model's."""
        seen = take(tensors, "seen", torch.int64, [self.batch], 0)
        self.seen.copy_(seen)
        if self.line_position is not None:
            found = take(tensors, "line_position", torch.int64, [self.batch], 2 * UNKNOWN, -UNKNOWN)
            self.line_position.copy_(found)
        load_all(self.caches, tensors, seen)


def saved_batch(tensors: dict[str, Tensor]) -> int:
    """Rows of the state that `DecodingState.tensors` gave. Raises ValueError where that cannot be a state's."""
    batch = len(take(tensors, "seen", torch.int64, [None], 0))
    if not 1 <= batch <= MOST_ROWS:
        raise ValueError(f"seen has {batch} rows")
    return batch
