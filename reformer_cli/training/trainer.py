"""The training loop: one step after another until the steps or the minutes are used up, or the user interrupts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from reformer import ReformerLM
from torch import Tensor

from reformer_cli.config.schema import TrainConfig
from reformer_cli.training.dataloader import DataLoader, Prefetcher
from reformer_cli.training.distributed import World, whole
from reformer_cli.training.divergence import DivergedError, is_spike
from reformer_cli.training.gradients import UNSCORED, Gradients, LoadedBatch
from reformer_cli.training.looks import SHARE, Looks
from reformer_cli.training.optimizers import capturable, make_optimizers, optimizer_tensors, prime, set_learning_rate
from reformer_cli.training.schedules import learning_rate
from reformer_cli.training.state import TrainState, plain, random_states, restore_random_states, train_state_of
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.signals import interruptible

BAD_STEPS = 5  # in a row without a finite loss and gradient, after which a run stops
SAVE_EVERY_MINUTES = 5.0

Ending = Literal["finished", "interrupted", "patience"]


@dataclass(frozen=True)
class Callbacks:
    """What the loop calls: validate(tokens) gives held-out bits/byte or None; evaluate() is called every so many steps
    and at the end (None: never); save gets a checkpoint's tensors and meta and whether it is the best; finish waits
    until all is saved; busy says that saving would have to wait; log gets a step's figures and seconds; warn a line.
    All but busy, log and warn are called in every process of a job."""

    validate: Callable[[int], float | None]
    save: Callable[[dict[str, Tensor], dict[str, Any], bool], None]
    finish: Callable[[], None]
    busy: Callable[[], bool]
    log: Callable[[dict[str, Any], float], None]
    warn: Callable[[str], None]
    byte_lengths: Tensor
    evaluate: Callable[[], None]
    validate_every: int | None = None  # None: as often as costs little
    evaluate_every: int | None = None


class Trainer:
    """A model, its optimisers and how far they are, in one of the processes of a job."""

    def __init__(
        self, model: ReformerLM, config: TrainConfig, loader: DataLoader, callbacks: Callbacks, world: World
    ) -> None:
        self.model, self.config, self.loader, self.callbacks, self.world = model, config, loader, callbacks, world
        self.gradients = Gradients(model, config, world)
        self.optimizers = make_optimizers(model, config)
        self.progress = TrainState()
        self.prefetcher = Prefetcher(self._read)
        self.looks = Looks(callbacks.validate_every, config.steps is None)

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        if self.config.steps:
            done = self.progress.step / self.config.steps
        else:
            assert self.config.minutes
            done = self.progress.seconds / (60 * self.config.minutes)
        if self.config.max_epochs:
            done = max(done, self.loader.epochs(self.progress.step, self.progress.stages) / self.config.max_epochs)
        return min(1.0, done)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint holds; of a job that shards, this process's parts."""
        found = {f"model.{name}": t.detach() for name, t in self.model.state_dict().items()}
        return found | optimizer_tensors(self.model, self.optimizers)

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors by name as the run's result, each in one piece."""
        return {name: whole(t.detach()) for name, t in self.model.state_dict().items()}

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """While the model is used outside a step, its parameters are in one piece."""
        parts: Any = self.gradients.loss
        if self.world.size == 1 or not self.config.fsdp:
            yield
            return
        parts.unshard()
        try:
            yield
        finally:
            parts.reshard()

    def restore(self, read: Callable[[dict[str, Tensor]], None], meta: dict[str, Any]) -> None:
        """Go on from a checkpoint, which `read` fills tensors from by name. UserError if it is another model's."""
        prime(self.optimizers)
        try:
            self.progress = train_state_of(meta["progress"])
            read(self.tensors())
            restore_random_states(meta["random"])
        except UserError:
            raise
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"the checkpoint does not fit this run's config ({' '.join(str(error).split())[:400]})",
                "was config.yaml edited?",
            ) from None

    def run(self) -> Ending:
        """Train to the end. Raises DivergedError."""
        saved, first = time.monotonic(), self.progress.step
        marked, saving, best = saved, 0.0, False
        with interruptible() as interrupted, closing(self.prefetcher):
            while (ending := self._ending(interrupted.is_set())) is None:
                self._step()
                best = self.looks.due(self.progress, self.share) and self._validate()
                if (every := self.callbacks.evaluate_every) and self.progress.step % every == 0 and self.share < 1.0:
                    self._evaluate()
                wait = max(60 * SAVE_EVERY_MINUTES, saving / SHARE)
                due = time.monotonic() - saved > wait and not self.callbacks.busy()
                before, marked = marked, time.monotonic()  # from here to here, so that what saving takes counts too
                self.progress.seconds, due = self._agreed(self.progress.seconds + marked - before, due)
                if (due or best) and self.share < 1.0:
                    began = time.monotonic()
                    self._save(best)
                    saved = time.monotonic()
                    saving = saved - began
                    if best:
                        self.progress.looking += self._main_process(saving)
            if self.progress.step > first or not self.progress.step:
                # Where nothing was validated yet, or nothing can be, the latest weights are the run's result. best: the
                # last validation took the rest of the time, and what it found best is not saved yet.
                best = (best or self._validate()) if ending == "finished" else self.progress.best is None
                if ending == "finished" and self.callbacks.evaluate_every:
                    self._evaluate()
                self._save(best)
            self.callbacks.finish()  # here, where a first Ctrl-C waits for it and a second does not
        return ending

    def _ending(self, interrupted: bool) -> Ending | None:
        if self.share >= 1.0:
            return "finished"
        if self.config.patience and self.progress.evals_without_best >= self.config.patience:
            return "patience"
        return "interrupted" if self.world.any_rank(interrupted) else None

    def _main_process(self, seconds: float) -> float:
        """What the main process measured, in each."""
        return float(self.world.broadcast([seconds])[0])

    def _agreed(self, seconds: float, due: bool) -> tuple[float, bool]:
        """The main process's clock: how long the run has taken, and whether to save."""
        seconds, flag = self.world.broadcast([seconds, float(due)])
        return seconds, bool(flag)

    def _read(self, step: int, begun: tuple[int, ...]) -> LoadedBatch:
        batch = self.loader.batch_at(step, begun)
        scored = batch.targets != UNSCORED
        n_bytes = float(self.callbacks.byte_lengths[batch.targets.clamp_min(0)][scored].sum())
        return LoadedBatch(batch, n_bytes, int(scored.sum()))

    def _step(self) -> None:
        began, progress = time.perf_counter(), self.progress
        self.loader.advance(progress.stages, progress.step, self.share)
        read = self.prefetcher.take(progress.step, progress.stages)
        rate = learning_rate(self.share, self.config)
        self.model.train()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        set_learning_rate(self.optimizers, rate)
        before, scale = time.perf_counter(), progress.scale
        loss, norm, problem = self.gradients.of(read, progress)
        if problem:
            self._skip(problem, scale > progress.scale)
        else:
            self.gradients.then(self._update, capturable(self.optimizers))
            progress.bad_steps = 0
        computed = time.perf_counter() - before
        progress.step += 1
        progress.tokens += read.batch.tokens.numel()
        spike = math.isfinite(loss) and is_spike(progress, loss)
        if spike:
            self.callbacks.warn(f"step {progress.step:,}: loss {loss:.3f} jumps from about {progress.loss_mean:.3f}")
        seconds = time.perf_counter() - began
        record: dict[str, Any] = {
            "step": progress.step,
            "loss": _finite(loss),
            "bits_per_byte": _finite(loss * read.scored / math.log(2) / max(1.0, read.n_bytes)),
            "learning_rate": rate,
            "gradient_norm": _finite(norm),
            "tokens": progress.tokens,
            "context": read.batch.tokens.shape[1],
            "seconds": round(progress.seconds + seconds, 3),
            "tokens_per_second": read.batch.tokens.numel() / seconds,
            "step_seconds": round(computed, 6),
            "data_seconds": round(self.prefetcher.waited, 6),
        }
        record |= ({"spike": True} if spike else {}) | ({"skipped": problem} if problem else {})
        self.callbacks.log(record, seconds)

    def _update(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def _skip(self, problem: str, overflow: bool) -> None:
        """overflow: of float16, which the next step's smaller scale may avoid."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.progress.bad_steps += not overflow
        self.progress.skipped += 1
        self.callbacks.warn(f"step {self.progress.step + 1:,} left out: {problem} ({self.progress.skipped} so far)")
        if self.progress.bad_steps >= BAD_STEPS:
            raise DivergedError(self.progress.step + 1, f"{problem}; {BAD_STEPS} times in a row")

    def _validate(self) -> bool:
        """Whether this is the best so far; without held-out text the latest is."""
        progress, began = self.progress, time.monotonic()
        self.model.eval()
        found = self.callbacks.validate(self.looks.tokens(progress, self.share))
        self.looks.took(progress, self.share, self._main_process(time.monotonic() - began))
        good = found is None or math.isfinite(found)
        better = good and (found is None or progress.best is None or found < progress.best)
        if better:
            progress.best, progress.best_step = found, progress.step
        progress.evals_without_best = 0 if better else progress.evals_without_best + 1
        return better

    def _evaluate(self) -> None:
        self.model.eval()
        self.callbacks.evaluate()

    def _save(self, best: bool) -> None:
        self.callbacks.save(self.tensors(), {"progress": plain(self.progress), "random": random_states()}, best)


def _finite(x: float) -> float | None:
    """JSON has no NaN."""
    return x if math.isfinite(x) else None
