"""Sizes for who names none: from the corpus, the memory and the time there is, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from reformer import ReformerConfig

from reformer_cli.training.memory import Step, largest_context
from reformer_cli.utils.format import as_size


@dataclass(frozen=True)
class AutoSetting:
    """A setting that was chosen, and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Size:
    """A model that fits a time budget. minutes: of a machine that trains BASE_SIZE at TOKENS_PER_MINUTE, up to which
    it is the one; None: beyond all."""

    minutes: float | None
    d_model: int
    n_layers: int
    n_heads: int
    context: int
    learning_rate: float


# Measured on two CPU cores (LOG.md, 2026-11-24): a larger model is better only where it sees enough text; where that is
# the same short text again and again, it is better by what it makes of each reading. The minutes are such as few
# give, so that a speed measured a little higher or lower does not change what is chosen.
SIZES = (
    Size(4, 128, 3, 4, 512, 4e-3),
    Size(25, 192, 4, 4, 1024, 3e-3),
    Size(100, 256, 6, 4, 1024, 3e-3),
    Size(None, 384, 8, 6, 2048, 1e-3),
)
BASE_SIZE = SIZES[1]
TOKENS_PER_MINUTE = 700_000  # of BASE_SIZE on the two cores that this was measured on; other machines: throughput.py
LINEAR = 192  # width at which half of the time goes into what grows with it and not with its square
# From how many epochs of the text, and numbers of the model for each of its tokens, on what is done against
# overfitting (after three, or with a small model, more decay does harm); after how many that does not help, unless they
# are few steps; numbers of a model that a token is worth (LOG.md, 2026-11-24).
REGULARISATION: tuple[tuple[float, float, dict[str, float]], ...] = (
    (7.0, 3.0, {"model.dropout": 0.2, "train.weight_decay": 0.5}),
    (3.0, 0.0, {"model.dropout": 0.1}),
)
MOST_READINGS, LEAST_STEPS, WORTH = 14.0, 1_000, 15
GPU_SPEED = 100  # a GPU against those two cores, roughly: no GPU was measured
TOKENS_PER_STEP = 2_048
LEAST_CONTEXT = 64  # that is chosen
COLUMNS = 128  # characters of a line that are told apart, at most: more than lines of plain text have
VOCAB_SIZE = 4096  # about the largest that a corpus is given


