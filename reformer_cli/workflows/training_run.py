"""What `reformer train` ties together: text, model, optimiser, run directory and display, in every process of a job."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from reformer import ReformerLM
from safetensors import SafetensorError

from reformer_cli.data.batches import ValidationWindows
from reformer_cli.data.copy_task import find
from reformer_cli.data.dataset import Dataset
from reformer_cli.evaluation.likelihood import Score
from reformer_cli.evaluation.periodic import Evaluations
from reformer_cli.evaluation.scorers import ContextRule
from reformer_cli.runs.background_save import Writer
from reformer_cli.runs.checkpoints import read_meta, read_tensors, tensor_names
from reformer_cli.runs.origin import Origin
from reformer_cli.runs.run import Run
from reformer_cli.runs.starter import NAME
from reformer_cli.tokenizers.line_widths import lengths_on_lines
from reformer_cli.training.cost import card_of
from reformer_cli.training.dataloader import data_loader
from reformer_cli.training.display import Display, peak_memory
from reformer_cli.training.distributed import OtherProcessFailed, World
from reformer_cli.training.divergence import DivergedError, check_finite
from reformer_cli.training.state import seed_generators
from reformer_cli.training.tensorboard import board_of
from reformer_cli.training.trainer import Callbacks, Ending, Trainer
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import as_time
from reformer_cli.workflows import choose_settings
from reformer_cli.workflows.training_messages import nothing_left, of_other_times, off_forecast
from reformer_cli.workflows.validation import effective_buckets, held_out, probe_of, sample_text, score

SCORING, LEAST_SCORING = 0.1, 10.0  # share of the run that scoring at the end may take, and seconds it always may
SAMPLING, LEAST_SAMPLING = 0.002, 1.0  # share of a run of minutes that a sample may take, and seconds it always may
COMPARED_AFTER = 60.0  # seconds of a run, when its speed is held against the forecast
SAMPLE_TOKENS = 100  # of a text printed and logged at each validation


def result_of(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A run's result, from what its checkpoint holds."""
    return {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}


