"""What nobody named, `reformer train` chooses, and says why; and it warns of what was named and will not do."""

from __future__ import annotations

import bz2
import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from reformer.config import CHUNKED, Backend

from reformer_cli.config.load import resolve
from reformer_cli.config.schema import RunConfig, Settings
from reformer_cli.data.copy_task import find
from reformer_cli.data.dataset import Dataset
from reformer_cli.data.make_tokenizer import as_bytes
from reformer_cli.data.scan import Scan
from reformer_cli.tokenizers.line_widths import usual_line
from reformer_cli.tokenizers.train_subword import OFTEN, choose_vocab_size
from reformer_cli.tokenizers.train_subword import SAMPLE as SAMPLED
from reformer_cli.training import learning, throughput
from reformer_cli.training.auto_config import (
    COLUMNS,
    REFERENCE,
    AutoSetting,
    Budget,
    Plan,
    Text,
    best,
    like_size,
    plan_of,
    settings_of,
    sizes_for,
)  # fmt: skip
from reformer_cli.training.cost import Card, cards, rounded, tokens_per_second
from reformer_cli.training.display import peak_memory
from reformer_cli.training.distributed import World
from reformer_cli.training.fit_memory import memory_hints, reduce_memory
from reformer_cli.training.learning import PROSE, entropy
from reformer_cli.training.looks import SHARE
from reformer_cli.training.memory import Step
from reformer_cli.training.mixed_precision import pick_precision
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import backend_reason, free_memory
from reformer_cli.utils.format import as_size
from reformer_cli.workflows.init_from import Start

GPU_WORKSPACE = 2**16  # tokens of a slice there; estimated, not measured
ENDLESS = 10**12  # bytes of a task whose sequences never come again
LINES = 1_000_000  # tokens whose lines are measured