def choose(
    n_tokens: int, device: str, memory: int, minutes: float | None, steps: int | None, processes: int = 1,
    speed: float | None = None, optimizer: str = "adamw", model: ReformerConfig | None = None,
) -> list[AutoSetting]:  # fmt: skip
    """Settings for a corpus of n_tokens training tokens; memory: bytes free on the device; one of minutes, steps.

    model: one that is there, which the settings are for; None: one that is to be made. speed: tokens of BASE_SIZE that
    the machine trains on in a minute, where it was measured. optimizer: other than adamw decays by another measure, so
    that for it none is chosen.
    """
    budget = f"{steps:,} steps" if minutes is None else f"{minutes:g} minutes"
    on = "a GPU" if device != "cpu" else "this CPU"
    if speed is not None:
        on += f", which trains on about {_rounded(speed / 60):,} tokens a second"
    if minutes is None:
        assert steps is not None
        tokens = float(steps * TOKENS_PER_STEP)
    else:
        tokens = minutes * (speed or TOKENS_PER_MINUTE * (GPU_SPEED if device != "cpu" else 1))
    fitting = [s for s in SIZES if s.minutes is None or tokens <= s.minutes * TOKENS_PER_MINUTE]
    size = fitting[0]
    if steps is None:
        size = _larger(fitting, tokens, n_tokens)
    while size is not SIZES[0] and needs(size, 1) > memory / 2:
        size = SIZES[SIZES.index(size) - 1]
    if model is not None:
        like = next((s for s in SIZES if s.d_model >= model.d_model), SIZES[-1])
        size = Size(None, model.d_model, model.n_layers, model.n_heads, size.context, like.learning_rate)
    seen = tokens / _work(size)
    most = max(MOST_READINGS, LEAST_STEPS * TOKENS_PER_STEP / max(1, n_tokens))
    if steps is not None:
        seen, most = steps * TOKENS_PER_STEP, math.inf
    reason = f"for {budget} on {on}, {as_size(memory)} free"
    context = size.context
    while context > LEAST_CONTEXT and context * 8 > n_tokens:
        context //= 2
    batch = -(-max(1, TOKENS_PER_STEP // context) // processes) * processes
    shorter = "" if context == size.context else f", shortened to an eighth of the text's {n_tokens:,} tokens"
    choices = [
        AutoSetting("model.d_model", size.d_model, reason),
        AutoSetting("model.n_layers", size.n_layers, reason),
        AutoSetting("model.n_heads", size.n_heads, "one head in four looks by hash, the others at what is near"),
        AutoSetting("model.d_head", size.d_model // size.n_heads, "the heads together are as wide as the model"),
        AutoSetting("data.context", context, f"long enough to learn to look back{shorter}"),
        AutoSetting(
            "train.batch_size",
            batch,
            f"about {TOKENS_PER_STEP:,} tokens a step: many short steps learn most in little time",
        ),
        *_regularised(seen / max(1, n_tokens), most, _numbers(size) / max(1, n_tokens)),
        AutoSetting("train.learning_rate", size.learning_rate, "the smaller the model, the larger the step"),
    ]
    return [c for c in choices if optimizer == "adamw" or c.key != "train.weight_decay"]


def _work(size: Size) -> float:
    """What a token costs, BASE_SIZE's being 1; a part of it does not grow with the square of the width."""
    cost, unit = (s.n_layers * s.d_model * (s.d_model + LINEAR) for s in (size, BASE_SIZE))
    return cost / unit


def _numbers(size: Size) -> int:
    """Of a model, about: four matrices of attention and eight of feed-forward a layer."""
    return 12 * size.n_layers * size.d_model**2


def _rounded(n: float) -> int:
    """To two digits: a speed is no more certain."""
    unit = 10 ** max(0, len(str(int(n))) - 2)
    return round(n / unit) * unit


def _larger(sizes: list[Size], tokens: float, n_tokens: int) -> Size:
    """The largest of the sizes that reads a text often enough in the time of so many tokens of BASE_SIZE, and is not
    too large for it; the first where none is."""
    size = sizes[0]
    for larger in sizes[1:]:
        if tokens / _work(larger) < MOST_READINGS * n_tokens or _numbers(larger) > WORTH * n_tokens:
            break
        size = larger
    return size


def _regularised(epochs: float, most: float, numbers: float) -> list[AutoSetting]:
    """epochs: how often the text could be read, about; most: how often it should be; numbers: of the model, for each
    of the text's tokens."""
    found = []
    if epochs > most / 2:  # the speed is a guess, by as much at most
        reason = "more would overfit; where the time is longer, the run ends before it"
        found = [AutoSetting("train.max_epochs", round(most), reason)]
    epochs = min(epochs, most)
    reason = f"the text will be read about {epochs:,.0f} times, enough to overfit"
    suited = (settings for often, large, settings in REGULARISATION if epochs >= often and numbers >= large)
    settings = next(suited, {})
    return found + [AutoSetting(key, value, reason) for key, value in settings.items()]


def reduce_memory(step: Step, memory: int, given: set[str]) -> list[AutoSetting]:
    """Settings, none of them `given`, that make a step fit without another result than rounding; none if none do."""
    reason = f"the step would not fit in {as_size(memory)} otherwise; a little slower"
    found: list[AutoSetting] = []
    for name, value in (("chunk_heads", max(1, step.model.n_heads // 4)), ("chunk_heads", 1), ("chunk_tokens", 1024)):
        if name not in given and value < (getattr(step.model, name) or step.model.n_heads):
            step = _with(step, name, value)
            found = [c for c in found if c.key != f"model.{name}"] + [AutoSetting(f"model.{name}", value, reason)]
            if step.total <= memory:
                return found
    return []


def memory_hints(step: Step, memory: int) -> list[str]:
    """What a user may change so that a step fits, as `key=value` with what it then needs; the mildest first."""
    found = [("chunk_heads=1", _with(step, "chunk_heads", 1))]
    found.append(("gradient_dtype=bfloat16", _with(step, "gradient_dtype", "bfloat16")))
    found.append(("chunk_heads=1 --set gradient_dtype=bfloat16", _with(found[-1][1], "chunk_heads", 1)))
    if step.rows > 1:
        found.append((f"accumulation_steps={step.batch}", replace(step, accumulate=step.batch)))
    if (context := largest_context(replace(step, batch=1), memory)) and context < step.context:
        found.append((f"context={context}", replace(step, batch=1, context=context)))
    return [f"{setting} ({as_size(s.total)})" for setting, s in found if s.total <= memory]


def _with(step: Step, name: str, value: object) -> Step:
    """The step of a model with one setting changed."""
    return replace(step, model=replace(step.model, **{name: value}))  # type: ignore[arg-type]


def needs(size: Size, batch: int) -> int:
    """Bytes that training a size takes."""
    model = ReformerConfig(
        vocab_size=VOCAB_SIZE,
        d_model=size.d_model,
        n_layers=size.n_layers,
        n_heads=size.n_heads,
        d_head=size.d_model // size.n_heads,
    )
    return Step(model, batch, size.context, "float32", 0, False).total