class TrainingRun:
    """One call of the command, in one of the processes of a job; checkpoint: the folder it goes on from; forecast: of
    tokens/s, where there is one."""

    def __init__(
        self, world: World, run: Run, dataset: Dataset, checkpoint: Path | None, forecast: float | None = None
    ) -> None:
        self.forecast = forecast
        self.card = card_of(torch.cuda.get_device_name(world.device)) if world.device.startswith("cuda") else None
        self.world, self.run, self.dataset, self.checkpoint = world, run, dataset, checkpoint
        self.config, self.unit = run.config, f"bits/{run.config.data.unit}"
        self.loader = data_loader(run.config, dataset)
        self.writer = Writer(
            choose_settings.copy_fits(run.config, world.device), self._warn, lambda: bool(run.checkpoints.all())
        )
        self.windows = ValidationWindows(dataset.tokens, run.config.data.context)
        self.model = ReformerLM(run.config.model, head_bias=_has_head_bias(checkpoint or run.path)).to(world.device)

    def train(self) -> None:
        """Train until done or interrupted, and say what came of it."""
        if (lines := self.model.line_positions) is not None:
            lines.set_token_widths(*map(torch.from_numpy, lengths_on_lines(self.dataset.tokenizer)))
        board = board_of(self.run.path, self.world.is_main and self.config.train.tensorboard)
        with Display(self.world.device, self.unit, silent=not self.world.is_main) as self.display, board as self.board:
            self.trainer = Trainer(self.model, self.config.train, self.loader, self._callbacks(), self.world)
            if self.checkpoint is not None:
                folder, together = self.checkpoint, self.world.size > 1
                self.trainer.restore(lambda tensors: read_tensors(folder, tensors, together), read_meta(folder))
                if self.trainer.share >= 1:
                    epochs = self.loader.epochs(self.trainer.progress.step, self.trainer.progress.stages)
                    self.display.say(nothing_left(self.run.path, self.trainer.progress, self.config.train, epochs))
                    return
            else:
                seed_generators(self.config.model.seed)
            try:
                ending = self.trainer.run()
            except DivergedError as error:
                raise self._diverged(error) from None
        self._say(ending)

    def _diverged(self, error: DivergedError) -> UserError:
        """With what is still good."""
        if not self.world.is_main:
            return OtherProcessFailed(error.what)
        with suppress(DivergedError):  # the same may be found in what was to be written
            self.writer.collect()
        good = self.run.checkpoints.newest_whole()
        last = f"the last good checkpoint is {good}" if good is not None else "there is no checkpoint yet"
        return UserError(
            f"training diverged at step {error.step:,} ({error.what})",
            f"{last}; lower train.learning_rate {self.config.train.learning_rate:g}",
        )

    def _say(self, ending: Ending) -> None:
        progress, path = self.trainer.progress, self.run.path
        epochs = self.loader.epochs(progress.step, progress.stages)
        done = f"{progress.step:,} steps, {as_time(progress.seconds)}, {epochs:.1f} epochs"
        if progress.skipped:
            done += f", {progress.skipped} of the steps left out"
        if ending == "interrupted":
            self.display.say(f"stopped after {done}; saved. Go on with: reformer train --resume --run {path}")
            return
        if ending == "patience":
            best = (
                f"{progress.best:.3f} {self.unit} at step {progress.best_step:,}" if progress.best is not None else "-"
            )
            self.display.say(
                f"stopped after {done}: {progress.evals_without_best} validations without a better one than {best}"
            )
        else:
            self.display.say(f"finished: {done}")
            most = self.config.train.max_epochs
            if most and epochs >= most:
                self.display.say(f"read {most:g} times, as train.max_epochs says: more would overfit")
        if self.world.is_main:
            self._conclude()

    def _conclude(self) -> None:
        """The best weights' score on what was held out, all of it where that does not take too long."""
        if self.windows:
            seconds = max(LEAST_SCORING, SCORING * self.trainer.progress.seconds)
            context = self.config.data.context
            found = held_out(
                self.run.load_model(self.world.device), self.windows, self.dataset.tokenizer, self._rule(), context,
                seconds, self.display.say,
            )  # fmt: skip
            self.display.say(f"held out: {found.line(self.unit)}")
            origin = Origin.read(self.run.path)
            if self.config.train.minutes and origin in (None, Origin("run", NAME)):
                told = of_other_times(
                    found.score.bits_per_byte, self.trainer.progress, self.config, self.dataset.tokens,
                    begun=origin is not None,
                )  # fmt: skip
                if told:
                    self.display.say(told)
            self.display.say(
                f"  ({self.unit}: how many yes-or-no answers the model still needs for each "
                f"{self.unit.removeprefix('bits/')} of text that it never saw; less is better)"
            )
        images = self.config.data.image_size is not None
        ask = "--image HALF.png --output WHOLE.png" if images else "--prompt 'Once upon a time'"
        self.display.say(f"next: reformer generate --run {self.run.path} {ask}")

    def _validate(self, tokens: int) -> float | None:
        """Held-out bits/byte, the windows being shared by the processes; None where nothing was held out.

        tokens: that are worked on, about, of which eval.tokens at most are scored."""
        if not self.windows:
            self._show_sample()
            return None
        images, context = self.config.data.image_size is not None, self.config.data.context
        probe = probe_of(self.windows, tokens, self.config.eval.tokens, context, images)
        with self.trainer.gathered():
            mine = probe.windows[self.world.rank :: self.world.size]
            part = score(self.model, mine, self.dataset.tokenizer, self._rule(), probe.each)
            n_tokens, n_bytes, nats = self.world.all_reduce_sum([part.tokens, part.bytes, part.nats])
            buckets = effective_buckets(self.model, self.windows[0], context)
        found = Score(int(n_tokens), n_bytes, 0, 0, nats)
        step = self.trainer.progress.step
        record: dict[str, Any] = {"step": step, "val_bits_per_byte": found.bits_per_byte, "val_tokens": found.tokens}
        record |= {"effective_buckets": buckets, "peak_bytes": peak_memory(self.world.device)}
        self._log(record)
        self.display.say(
            f"step {step:,}  held out {found.bits_per_byte:.3f} {self.unit} (the same {found.tokens:,} tokens of "
            f"{self.windows.total:,} each time)"
        )
        self._show_sample()
        return found.bits_per_byte

    def _show_sample(self) -> None:
        if not SAMPLE_TOKENS or self.config.data.image_size is not None:
            return
        with self.trainer.gathered():
            sample = self._sampled() if self.world.is_main else ""
        if sample:
            self._log({"step": self.trainer.progress.step, "sample": sample})
            self.display.say(f"what it writes by itself now:\n{sample}")

    def _warn(self, text: str) -> None:
        self.display.say(f"warning: {text}")

    def _log(self, record: dict[str, Any]) -> None:
        if self.world.is_main:
            self.run.log(record)
            self.board.log(record)

    def _log_step(self, record: dict[str, Any], seconds: float) -> None:
        record["peak_bytes"] = peak_memory(self.world.device)
        if self.card is not None:  # of the product speed of all cards
            step = choose_settings.step_of(self.config, self.world.device)
            used = self.card.product_share(step, step.batch * step.context / record["tokens_per_second"])
            record["product_share"] = round(used / self.world.size, 4)
        self._log(record)
        self.display.step(record, self.trainer.share, self.trainer.progress.seconds)
        progress, minutes = self.trainer.progress, self.config.train.minutes
        if self.forecast is not None and minutes and progress.seconds >= COMPARED_AFTER:
            if told := off_forecast(progress.tokens / progress.seconds, self.forecast, minutes):
                self.display.say(told)
            self.forecast = None

    def _save(self, tensors: dict[str, Any], meta: dict[str, Any], best: bool) -> None:
        """A checkpoint, and before it, if this is the best so far, the run's result.

        In this order: a run that is killed between the two takes the steps since the last checkpoint once more, and
        finds the best again.
        """
        run, progress = self.run, self.trainer.progress
        step, best_step = progress.step, progress.best_step
        meta = meta | {"metrics": run.metrics_size()}
        if self.world.size > 1 and self.config.train.fsdp:
            weights = self.trainer.weights() if best else {}
            check_finite(step, tensors)
            if best and self.world.is_main:
                run.save_weights(weights)
            run.checkpoints.save_together(step, tensors, meta, best_step, self.world.is_main, self.world.barrier)
        elif self.world.is_main:
            copy = {name: t.detach().to("cpu", copy=self.writer.background) for name, t in tensors.items()}

            def write() -> None:
                check_finite(step, copy)
                if best:
                    run.save_weights(result_of(copy))
                run.checkpoints.save(step, copy, meta, best_step)

            self.writer.submit(write)

    def _callbacks(self) -> Callbacks:
        return Callbacks(
            validate=self._validate,
            save=self._save,
            finish=lambda: self.writer.collect(final=True),
            busy=lambda: self.writer.busy,
            log=self._log_step,
            warn=self._warn,
            byte_lengths=torch.from_numpy(self.dataset.tokenizer.byte_lengths()),
            evaluate=self._evaluate,
            validate_every=self.config.eval.every,
            evaluate_every=self.config.eval.tests_every,
        )

    def _evaluate(self) -> None:
        """What `eval.tests_every` asks for; the other processes wait."""
        began = time.monotonic()
        with self.trainer.gathered():
            found = self._evaluations().of(self.model) if self.world.is_main else {}
        self.world.barrier()
        if self.world.is_main:
            found["seconds"] = round(time.monotonic() - began, 1)
            step = self.trainer.progress.step
            self._log({"step": step, "evaluation": found})
            self.display.say(f"step {step:,}  evaluated in {found['seconds']} s. {found.get('verdict', '')}".rstrip())

    def _evaluations(self) -> Evaluations:
        return Evaluations(
            self.config.eval, self.dataset.tokenizer, self.dataset.tokens, self.windows, self._rule(),
            find(self.config.data.corpus),
        )  # fmt: skip

    def _rule(self) -> ContextRule:
        """Everything before a token where that can be, else as much as positions or training allow."""
        model = self.config.model
        if self.config.data.image_size is not None:
            return ContextRule.for_images(model, self.config.data.context)
        return ContextRule.for_model(model, self.config.data.context, None if model.chunked else model.max_length, None)

    def _sampled(self) -> str:
        try:
            return self._sample()
        except Exception as error:  # whatever it is: no reason to lose a run
            self._warn(f"no sample could be drawn ({type(error).__name__}: {error})")
            return ""

    def _sample(self) -> str:
        minutes = self.config.train.minutes
        longest = max(LEAST_SAMPLING, SAMPLING * 60 * minutes) if minutes else math.inf
        return sample_text(self.model, self.dataset.tokenizer, SAMPLE_TOKENS, longest)


def _has_head_bias(folder: Path) -> bool:
    """Whether the weights that training goes on from have one; damaged files are refused where they are read."""
    try:
        return any(name.endswith("head.bias") for name in tensor_names(folder))
    except SafetensorError:
        return False
