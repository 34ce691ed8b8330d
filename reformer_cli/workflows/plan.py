"""What a training would take and come to, before it begins: memory, speed, bits/byte; here or on another machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from reformer import ReformerLM
from reformer.memory import Item

from reformer_cli.config.load import load_config, resolve
from reformer_cli.config.schema import RunConfig, Settings
from reformer_cli.data.dataset import absolute, options_of
from reformer_cli.data.make_tokenizer import as_bytes
from reformer_cli.data.scan import Scan, scanned
from reformer_cli.tokenizers.base import ByteTokenizer, PixelTokenizer
from reformer_cli.training import learning
from reformer_cli.training.auto_config import AutoSetting, Text
from reformer_cli.training.cost import Card, card_named, rounded
from reformer_cli.training.display import peak_memory
from reformer_cli.training.distributed import World
from reformer_cli.training.fit_memory import memory_hints
from reformer_cli.training.memory import Step, forecast, hidden_numbers, kept_on_gpu, largest_context, largest_depth
from reformer_cli.training.mixed_precision import pick_precision, products_in
from reformer_cli.training.optimizers import make_optimizers, optimizer_tensors, prime
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import free_memory, keep_freed_memory, pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import as_size
from reformer_cli.workflows.choose_settings import GPU_WORKSPACE, Chooser, step_of, text_of
from reformer_cli.workflows.choose_start import AUTO, NONE, sample, starter_or_new
from reformer_cli.workflows.init_from import Start

VOCAB_SIZE = 4096  # assumed where data.vocab_size is left to the corpus
MINUTES = 10.0  # where nothing says how long
NOVEL = Text(1_100_000)  # what is assumed where sizes are to be chosen and no text is named


@dataclass(frozen=True)
class TrainingPlan:
    """config: of the run; step: of it; limit: bytes there are; card: the machine, where its speed is known; text: what
    would be read; chosen: settings that nobody named; begins_with: a run, and untrained: the bits/byte with which that
    predicts the text, where it was looked at."""

    config: RunConfig
    step: Step
    limit: int
    card: Card | None = None
    text: Text | None = None
    chosen: Sequence[AutoSetting] = ()
    begins_with: str | None = None
    untrained: float | None = None

    @property
    def minutes(self) -> float:
        assert self.config.train.minutes is not None
        return self.config.train.minutes

    @property
    def kept(self) -> bool:
        """Whether activations have room on a GPU."""
        return self.step.total + kept_on_gpu(self.step) <= self.limit

    @property
    def tokens_per_second(self) -> float:
        assert self.card is not None
        return self.step.batch * self.step.context / self.card.seconds(self.step, self.kept)

    @property
    def tokens(self) -> float:
        """That are read in the minutes, or before, where more would overfit."""
        could, most = 60 * self.minutes * self.tokens_per_second, self.config.train.max_epochs
        if self.text is None or not most:
            return could
        return min(could, most * self.text.tokens_by(self.step.model.vocab_size))

    @property
    def expected(self) -> float | None:
        """Bits/byte after the minutes, about; None where nothing is read, or nobody knows the law (another model than
        the starter goes on, or it reads images)."""
        if self.text is None or self.card is None or self.config.data.image_size is not None:
            return None
        model = self.step.model
        read = self.tokens * self.text.bytes / self.text.tokens_by(model.vocab_size)
        if self.begins_with is not None:
            return learning.continued(self.untrained, read, self.text.bytes) if self.untrained is not None else None
        documents, entropy = self.text.documents, self.text.entropy
        return learning.bits_per_byte(
            hidden_numbers(model), read, self.text.bytes, model.vocab_size, documents, entropy
        )

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        found: dict[str, Any] = {"total_bytes": self.step.total, "limit_bytes": self.limit}
        items = [{"name": item.name, "bytes": item.size, "what": item.what} for item in forecast(self.step)]
        found |= {"from": self.begins_with, "untrained_bits_per_byte": self.untrained}
        found |= {"fits": self.step.total <= self.limit, "items": items}
        found["largest_context"] = largest_context(self.step, self.limit)
        found["largest_depth"] = largest_depth(self.step, self.limit)
        if self.card is not None:
            seconds = self.card.seconds(self.step, self.kept)
            found |= {"machine": self.card.name, "tokens_per_second": round(self.tokens_per_second, 1)}
            found |= {"step_seconds": seconds, "product_share": round(self.card.product_share(self.step, seconds), 4)}
            found |= {"minutes": self.minutes, "tokens": round(self.tokens)}
            found["bits_per_byte"] = None if (bits := self.expected) is None else round(bits, 3)
        return found | {"chosen": {c.key: c.value for c in self.chosen}}

    def __str__(self) -> str:
        step, limit = self.step, self.limit
        groups = len(step.model.group_layers)
        layers = f"{step.model.n_layers} layers"
        layers += f", {groups} on groups of {step.model.shorten_factor} tokens" if groups else ""
        lines = [f"  {f'{c.key} = {c.value}':30} {c.reason}" for c in self.chosen]
        lines.append(f"context {step.context:,} x batch {step.batch}, {layers}, products in {step.precision}")
        lines += [self._line(item) for item in forecast(step)]
        verdict = "fits" if step.total <= limit else "does not fit"
        lines.append(self._line(Item("total", step.total, f"{verdict} in {as_size(limit)}")))
        lines.append(f"a GPU with {as_size(kept_on_gpu(step))} more to spare keeps what backward would make again")
        largest = f"{largest_context(step, limit):,} tokens, largest depth {largest_depth(step, limit):,} layers"
        lines.append(f"largest context {largest}")
        if step.total > limit:
            lines += [f"fits with --set {what}" for what in memory_hints(step, limit)]
        return "\n".join([*lines, *self._speed()])

    @staticmethod
    def _line(item: Item) -> str:
        return f"  {item.name:<16} {as_size(item.size):>12}  {item.what}"

    def _speed(self) -> list[str]:
        if self.card is None:
            return []
        seconds = self.card.seconds(self.step, self.kept)
        source = "measured speeds" if self.card.measured else "speeds as its maker states them"
        speed, tokens = rounded(self.tokens_per_second), self.tokens
        minutes = tokens / self.tokens_per_second / 60
        lines = [
            f"{self.card.name}: about {speed:,} tokens/s, {1000 * seconds:,.1f} ms a step, "
            f"{self.card.product_share(self.step, seconds):.0%} of its product speed (a forecast, from {source})"
        ]
        read = f"{minutes:.3g} minutes read about {rounded(tokens):,} tokens"
        if self.text is not None:
            read += f", the text {tokens / self.text.tokens_by(self.step.model.vocab_size):.2g} times"
            if self.expected is not None:
                read += f"; about {self.expected:.2f} bits/byte of what is held out"
            if self.untrained is not None:
                read += f" ({self.begins_with} untrained: {self.untrained:.2f})"
        return [*lines, read]


def plan(
    texts: Sequence[str] = (), *, config: str | None = None, sets: Sequence[str] = (), as_: str | None = None,
    minutes: float | None = None, memory: int | None = None, device: str = "auto", speed: bool = False,
    init_from: str | None = None,
) -> TrainingPlan:  # fmt: skip
    """The plan of a training. texts: what would be read; as_: another machine than this, by name or file; speed:
    whether this one's is to be measured where nothing else asks for it; init_from: as `train` takes it. Raises
    UserError."""
    settings, source = load_config(config, sets), init_from or AUTO
    start = Start(Path(source)) if source not in (AUTO, NONE) else None
    if start is not None:
        settings = start.settings(lambda base: load_config(config, sets, base))
    where = "cpu" if as_ is not None else pick_device(device)
    card = card_named(as_) if as_ is not None else None
    limit = memory or (int(card.memory) if card is not None else free_memory(where))
    train = settings["train"]
    train |= {"minutes": minutes or train.get("minutes") or MINUTES, "steps": None}
    if train.get("precision", "auto") == "auto":
        of_card = "bfloat16" if card is not None and card.kind == "gpu" else "float32"
        train["precision"] = pick_precision(where)[0] if card is None else of_card
    chooser = Chooser(settings, World(0, 1, where), card, limit)
    if card is None and (texts or minutes is not None or speed):
        card = chooser.budget.card
    text, decision = None, None
    if texts:
        with _scanned(texts, settings) as scan:
            of_text = scan.options.image_size is None
            parts = sample(scan) if of_text else []
            text = text_of(scan, parts) if of_text else Text(scan.bytes, max(1, scan.documents))
            decision = starter_or_new(source, settings, config, None, chooser)
            if decision is not None and decision.tokenizer(text, parts) is not None:
                start = decision.start or start
            if decision is not None and start is not None:
                settings |= start.settings(lambda base: load_config(config, sets, base)) | {"train": train}
    chosen: list[AutoSetting] = []
    if config is None and card is not None and (text is not None or not sets):
        if text is None:
            say(f"no text is named; a novel of {NOVEL.bytes:,} bytes assumed")
        text = text or NOVEL
        chosen = _chosen(chooser, text, start)
    if card is not None and card.kind == "gpu":
        settings["model"].setdefault("chunk_tokens", GPU_WORKSPACE)
    resolved = resolve(settings, _vocab_size(settings, start, text))
    step = step_of(resolved, where)
    if as_ is not None and card is not None:
        gpu = card.kind == "gpu"
        step = replace(step, program=0, native=not gpu, copied=not gpu, gpu=gpu)
    begins = str(start.path) if start is not None else None
    untrained = start.untrained if start is not None else None
    return TrainingPlan(resolved, step, limit, card, text, chosen, begins, untrained)


@contextmanager
def _scanned(texts: Sequence[str], settings: Settings) -> Iterator[Scan]:
    data = resolve({"data": {**settings["data"], "corpus": list(absolute(texts))}}, VOCAB_SIZE).data
    if data.image_size is not None:  # the context follows from it and is nobody's to choose
        settings["data"]["context"] = data.context
    with scanned(data.corpus, options_of(data), data.num_workers, say) as scan:
        scan.check(data.errors)
        yield scan


def _vocab_size(settings: Settings, start: Start | None, text: Text | None) -> int:
    data = settings["data"]
    if start is not None:
        return start.tokenizer.vocab_size
    if data.get("image_size") is not None:
        return PixelTokenizer.vocab_size
    if as_bytes(data, text.characters or text.bytes if text is not None else VOCAB_SIZE**2):
        return ByteTokenizer.vocab_size
    if (known := data.get("vocab_size")) is None:
        say(f"data.vocab_size follows the corpus; {VOCAB_SIZE:,} assumed")
    return known or VOCAB_SIZE


def _chosen(chooser: Chooser, text: Text, start: Start | None) -> list[AutoSetting]:
    """Fill in what `train` would choose; returns it."""
    vocabulary = chooser.vocabulary(text) if start is None else None
    if vocabulary is not None:
        chooser.settings["data"]["vocab_size"] = vocabulary.value
    chosen = chooser.choose(text, _vocab_size(chooser.settings, start, text), start)
    return [vocabulary, *chosen] if vocabulary is not None else chosen


def measured(config: RunConfig, device: str, step: Step) -> int:
    """Peak bytes of one real step on random tokens, the optimiser's moments being there as from the second step on."""
    keep_freed_memory()
    if step.total > free_memory(device):
        raise UserError(
            f"one step needs about {step.total:,} bytes, {free_memory(device):,} are free", "lower data.context"
        )
    model = ReformerLM(config.model).to(device)
    optimizers = make_optimizers(model, config.train)
    prime(optimizers)
    held = dict(model.state_dict())
    held |= optimizer_tensors(model, optimizers)
    copy = [t.clone() for t in held.values()] if step.copied else []  # as while a checkpoint is written
    text = torch.randint(config.model.vocab_size, (step.rows, step.context + 1), device=device)
    with products_in(step.precision, device):
        loss = model.loss(text[:, :-1], text[:, 1:], dropout_seed=0)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    del copy
    return peak_memory(device)
