"""The training loop: one step after another until the steps or the minutes are used up, or the user interrupts."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Protocol

import torch
from reformer import NumericalError, ReformerLM
from torch import Tensor, nn

from reformer_cli.config import TrainConfig
from reformer_cli.errors import UserError
from reformer_cli.training.distributed import World, whole
from reformer_cli.training.optim import make_optimizer, optimizer_tensors, prime
from reformer_cli.training.schedule import learning_rate

MOST_BAD_STEPS = 5  # in a row, before a run gives up
VALIDATIONS = 10  # of a run where eval_every is not given


class Batch(Protocol):
    """What a step reads; see tokenization.batches."""

    @property
    def tokens(self) -> Tensor: ...
    @property
    def targets(self) -> Tensor: ...
    @property
    def documents(self) -> Tensor | None: ...


@dataclass
class Progress:
    """How far a run has got; all that a checkpoint needs beside the tensors. best: lowest held-out bits/byte."""

    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    validated: int = 0  # validations done
    bad: int = 0  # steps skipped in a row


@dataclass(frozen=True)
class Hooks:
    """What the loop calls: validate() gives held-out bits/byte or None, evaluate() is called every so many steps and at
    the end (None: never), save gets a checkpoint's tensors and progress, log a step's figures and seconds. All but log
    are called in every process of a job."""

    batch_at: Callable[[int], Batch]
    validate: Callable[[], float | None]
    save_best: Callable[[], None]
    save: Callable[[dict[str, Tensor], dict[str, Any]], None]
    log: Callable[[dict[str, Any], float], None]
    byte_lengths: Tensor
    evaluate: Callable[[], None]
    evaluate_every: int | None = None


class Loss(nn.Module):
    """The loss as a module's forward, which is what DDP and FSDP act on."""

    def __init__(self, model: ReformerLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor, documents: Tensor | None, dropout_seed: int) -> Tensor:
        return self.model.loss(tokens, targets, documents, dropout_seed=dropout_seed)


