"""Sizes for who names none: those with the lowest expected bits/byte in the time there is, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

from reformer import ReformerConfig

from reformer_cli.tokenizers.train_subword import choose_vocab_size
from reformer_cli.training import learning
from reformer_cli.training.cost import ONE_CORE, Card, rounded
from reformer_cli.training.memory import Step, hidden_numbers


@dataclass(frozen=True)
class AutoSetting:
    """A setting that was chosen, and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Size:
    """Of a model, with what it is trained with. context: tokens, where the text is long enough."""

    d_model: int
    n_layers: int
    n_heads: int
    context: int
    learning_rate: float

    def model(self, vocab_size: int) -> ReformerConfig:
        return ReformerConfig(
            vocab_size=vocab_size, d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads,
            d_head=self.d_model // self.n_heads,
        )  # fmt: skip


# Step sizes and contexts of the first four as measured on two CPU cores (LOG.md, 2026-11-24); from 512 on, which only a
# GPU trains in hours, a judgement. A GPU's kernels want heads of 64.
SIZES = (
    Size(128, 3, 4, 512, 4e-3), Size(192, 4, 4, 1024, 3e-3), Size(256, 6, 4, 1024, 3e-3), Size(384, 8, 6, 2048, 1e-3),
    Size(512, 8, 8, 2048, 1e-3),
)  # fmt: skip
GPU_SIZES = tuple(
    Size(d, n, d // 64, 32_768, rate)
    for d, n, rate in ((256, 6, 3e-3), (384, 8, 3e-3), (512, 8, 3e-3), (768, 12, 2e-3), (1024, 16, 1.5e-3))
)
BASE_SIZE, BASE_VOCABULARY = SIZES[1], 1024  # by which a machine's speed is measured
REFERENCE = ONE_CORE.scaled(4.3)  # the two cores with bfloat16 that most rows of the tables by minutes are from
# From how many epochs of the text, and numbers of the model for each of its tokens, on what is done against
# overfitting (after three, or with a small model, more decay does harm; LOG.md, 2026-11-24 and 2026-11-28).
REGULARISATION: tuple[tuple[float, float, dict[str, float]], ...] = (
    (5.0, 15.0, {"model.dropout": 0.3, "train.weight_decay": 2.0}),
    (7.0, 3.0, {"model.dropout": 0.2, "train.weight_decay": 0.5}),
    (3.0, 0.0, {"model.dropout": 0.1}),
)
LEAST_STEPS, WORTH = 1_000, 15  # that a run should have; numbers of a model that a token is worth
# Of a model that has read others, from how many numbers for each of the text's tokens on, readings that help (LOG.md).
MOST_CONTINUED = ((15.0, 2.0), (3.0, 2.5))
# Tokens a step, which grow with the root of those that are read (Zhang et al. 2024, arXiv 2410.21676): on a CPU 2,048
# for as many as an hour reads (measured); a GPU needs many at once to be busy (benchmarks/cost.py).
TOKENS_PER_STEP, GPU_TOKENS_PER_STEP, MOST_TOKENS_PER_STEP = 2_048, 32_768, 262_144
SHORT = 150  # steps in all that are so few that they are made smaller by half
PARTS = 64  # contexts that a text has, at least; a model that has learnt to look back is given longer ones
READ_BY_SUCH = 16e6  # tokens in all, up to which TOKENS_PER_STEP are right
GROWING = ((1024, 0.5), (8192, 0.3))  # contexts of a GPU before the last one, and their shares of a run
LEAST_CONTEXT = 64  # that is chosen
COLUMNS = 128  # characters of a line that are told apart, at most: more than lines of plain text have
SMALLEST_VOCABULARY, MOST_VOCABULARY = 256, 32_768
# Of a short text: vocabulary at most, and of how many characters of it one token (LOG.md, 2026-11-28).
FOR_SHORT, CHARACTERS = 1024, 60
# Times the vocabulary that a text can fill, for one that is read at most so often (C&P: after 3.5 readings 4,096 tokens
# are as good as 1,024, after 5.8 they cost 2 %; 2,048 are best after seven; LOG.md, 2026-11-28).
BEYOND = ((4, 3.0), (2, 8.0))
TIE = 1.005  # times the lowest expected bits/byte, up to which a larger model is as good: it has more to gain later


@dataclass(frozen=True)
class Text:
    """What is known of a text: its size, how many documents it has, tokens where it was tokenised (0: not yet), what
    bz2 makes of a byte of it, in bits, its characters (0: as many as bytes) and how many of them are frequent."""

    bytes: int
    documents: int = 1
    tokens: int = 0
    entropy: float = learning.PROSE
    characters: int = 0
    frequent: int = 0

    def tokens_by(self, vocab_size: int) -> int:
        return self.tokens or max(1, int(self.bytes / learning.bytes_per_token(vocab_size)))


@dataclass(frozen=True)
class Budget:
    """What there is: so many minutes or steps of a machine with so many bytes free. processes: that work together, of
    which the machine is all."""

    card: Card
    memory: float
    minutes: float | None
    steps: int | None
    processes: int = 1
    precision: str = "float32"

    @property
    def seconds(self) -> float:
        """Of training; of steps, those that a model of the base size would take on the reference machine."""
        if self.minutes is not None:
            return 60 * self.minutes
        step = Step(BASE_SIZE.model(BASE_VOCABULARY), 2, BASE_SIZE.context, self.precision, 0, True)
        return (self.steps or 0) * REFERENCE.seconds(step)

    def __str__(self) -> str:
        return f"{self.steps:,} steps" if self.minutes is None else f"{self.minutes:g} minute{'s' * (self.minutes > 1)}"


@dataclass(frozen=True)
class Plan:
    """What a budget comes to with a model. step: the very one that will run; tokens: that are read in all; readings: of
    the text; most: that help; cut: whether the time would be enough for more; expected: bits/byte."""

    size: Size
    step: Step
    tokens: float
    readings: float
    most: float
    cut: bool
    expected: float

    @property
    def tokens_per_step(self) -> int:
        return self.step.batch * self.step.context


def plan_of(
    size: Size, model: ReformerConfig, text: Text, budget: Budget, optimizer: str = "adamw", continued: bool = False
) -> Plan:
    """What comes of the budget with this model on this text. continued: the model has learnt from others."""
    n_tokens, gpu = text.tokens_by(model.vocab_size), budget.card.kind == "gpu"
    context, per_step = size.context, GPU_TOKENS_PER_STEP if gpu else TOKENS_PER_STEP
    if gpu:
        longest = max(LEAST_CONTEXT, n_tokens // max(1, text.documents))
        while context > GROWING[0][0] and context > longest:
            context //= 2
    if model.max_length is not None:
        context = min(context, model.max_length)
    parts = 8 if continued else PARTS
    while context > LEAST_CONTEXT and context * parts > n_tokens:
        context //= 2
    hidden = hidden_numbers(model)
    suited = (times for numbers, times in MOST_CONTINUED if continued and hidden > numbers * n_tokens)
    most = next(suited, learning.most_readings(text.bytes))
    for _ in range(2):  # how many tokens a step has goes by how many are read, and the reverse
        batch = -(-max(1, per_step // context) // budget.processes) * budget.processes
        step = Step(model, batch, context, budget.precision, 0, not gpu, optimizer=optimizer, gpu=gpu)
        could = batch * context * budget.seconds / budget.card.seconds(step)
        if budget.minutes is None:
            could, most = float((budget.steps or 0) * batch * context), math.inf
        read = min(could, most * n_tokens)
        wanted = max(per_step, TOKENS_PER_STEP * math.sqrt(read / READ_BY_SUCH))
        wanted = min(wanted, MOST_TOKENS_PER_STEP, max(TOKENS_PER_STEP, read / LEAST_STEPS))
        if most * n_tokens < SHORT * TOKENS_PER_STEP and not continued:
            wanted = TOKENS_PER_STEP // 2
        per_step = 2 ** int(math.log2(wanted))
        context = min(context, per_step)
    each = text.bytes / n_tokens
    expected = learning.bits_per_byte(hidden, read * each, text.bytes, model.vocab_size, text.documents, text.entropy)
    return Plan(size, step, read, read / n_tokens, most, could > most / 2 * n_tokens, expected)


def sizes_for(gpu: bool, named: Mapping[str, Any]) -> tuple[Size, ...]:
    """Those to choose from, with what a user named of them."""
    sizes = GPU_SIZES if gpu else SIZES
    given = {field.name: named[field.name] for field in fields(Size) if named.get(field.name)}
    if named.get("d_head") and "d_model" in given:
        given.setdefault("n_heads", max(1, given["d_model"] // named["d_head"]))
    with suppress(ValueError):  # what does not go together is told of where the settings are resolved
        like = like_size(sizes, given["d_model"]) if "d_model" in given else None
        rate = {"learning_rate": like.learning_rate} if like is not None else {}
        changed = tuple(dict.fromkeys(replace(size, **(rate | given)) for size in sizes))
        for size in changed:
            size.model(SMALLEST_VOCABULARY)
        return changed
    return sizes


def like_size(sizes: Sequence[Size], d_model: int) -> Size:
    """The size whose step size a model so wide is trained with."""
    return next((size for size in sizes if size.d_model >= d_model), sizes[-1])


def best(
    text: Text, budget: Budget, vocab_size: int | None = None, sizes: Sequence[Size] = ()
) -> tuple[Plan, list[Plan]]:
    """(the plan of the lowest expected bits/byte, the best one of each size). vocab_size: where it is given; sizes: to
    choose from. Steps are taken for the time that a model of the base size would need on the reference machine."""
    if budget.minutes is None:
        timed = replace(budget, minutes=budget.seconds / 60, steps=None, card=REFERENCE)
        plan, _ = best(text, timed, vocab_size, sizes)
        return plan_of(plan.size, plan.step.model, text, budget), []
    sizes = sizes or sizes_for(budget.card.kind == "gpu", {})
    found = []
    for size in sizes:
        least, filled = _least_vocabulary(text), choose_vocab_size(text.characters or text.bytes, text.frequent)
        plans = [plan_of(size, size.model(v), text, budget) for v in _vocabularies(text, vocab_size)]
        plans = [
            p for p in plans if vocab_size or p.step.model.vocab_size <= max(least, filled * _beyond(p.readings))
        ] or plans
        plan = min(plans, key=lambda one: one.expected)
        fits = replace(plan.step, batch=1).total <= budget.memory / 2
        small = hidden_numbers(plan.step.model) <= WORTH * text.tokens_by(plan.step.model.vocab_size)
        if size is sizes[0] or (fits and small):
            found.append(plan)
    lowest = min(plan.expected for plan in found)
    return [plan for plan in found if plan.expected <= TIE * lowest][-1], found


def _vocabularies(text: Text, vocab_size: int | None) -> Iterator[int]:
    """Powers of two up to what the text can fill if it is read often, and beyond; more where its characters are
    many."""
    if vocab_size is not None:
        yield vocab_size
        return
    size = least = _least_vocabulary(text)
    filled = choose_vocab_size(text.characters or text.bytes, text.frequent)
    beyond = BEYOND[0][0] * filled if filled > SMALLEST_VOCABULARY else least
    while size <= min(max(least, beyond), MOST_VOCABULARY):
        yield size
        size *= 2


def _beyond(readings: float) -> int:
    return next((times for times, often in BEYOND if readings <= often), 1)


def _least_vocabulary(text: Text) -> int:
    """A power of two; of frequent characters at least the half (Chinese, two minutes: 1.888 bits/byte with 4,096
    tokens, 1.981 with the 8,192 that hold all of them, 1.998 with 1,024)."""
    suited = 2 ** round(math.log2(max(1, text.characters or text.bytes) / CHARACTERS))
    return max(SMALLEST_VOCABULARY, min(FOR_SHORT, suited), choose_vocab_size(0, text.frequent) // 2)


def settings_of(plan: Plan, budget: Budget, text: Text, others: Sequence[Plan] = ()) -> list[AutoSetting]:
    """A plan as settings, each with its reason. others: of other sizes, which are told of."""
    size, model, n_tokens = plan.size, plan.step.model, text.tokens_by(plan.step.model.vocab_size)
    gpu, context = budget.card.kind == "gpu", plan.step.context
    reason = (
        f"about {plan.expected:.2f} bits/byte expected, from {rounded(plan.tokens):,} tokens in {budget}, the text "
        f"{plan.readings:.2g} times{_beside(plan, others)}"
    )
    few = f", and the text has {n_tokens:,} tokens only" if context < size.context else ""
    per_step = f"{plan.tokens_per_step:,} tokens a step: "
    per_step += "a GPU needs many at once" if gpu else "many short steps learn most in little time"
    found = [
        AutoSetting("model.d_model", size.d_model, reason),
        AutoSetting("model.n_layers", size.n_layers, f"{hidden_numbers(model) / 1e6:.1f} M numbers in the layers"),
        AutoSetting("model.n_heads", size.n_heads, "one head in four looks by hash, the others at what is near"),
        AutoSetting("model.d_head", size.d_model // size.n_heads, "the heads together are as wide as the model"),
        AutoSetting("data.context", context, f"long enough to learn to look back{few}"),
        AutoSetting("train.batch_size", plan.step.batch, per_step),
        *_regularised(plan, hidden_numbers(model) / max(1, n_tokens)),
        AutoSetting("train.learning_rate", size.learning_rate, "the smaller the model, the larger the step"),
    ]
    if gpu:
        found = [c for c in found if c.key != "train.weight_decay"]  # AdamW's
        found.append(AutoSetting("train.optimizer", "muon", "more is learnt in few steps (measured on a CPU)"))
        growing = [[c, share] for c, share in GROWING if c < context]
        if growing:
            found.append(AutoSetting("train.context_schedule", growing, "short contexts first learn faster"))
    return found


def _beside(plan: Plan, others: Sequence[Plan]) -> str:
    """What the sizes next to it would come to."""
    widths = [other.size.d_model for other in others]
    if plan.size.d_model not in widths:
        return ""
    at = widths.index(plan.size.d_model)
    near = [others[n] for n in (at - 1, at + 1) if 0 <= n < len(others)]
    return "".join(f"; {other.size.d_model}: {other.expected:.2f}" for other in near)


def _regularised(plan: Plan, numbers: float) -> list[AutoSetting]:
    """What is done against overfitting. numbers: of the model, for each of the text's tokens."""
    found = []
    if plan.cut:  # the speed is a forecast
        reason = "more would overfit; where the time is longer, the run ends before it"
        found = [AutoSetting("train.max_epochs", max(1, round(2 * plan.most) / 2), reason)]
    reason = f"the text will be read about {plan.readings:,.0f} times, enough to overfit"
    suited = (settings for often, large, settings in REGULARISATION if plan.readings >= often and numbers >= large)
    return found + [AutoSetting(key, value, reason) for key, value in next(suited, {}).items()]
