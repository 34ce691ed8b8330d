"""What makes a step fit in the memory there is: settings to change, and what it then needs."""

from __future__ import annotations

from dataclasses import replace

from reformer_cli.training.auto_config import AutoSetting
from reformer_cli.training.memory import Step, largest_context
from reformer_cli.utils.format import as_size


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