class Trainer:
    """A model, its optimiser and how far they are, in one of the processes of a job."""

    def __init__(self, model: ReformerLM, config: TrainConfig, hooks: Hooks, world: World) -> None:
        self.model, self.config, self.hooks, self.world = model, config, hooks, world
        self.loss = world.wrapped(Loss(model), config.shard)
        self.optimizer = make_optimizer(model, config)
        self.progress = Progress()
        self.device = torch.device(world.device)

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        if self.config.steps:
            return min(1.0, self.progress.step / self.config.steps)
        assert self.config.minutes
        return min(1.0, self.progress.seconds / (60 * self.config.minutes))

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint holds; of a job that shards, this process's parts."""
        weights = {f"model.{name}": t.detach() for name, t in self._state().items()}
        return weights | optimizer_tensors(self.model, self.optimizer)

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors by name, each in one piece."""
        return {name: whole(t.detach()) for name, t in self._state().items()}

    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.model.state_dict()
        if self.model.config.tie_embeddings:
            state.pop("head.weight")
        return state

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """While the model is used outside a step, its parameters are in one piece."""
        parts: Any = self.loss
        if self.world.size == 1 or not self.config.shard:
            yield
            return
        parts.unshard()
        try:
            yield
        finally:
            parts.reshard()

    def restore(self, read: Callable[[dict[str, Tensor]], None], meta: dict[str, Any]) -> None:
        """Go on from a checkpoint, which `read` fills tensors from by name. UserError if it is another model's."""
        prime(self.optimizer)
        try:
            read(self.tensors())
            self.progress = Progress(**meta)
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"the checkpoint does not fit this run's config ({error})", "was config.yaml edited?"
            ) from None

    def run(self) -> bool:
        """Train to the end; False if the user interrupted. Raises UserError when training diverges."""
        saved = time.monotonic()
        with _interruptible() as interrupted:
            while self.share < 1.0 and not self.world.any(interrupted.is_set()):
                began = time.monotonic()
                self._step()
                if self._validation_due():
                    self._validate()
                if (every := self.hooks.evaluate_every) and self.progress.step % every == 0 and self.share < 1.0:
                    self._evaluate()
                due = time.monotonic() - saved > 60 * self.config.save_every_minutes
                self.progress.seconds, due = self._agreed(self.progress.seconds + time.monotonic() - began, due)
                if due and self.share < 1.0:
                    self._save()
                    saved = time.monotonic()
            if self.share >= 1.0 and self.progress.step:
                self._validate()
                if self.hooks.evaluate_every:
                    self._evaluate()
            self._save()
        return self.share >= 1.0

    def _agreed(self, seconds: float, due: bool) -> tuple[float, bool]:
        """The chief's clock: how long the run has taken, and whether to save."""
        seconds, flag = self.world.chosen([seconds, float(due)])
        return seconds, bool(flag)

    def _step(self) -> None:
        began, progress = time.monotonic(), self.progress
        batch = self.hooks.batch_at(progress.step)
        rate = learning_rate(self.share, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss, norm, problem = self._gradients(batch)
        if problem:
            self._skip(problem)
        else:
            self.optimizer.step()
            progress.bad = 0
        progress.step += 1
        seconds = time.monotonic() - began
        scored = batch.targets[batch.targets >= 0]  # of made text, not all are
        n_bytes = float(self.hooks.byte_lengths[scored].sum())
        nats = loss * scored.numel()
        record = {
            "step": progress.step,
            "loss": _finite(loss),
            "bits_per_byte": _finite(nats / math.log(2) / max(1.0, n_bytes)),
            "learning_rate": rate,
            "gradient_norm": _finite(norm),
            "tokens_per_second": batch.tokens.numel() / seconds,
        }
        self.hooks.log(record, seconds)

    def _gradients(self, batch: Batch) -> tuple[float, float, str]:
        """(loss, norm of the gradient, what is wrong with them, if anything) of this process's rows and all others'."""
        low, problem, loss = self.config.precision == "bfloat16", "", math.nan
        seed = (self.config.seed * 1_000_003 + self.progress.step) * self.world.size + self.world.rank
        rows = [
            self.world.share(x).to(self.device) if x is not None else None
            for x in (batch.tokens, batch.targets, batch.documents)
        ]
        mean = None
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
                mean = self.loss(*rows, seed)
            loss = float(mean.detach())
        except NumericalError as error:
            problem = str(error)
        (total,) = self.world.sum([loss])
        if not math.isfinite(total) or mean is None:  # in one process or another: none goes on to backward
            return math.nan, math.nan, problem or f"loss {total / self.world.size}"
        mean.backward()
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)))
        self.world.average_([b for name, b in self.model.named_buffers() if name.endswith("centre")])
        return total / self.world.size, norm, "" if math.isfinite(norm) else f"gradient norm {norm}"

    def _skip(self, problem: str) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.bad += 1
        if self.progress.bad >= MOST_BAD_STEPS:
            raise UserError(
                f"training diverged at step {self.progress.step + 1:,} ({problem}; {MOST_BAD_STEPS} times in a row)",
                f"the last checkpoint and the best weights are as they were; lower train.learning_rate "
                f"{self.config.learning_rate:g}",
            )

    def _validation_due(self) -> bool:
        if self.config.eval_every:
            return self.progress.step % self.config.eval_every == 0 and self.share < 1.0
        return int(self.share * VALIDATIONS) > self.progress.validated and self.share < 1.0

    def _validate(self) -> None:
        self.progress.validated = max(self.progress.validated + 1, int(self.share * VALIDATIONS))
        self.model.eval()
        found = self.hooks.validate()
        if found is None or self.progress.best is None or found < self.progress.best:
            self.progress.best = found
            self.hooks.save_best()

    def _evaluate(self) -> None:
        self.model.eval()
        self.hooks.evaluate()

    def _save(self) -> None:
        self.hooks.save(self.tensors(), asdict(self.progress))


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM sets the event, so that a step is finished and saved; a second one stops at once."""
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finite(x: float) -> float | None:
    """JSON has no NaN."""
    return x if math.isfinite(x) else None