class Chooser:
    """What suits a text, a machine and the time. card, memory: the machine's, and bytes free on it; else it is this
    one, which is measured once, when something depends on it."""

    def __init__(self, settings: Settings, world: World, card: Card | None = None, memory: int | None = None) -> None:
        self.settings, self.world = settings, world
        self._card, self._memory = card, memory
        self.entropy = PROSE  # of the text, once it was looked at

    @property
    def budget(self) -> Budget:
        train, device = self.settings["train"], self.world.device
        minutes, steps = (train.get(name) for name in ("minutes", "steps"))
        if self._card is None and minutes:
            if device == "cpu":
                say("measuring how fast this CPU trains")
            backend: Backend = "torch" if self.settings["model"].get("backend") == "torch" else "auto"  # others: faults
            self._card = throughput.machine(device, train["precision"], self.world.size, backend)
        card = self._card or (REFERENCE if device == "cpu" else next(iter(cards().values())))
        return Budget(card, self._memory or free_memory(device), minutes, steps, self.world.size, train["precision"])

    def best(self, text: Text, vocab_size: int | None) -> tuple[Plan, list[Plan]]:
        """The plan for a new model, and those of other sizes, of what the user left open."""
        named = self.settings["model"] | {"context": self.settings["data"].get("context")}
        return best(text, self.budget, vocab_size, sizes_for(self.budget.card.kind == "gpu", named))

    def vocabulary(self, text: Text) -> AutoSetting | None:
        """Tokens for a new vocabulary; None where somebody says how many, or the text is taken as bytes."""
        data = self.settings["data"]
        if (
            data.get("vocab_size")
            or as_bytes(data, text.characters or text.bytes)
            or data.get("image_size") is not None
        ):
            return None
        plan, _ = self.best(text, None)
        most = choose_vocab_size(text.characters, text.frequent)
        why = "as many as the text can fill"
        if (found := plan.step.model.vocab_size) < most:
            why = f"{most:,} would be dearer a token than the longer tokens are worth, in {self.budget}"
        return AutoSetting("data.vocab_size", found, why)

    def fill(self, dataset: Dataset, start: Start | None) -> float | None:
        """Set what nobody set, and say why; returns the forecast of tokens/s, where there is one, looks included."""
        tokens, settings = dataset.tokens, self.settings
        text = Text(tokens.train_bytes, max(1, tokens.documents), max(1, len(tokens.train)), self.entropy)
        if find(settings["data"]["corpus"]) is not None:
            text = Text(ENDLESS, 1, ENDLESS)
        vocab_size = dataset.tokenizer.vocab_size
        plan, _ = self.plan(text, vocab_size, start)
        budget = self.budget
        if budget.minutes and self.world.device == "cpu":
            # The very step; where it is not what was forecast, what follows from that is chosen anew.
            took = throughput.step_seconds(replace(plan.step, batch=max(1, plan.step.batch // self.world.size)))
            self._card = budget.card.scaled(budget.card.seconds(plan.step) / took)
            plan, _ = self.plan(text, vocab_size, start)
            budget = self.budget
        if budget.minutes and plan.readings < 1:
            once = rounded(budget.minutes / plan.readings + 0.5)
            say(
                f"note: {budget} read {plan.readings:.0%} of the text; about {once:,} minutes would read all of it once"
            )
        for c in self.choose(text, vocab_size, start):
            say_choice(c.key, c.value, c.reason)
        if start is not None and start.untrained is not None:
            read = plan.tokens * text.bytes / text.tokens
            say(
                f"note: about {learning.continued(start.untrained, read, text.bytes):.2f} bits/byte expected, from "
                f"{rounded(plan.tokens):,} tokens in {budget}, the text {plan.readings:.2g} times"
            )
        return (1 - SHARE) * tokens_per_second(budget.card, plan.step) if budget.minutes else None

    def choose(self, text: Text, vocab_size: int, start: Start | None) -> list[AutoSetting]:
        """Set what nobody set; returns that."""
        plan, others = self.plan(text, vocab_size, start)
        choices = settings_of(plan, self.budget, text, others)
        optimizer = self.settings["train"].get("optimizer") or next(
            (c.value for c in choices if c.key == "train.optimizer"), "adamw"
        )
        added = []
        for c in start.suited(choices, self.settings) if start is not None else choices:
            section, name = c.key.split(".")
            if name in self.settings[section] or (name == "weight_decay" and optimizer != "adamw"):
                continue  # other optimisers decay by another measure
            self.settings[section][name] = c.value
            added.append(c)
        return added

    def plan(self, text: Text, vocab_size: int, start: Start | None) -> tuple[Plan, list[Plan]]:
        """As `best` has it; of the model of `start`, where there is one."""
        if start is None:
            return self.best(text, vocab_size)
        model, gpu = start.config, self.budget.card.kind == "gpu"
        like = like_size(sizes_for(gpu, {}), model.d_model)
        size = replace(like, d_model=model.d_model, n_layers=model.n_layers, n_heads=model.n_heads)
        return plan_of(size, model, text, self.budget, continued=True), []


def text_of(scan: Scan, parts: Sequence[str]) -> Text:
    """What is known of a text before it is tokenised. parts: of it, by which its frequent characters are counted, and
    how hard it is to predict is told: those of several files apart, since a book packs worse after another than after
    itself (94 novels: 1.13 times English prose together, 1.03 apart; LOG.md, 2026-11-28)."""
    sample = "".join(parts)
    often = max(2, OFTEN * len(sample) // max(1, min(SAMPLED, scan.characters)))
    frequent = sum(n >= often for n in Counter(sample).values())
    alike = [sample] if scan.files_read <= 1 else [p for p in parts if 2 * len(p) >= len(parts[0])]
    found = fmean(entropy(packed(part), len(part)) for part in alike or [sample])
    return Text(scan.bytes, max(1, scan.documents), 0, found, scan.characters, frequent)


def packed(text: str) -> float:
    """Bits/byte of a text in bz2."""
    plain = text.encode("utf-8", "replace")
    return 8 * len(bz2.compress(plain)) / max(1, len(plain))


def count_line_positions(model: dict[str, Any], dataset: Dataset) -> None:
    """`model.line_positions` where a recipe leaves it open, too: it is the text's. Of counts that no line reaches
    nothing is learnt: a line that once is too long would not end."""
    if model.get("line_positions") is None and not any(k in CHUNKED for k in model.get("attn_layers") or ()):
        most = usual_line(dataset.tokenizer, np.asarray(dataset.tokens.train[:LINES], np.int32))
        model["line_positions"] = COLUMNS if most is None else min(COLUMNS, most)
        full = "a line ends where the next word does not fit: how full is it?"
        why = full if model["line_positions"] else "it has no lines"
        say_choice("model.line_positions", model["line_positions"], why)


def fitted(settings: Settings, config: RunConfig, world: World) -> RunConfig:
    """The configuration, with less at once where a step would not fit; a warning where that does not help."""
    step = dataclasses.replace(step_of(config, world.device), copied=False)  # if need be it saves without a copy
    step = dataclasses.replace(step, batch=-(-step.batch // world.size))
    memory = free_memory(world.device) + step.program  # what the program holds is no longer free
    if step.total <= memory:
        return config
    if choices := reduce_memory(step, memory, set(settings["model"])):
        for c in choices:
            settings["model"][c.key.removeprefix("model.")] = c.value
            say_choice(c.key, c.value, c.reason)
        return resolve(settings, config.model.vocab_size, config.corpus_digest)
    helps = " or ".join(f"--set {x}" for x in memory_hints(step, memory))
    say(
        f"warning: a step needs about {as_size(step.total - step.program)}, {as_size(memory - step.program)} are free; "
        + (helps or f"lower data.context {config.data.context:,} or model.d_model {config.model.d_model}")
        + " (`reformer plan` says what takes it)"
    )
    return config


def step_of(config: RunConfig, device: str) -> Step:
    """The step that a run's configuration leads to, on this machine."""
    precision = config.train.precision if config.train.precision != "auto" else pick_precision(device)[0]
    backend = backend_reason(config.model, device)[0]
    native = backend == "native" and not config.model.chunked
    train = config.train
    return Step(
        config.model, train.batch_size, config.data.context, precision, peak_memory(device), native,
        optimizer=train.optimizer, copied=device.startswith("cpu"), accumulate=train.accumulation_steps,
        gpu=backend == "triton",
    )  # fmt: skip


def copy_fits(config: RunConfig, device: str) -> bool:
    """Whether a checkpoint's tensors can be copied, to be written while training goes on."""
    if not device.startswith("cpu"):
        return True  # the copy is in main memory, which is the larger one
    step = step_of(config, device)
    return step.total <= free_memory(device) + step.program


def warn_of_reach(config: RunConfig) -> None:
    """Where a context is longer than what its hashed heads can look back over."""
    model, context = config.model, config.data.context
    hashed = {"mixed", "lsh"} & set(model.attn_layers)
    if hashed and context > model.look_back:
        near = math.prod(model.n_buckets)
        far = 2 * near * -(-context // (2 * near * model.lsh_window * model.shorten_factor))
        say(
            f"warning: hashed heads look back about {model.look_back:,} tokens (buckets x lsh_window) of a context of "
            f"{context:,}; --set far_buckets={far} reaches all of it"
        )


def say_choice(key: str, value: Any, reason: str) -> None:
    say(f"  {f'{key} = {value}':30} {reason}")
