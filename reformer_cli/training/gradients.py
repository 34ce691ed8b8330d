"""The gradient of a batch: in parts, by several processes, in half precision; and whether anything is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from reformer import NumericalError, ReformerLM
from reformer.backends.dtypes import widest
from torch import Tensor, nn

from reformer_cli.config.schema import GRADIENT_CLIP, TrainConfig
from reformer_cli.data.batches import Batch
from reformer_cli.training.distributed import World, whole
from reformer_cli.training.mixed_precision import products_in, rescaled, unscale_
from reformer_cli.training.state import TrainState
from reformer_cli.training.step_graph import GraphedStep

UNSCORED = -100  # a target that does not count


@dataclass(frozen=True)
class LoadedBatch:
    """A batch, and the bytes of text that its targets stand for."""

    batch: Batch
    n_bytes: float
    scored: int


class Loss(nn.Module):
    """The loss as a module's forward, which is what DDP and FSDP act on."""

    def __init__(self, model: ReformerLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, targets: Tensor, documents: Tensor | None, dropout_seed: int,
        checks: list[tuple[list[str], Tensor]] | None = None,
    ) -> Tensor:  # fmt: skip
        return self.model.loss(tokens, targets, documents, dropout_seed, checks)


class Gradients:
    """What the parameters' gradients become in a step, in one of the processes of a job."""

    def __init__(self, model: ReformerLM, config: TrainConfig, world: World) -> None:
        self.model, self.config, self.world = model, config, world
        self.seed = model.config.seed  # of dropout
        self.loss = world.wrap(Loss(model), config.fsdp)
        self.device = torch.device(world.device)
        self.hash_means = [b for name, b in model.named_buffers() if name.endswith("hash_mean")]
        self.places: list[str] = []  # that a GPU has checked in the step
        self.graphed = GraphedStep(self.whole, lambda: [p.grad for p in model.parameters()], self.device)

    def of(self, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        """(loss, norm of the gradient, what is wrong with them, if anything) of this process's rows and all others'.

        What a bad step did to the running means that forward keeps is undone; float16's scale, in progress, moves on.
        """
        kept = [c.clone() for c in self.hash_means]
        loss, norm, problem = self._in_one(read, progress) if self.in_one else self._in_parts(read, progress)
        if problem:
            for hash_mean, old in zip(self.hash_means, kept, strict=True):
                hash_mean.copy_(old)
        return loss, norm, problem

    @property
    def in_one(self) -> bool:
        """Whether a step is one piece of work, the same again and again, for a device that nobody waits for."""
        parts = self.world.size * self.config.accumulation_steps
        same = not self.model.config.dropout or self.model.sequence.fused is not None  # in which it reads its seed anew
        same = same and self.config.precision != "float16"
        return self.device.type == "cuda" and parts == 1 and same

    def then(self, update: Callable[[], None], capturable: bool) -> None:
        """Use the gradients up: from a graph of its own where they came from one and it can be captured."""
        if self.in_one and capturable:
            self.graphed.then(update)
        else:
            update()

    def whole(self, tokens: Tensor, targets: Tensor, documents: Tensor | None, seed: Tensor) -> Tensor:
        """Gradients of a batch in one part, clipped, without once waiting for the device: float64 (loss, norm, then for
        each of `places` whether it is at fault). seed: int64 [1], of dropout."""
        for p in self.model.parameters():
            p.grad = None
        checks: list[tuple[list[str], Tensor]] = []
        with products_in(self.config.precision, self.device.type):
            loss = self.model.loss(tokens, targets, documents, seed, checks)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_CLIP)
        self.places = [place for places, _ in checks for place in places]
        figures = torch.stack([loss.detach().double(), norm.double()])
        return torch.cat([figures, *((~fits).double() for _, fits in checks)])

    def _in_one(self, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        seed = torch.tensor([self._seed_of(progress)])
        figures, gradients = self.graphed(read.batch.tokens, read.batch.targets, read.batch.documents, seed)
        for p, gradient in zip(self.model.parameters(), gradients, strict=True):
            p.grad = gradient
        loss, norm, *faults = figures.tolist()  # the device is waited for once, when all is under way
        if any(faults):
            place = self.places[faults.index(1.0)]
            return math.nan, math.nan, str(self.model.fault_of(place))
        problem = "" if math.isfinite(norm) else f"gradient norm {norm}"
        return loss, norm, problem if math.isfinite(loss) else f"loss {loss}"

    def _in_parts(self, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        size = self.config.accumulation_steps
        total = torch.zeros((), dtype=widest(self.device), device=self.device)
        rows = [
            [None] * size if x is None else list(self.world.local_rows(x).chunk(size))
            for x in (read.batch.tokens, read.batch.targets, read.batch.documents)
        ]
        before, sums = [c.clone() for c in self.hash_means], [torch.zeros_like(c) for c in self.hash_means]
        for n, part in enumerate(zip(*rows, strict=True)):
            with self.world.no_sync(self.loss) if n < size - 1 else nullcontext():
                loss, problem = self._part(n, part, read.scored, progress)
            if problem:
                return math.nan, math.nan, problem
            total += loss
            if size > 1:  # as if the batch had come in one piece: each part moves the means from where they were
                for hash_mean, old, s in zip(self.hash_means, before, sums, strict=True):
                    s += hash_mean / size
                    hash_mean.copy_(s if n == size - 1 else old)
        unscale_(self.model.parameters(), self._scale(progress))
        length = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_CLIP))
        self.world.all_reduce_mean_(self.hash_means)
        mean, norm = torch.stack([total, length.to(total.dtype)]).tolist()  # the device is waited for once
        problem = "" if math.isfinite(norm) else f"gradient norm {norm}"
        if self.config.precision == "float16":
            problem += f", loss scale {self._scale(progress):g}" if problem else ""
            progress.scale, progress.steady = rescaled(progress.scale, progress.steady, bool(problem))
        return mean, norm, problem if math.isfinite(mean) else f"loss {mean}"

    def _part(
        self, n: int, rows: tuple[Tensor | None, ...], scored: int, progress: TrainState
    ) -> tuple[Tensor | float, str]:
        """Add a part's gradient; (what it adds to the batch's mean loss, what is wrong with it, if anything)."""
        problem, mean = "", None
        of_part = self._seed_of(progress) * self.config.accumulation_steps + n
        tokens, targets, documents = (x.to(self.device, non_blocking=True) if x is not None else None for x in rows)
        assert targets is not None
        # The share of the batch's targets that are this part's; processes' gradients are averaged, hence their number.
        weight = self.world.size * int((rows[1] != UNSCORED).sum()) / max(1, scored)  # type: ignore[union-attr]
        try:
            with products_in(self.config.precision, self.device.type):
                mean = self.loss(tokens, targets, documents, of_part) * weight
        except NumericalError as error:
            problem = str(error)
        loss: Tensor | float = mean.detach() if mean is not None else math.nan
        if self.world.size > 1:
            (total,) = self.world.all_reduce_sum([float(loss)])
            loss = total / self.world.size
            if not problem and not math.isfinite(loss):  # in another process: none goes on to backward
                problem = f"loss {loss}"
        if mean is None or problem:
            return math.nan, problem
        (mean * self._scale(progress)).backward()
        return loss, ""

    def _seed_of(self, progress: TrainState) -> int:
        """Of this process's dropout in the step."""
        return (self.seed * 1_000_003 + progress.step) * self.world.size + self.world.rank

    def _scale(self, progress: TrainState) -> float:
        """What the loss is multiplied with, so that float16 can hold its gradients; 1 in other precisions."""
        return progress.scale if self.config.precision == "float16" else 1.0
