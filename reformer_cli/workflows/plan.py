"""What a training would take and come to, before it begins: memory, speed, bits/byte; here or on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from reformer import ReformerLM
from reformer.memory import Item

from reformer_cli.config.load import load_config, resolve
from reformer_cli.config.schema import RunConfig, Settings
from reformer_cli.data.dataset import absolute, options_of
from reformer_cli.data.scan import scanned
from reformer_cli.tokenizers.base import ByteTokenizer, PixelTokenizer
from reformer_cli.training import learning, throughput
from reformer_cli.training.auto_config import (
    AutoSetting,
    Budget,
    Text,
    best,
    settings_of,
    sizes_for,
)  # fmt: skip
from reformer_cli.training.cost import Card, card_named, rounded
from reformer_cli.training.display import peak_memory
from reformer_cli.training.fit_memory import memory_hints
from reformer_cli.training.memory import Step, forecast, hidden_numbers, kept_on_gpu, largest_context, largest_depth
from reformer_cli.training.mixed_precision import products_in
from reformer_cli.training.optimizers import make_optimizers, optimizer_tensors, prime
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import free_memory, keep_freed_memory, pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import as_size
from reformer_cli.workflows.choose_settings import GPU_WORKSPACE, step_of

VOCAB_SIZE = 4096  # assumed where data.vocab_size is left to the corpus
MINUTES = 10.0  # where nothing says how long
NOVEL = Text(1_100_000)  # what is assumed where sizes are to be chosen and no text is named


@dataclass(frozen=True)
class TrainingPlan:
    """config: of the run; step: of it; limit: bytes there are; card: the machine, where its speed is known; text: what
    would be read; chosen: settings that nobody named."""

    config: RunConfig
    step: Step
    limit: int
    minutes: float
    card: Card | None = None
    text: Text | None = None
    chosen: Sequence[AutoSetting] = ()

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
        """Bits/byte after the minutes, about."""
        if self.text is None or self.card is None:
            return None
        model = self.step.model
        read = self.tokens * self.text.bytes / self.text.tokens_by(model.vocab_size)
        documents, entropy = self.text.documents, self.text.entropy
        return learning.bits_per_byte(
            hidden_numbers(model), read, self.text.bytes, model.vocab_size, documents, entropy
        )

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        found: dict[str, Any] = {"total_bytes": self.step.total, "limit_bytes": self.limit}
        items = [{"name": item.name, "bytes": item.size, "what": item.what} for item in forecast(self.step)]
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
            read += f"; about {self.expected:.2f} bits/byte of what is held out"
        return [*lines, read]


def plan(
    texts: Sequence[str] = (), *, config: str | None = None, sets: Sequence[str] = (), as_: str | None = None,
    minutes: float | None = None, memory: int | None = None, device: str = "auto", speed: bool = False,
) -> TrainingPlan:  # fmt: skip
    """The plan of a training. texts: what would be read; as_: another machine than this, by name or file; speed:
    whether this one's is to be measured where nothing else asks for it. Raises UserError."""
    settings = load_config(config, sets)
    where = "cpu" if as_ is not None else pick_device(device)
    card = card_named(as_) if as_ is not None else None
    minutes_known = minutes or settings["train"].get("minutes") or MINUTES
    text = _text(texts, settings) if texts else None
    if card is None and (text is not None or minutes is not None or speed):
        say("measuring how fast this machine trains")
        card = throughput.machine(where, "float32" if where == "cpu" else "bfloat16")
    limit = memory or (int(card.memory) if as_ is not None and card is not None else free_memory(where))
    chosen: list[AutoSetting] = []
    if config is None and card is not None and (text is not None or not sets):
        text = text or _assumed()
        chosen = _chosen(settings, text, Budget(card, limit, minutes_known, None), card.kind == "gpu")
    if card is not None and card.kind == "gpu":
        settings["model"].setdefault("chunk_tokens", GPU_WORKSPACE)
    resolved = resolve(settings, _vocab_size(settings))
    step = step_of(resolved, where)
    if as_ is not None and card is not None:
        gpu = card.kind == "gpu"
        precision = "bfloat16" if gpu else "float32"
        step = replace(step, precision=precision, program=0, native=not gpu, copied=not gpu, gpu=gpu)
    return TrainingPlan(resolved, step, limit, minutes_known, card, text, chosen)


def _assumed() -> Text:
    say(f"no text is named; a novel of {NOVEL.bytes:,} bytes assumed")
    return NOVEL


def _text(texts: Sequence[str], settings: Settings) -> Text:
    data = resolve({"data": {**settings["data"], "corpus": list(absolute(texts))}}, VOCAB_SIZE).data
    with scanned(data.corpus, options_of(data), data.num_workers, say) as scan:
        scan.check(data.errors)
        return Text(scan.bytes, max(1, scan.documents), characters=scan.characters)


def _vocab_size(settings: Settings) -> int:
    data = settings["data"]
    if data.get("image_size") is not None:
        return PixelTokenizer.vocab_size
    if data.get("tokenizer") == "bytes":
        return ByteTokenizer.vocab_size
    if (known := data.get("vocab_size")) is None:
        say(f"data.vocab_size follows the corpus; {VOCAB_SIZE:,} assumed")
    return known or VOCAB_SIZE


def _chosen(settings: Settings, text: Text, budget: Budget, gpu: bool) -> list[AutoSetting]:
    """Fill in what `train` would choose; returns it."""
    named = settings["model"] | {"context": settings["data"].get("context")}
    found, others = best(text, budget, settings["data"].get("vocab_size"), sizes_for(gpu, named))
    vocabulary = AutoSetting("data.vocab_size", found.step.model.vocab_size, "the most text in the time")
    added = []
    for c in [vocabulary, *settings_of(found, budget, text, others)]:
        section, name = c.key.split(".")
        if name not in settings[section]:
            settings[section][name] = c.value
            added.append(c)
    return added


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
