"""What `reformer train` ties together: text, model, optimiser, run directory and display, in every process of a job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reformer_cli.config import RunConfig
    from reformer_cli.evaluation.during import Evaluations
    from reformer_cli.evaluation.likelihood import Reading, Score
    from reformer_cli.runs import Run
    from reformer_cli.tokenization.batches import Batches, Windows
    from reformer_cli.tokenization.shards import Prepared
    from reformer_cli.tokenization.synthetic import DuplicateBatches
    from reformer_cli.training.distributed import World
    from reformer_cli.training.loop import Hooks

STATISTICS_TOKENS, STATISTICS_NEAREST = 4096, 16  # of the hash, at each validation


def batches_of(config: RunConfig, prepared: Prepared) -> Batches | DuplicateBatches:
    """What the steps of a run read. Raises UserError for a text that is too short."""
    from reformer_cli.tokenization.batches import Batches
    from reformer_cli.tokenization.synthetic import DuplicateBatches, find

    data, train = config.data, config.train
    if (source := find(data.corpus)) is not None:
        return DuplicateBatches(source, data.context, train.batch, train.seed)
    return Batches(
        prepared.tokens, prepared.tokenizer.end, data.context, train.batch, train.seed, data.image_size is not None
    )


class Session:
    """One call of the command, in one of the processes of a job; checkpoint: the folder it goes on from."""

    def __init__(self, world: World, run: Run, prepared: Prepared, checkpoint: Path | None) -> None:
        from reformer import ReformerLM

        from reformer_cli.tokenization.batches import LEAST_SCORED, held_out_windows

        self.world, self.run, self.prepared, self.checkpoint = world, run, prepared, checkpoint
        self.config, self.unit = run.config, f"bits/{run.config.data.unit}"
        self.batches = batches_of(run.config, prepared)
        self.windows = held_out_windows(prepared.tokens, run.config.data.context)
        least = run.config.data.context if run.config.data.image_size is not None else LEAST_SCORED
        self.probes = self.windows.some(run.config.train.eval_tokens, least)  # what a validation during the run scores
        self.model = ReformerLM(run.config.model).to(world.device)

    def train(self) -> None:
        """Train until done or interrupted, and say what came of it."""
        from reformer_cli.runs import checkpoint_meta, read_checkpoint
        from reformer_cli.training.loop import Trainer
        from reformer_cli.training.metrics import Display, as_time

        with Display(self.world.device, self.unit, silent=not self.world.chief) as self.display:
            self.trainer = Trainer(self.model, self.config.train, self._hooks(), self.world)
            if (folder := self.checkpoint) is not None:
                together = self.world.size > 1
                self.trainer.restore(
                    lambda tensors: read_checkpoint(folder, tensors, together), checkpoint_meta(folder)
                )
            finished = self.trainer.run()
            progress = self.trainer.progress
            epochs = self.batches.epoch_of(progress.step)
            done = f"{progress.step:,} steps, {as_time(progress.seconds)}, {epochs:.1f} epochs"
            if finished:
                self.display.say(f"finished: {done}")
                if self.world.chief:
                    self._conclude()
                return
            if progress.best is None:
                self._save_best()
            self.display.say(f"stopped after {done}; saved. Go on with: reformer train --resume --run {self.run.path}")

    def _conclude(self) -> None:
        """The best weights' score on all that was held out."""
        if self.windows:
            score = self._score(self.run.load_model(self.world.device), self.windows, None)
            self.display.say(
                f"held out: {score.bits_per_byte:.3f} {self.unit}, perplexity {score.perplexity:.1f} a token "
                f"({score.tokens:,} tokens, {round(score.bytes):,} bytes, never trained on)"
            )
        images = self.config.data.image_size is not None
        ask = "--image HALF.png --output WHOLE.png" if images else "--prompt 'Once upon a time'"
        self.display.say(f"next: reformer generate --run {self.run.path} {ask}")

    def _score(self, model: Any, windows: Windows, limit: int | None) -> Score:
        """Held-out parts after as much of their documents as a training step reads; at most `limit` tokens."""
        from reformer_cli.evaluation.likelihood import Score, nats

        total = Score(0, 0.0, 0, 0, 0.0)
        lengths = self.prepared.tokenizer.byte_lengths()
        each = None if limit is None else max(1, limit // len(self.probes))
        for window in windows:
            scored = window.scored[:each]
            n_bytes = float(lengths[scored.numpy()].sum())
            total += Score(len(scored), n_bytes, 0, 0, nats(model, window.prefix, scored, self._reading()))
            if limit is not None and total.tokens >= limit:
                break
        return total

    def _validate(self) -> float | None:
        """Held-out bits/byte, the windows being shared by the processes; None where nothing was held out."""
        from reformer_cli.evaluation.likelihood import Score
        from reformer_cli.training.metrics import peak_memory

        if not self.windows:
            return None
        with self.trainer.gathered():
            mine = self.probes[self.world.rank :: self.world.size]
            part = self._score(self.model, mine, self.config.train.eval_tokens)
            tokens, n_bytes, nats = self.world.sum([part.tokens, part.bytes, part.nats])
            buckets = self._effective_buckets()
            sample = self._sample() if self.config.train.sample_tokens and self.world.chief else ""
        score = Score(int(tokens), n_bytes, 0, 0, nats)
        step = self.trainer.progress.step
        record: dict[str, Any] = {
            "step": step,
            "held_out_bits_per_byte": score.bits_per_byte,
            "held_out_tokens": score.tokens,
        }
        record |= {"effective_buckets": buckets, "peak_bytes": peak_memory(self.world.device)}
        self._log(record)
        self.display.say(f"step {step:,}  held out {score.bits_per_byte:.3f} {self.unit}")
        if sample:
            self.display.say(sample)
        return score.bits_per_byte

    def _log(self, record: dict[str, Any]) -> None:
        if self.world.chief:
            self.run.log(record)

    def _log_step(self, record: dict[str, Any], seconds: float) -> None:
        self._log(record)
        self.display.step(record, self.trainer.share, self.trainer.progress.seconds)

    def _save_best(self) -> None:
        weights = self.trainer.weights()
        if self.world.chief:
            self.run.save_weights(weights)

    def _save(self, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        step = int(meta["step"])
        if self.world.size > 1 and self.config.train.shard:
            self.run.save_checkpoint_together(step, tensors, meta, self.world.chief, self.world.wait)
        else:
            if self.world.chief:
                self.run.save_checkpoint(step, tensors, meta)
            self.world.wait()

    def _hooks(self) -> Hooks:
        import torch

        from reformer_cli.training.loop import Hooks

        return Hooks(
            batch_at=self.batches.batch_at,
            validate=self._validate,
            save_best=self._save_best,
            save=self._save,
            log=self._log_step,
            byte_lengths=torch.from_numpy(self.prepared.tokenizer.byte_lengths()),
            evaluate=self._evaluate,
            evaluate_every=self.config.eval.every,
        )

    def _effective_buckets(self) -> list[float]:
        """Of each LSH layer, on held-out text: rounds and heads averaged. A collapse to few shows here first."""
        import torch
        from reformer.statistics import hash_statistics

        window = self.windows[0]
        text = torch.cat([window.prefix, window.scored])[-min(STATISTICS_TOKENS, self.config.data.context) :]
        if len(text) <= STATISTICS_NEAREST:
            return []
        found = hash_statistics(self.model, text[None].to(self.world.device), nearest=STATISTICS_NEAREST, queries=1)
        return [round(float(s.effective_buckets.mean()), 1) for s in found]

    def _evaluate(self) -> None:
        """What `eval.every` asks for; the other processes wait."""
        began = time.monotonic()
        with self.trainer.gathered():
            found = self._evaluations().of(self.model) if self.world.chief else {}
        self.world.wait()
        if self.world.chief:
            found["seconds"] = round(time.monotonic() - began, 1)
            step = self.trainer.progress.step
            self._log({"step": step, "evaluation": found})
            self.display.say(f"step {step:,}  evaluated in {found['seconds']} s. {found.get('verdict', '')}".rstrip())

    def _evaluations(self) -> Evaluations:
        from reformer_cli.evaluation.during import Evaluations
        from reformer_cli.tokenization.synthetic import find

        return Evaluations(
            self.config.eval, self.prepared.tokenizer, self.prepared.tokens, self.windows, self._reading(),
            find(self.config.data.corpus),
        )  # fmt: skip

    def _reading(self) -> Reading:
        """Everything before a token where that can be, else as much as positions or training allow."""
        from reformer_cli.evaluation.likelihood import reading_of, reading_of_images

        model = self.config.model
        if self.config.data.image_size is not None:
            return reading_of_images(model, self.config.data.context)
        return reading_of(
            model, self.config.data.context, None if model.pattern == "published" else model.max_length, None
        )

    def _sample(self) -> str:
        from reformer_cli.sampling.make import generate

        return "".join(generate(self.model, self.prepared.tokenizer, max_tokens=self.config.train.sample_tokens))
