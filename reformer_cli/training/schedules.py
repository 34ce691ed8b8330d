"""How the step size changes over a run: pure functions of how far it has got."""

from __future__ import annotations

import math
from collections.abc import Callable

from reformer_cli.config.checks import WSD_DECAY
from reformer_cli.config.schema import TrainConfig

FINAL_SHARE = 0.05  # of the highest step size, at the end


def learning_rate(progress: float, config: TrainConfig) -> float:
    """Linear warm-up, then what `train.schedule` names; progress in [0, 1]."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < config.warmup:
        # Not from 0: the first step of a run by minutes has progress 0 and is meant to count.
        return config.learning_rate * max(progress / config.warmup, 0.01)
    return config.learning_rate * SCHEDULES[config.schedule](progress, config)


def cosine(progress: float, config: TrainConfig) -> float:
    """Half a cosine down to the final share (SGDR, arXiv 1608.03983)."""
    along = (progress - config.warmup) / (1 - config.warmup)
    return _between((1 + math.cos(math.pi * along)) / 2)


def stable(progress: float, config: TrainConfig) -> float:
    """Warm-up, stable, decay; the fall is 1 - sqrt (arXiv 2405.18392)."""
    left = 1 - progress
    return 1.0 if left >= WSD_DECAY else _between(1 - math.sqrt(1 - left / WSD_DECAY))


def rsqrt(progress: float, config: TrainConfig) -> float:
    """The inverse square root of the steps since the start, 1 at the end of the warm-up: trax's rsqrt_decay, with which
    the released enwik8 model was trained."""
    begin = max(config.warmup, 1e-3)
    return math.sqrt(begin / max(progress, begin))


SCHEDULES: dict[str, Callable[[float, TrainConfig], float]] = {"cosine": cosine, "wsd": stable, "rsqrt": rsqrt}


def _between(share: float) -> float:
    return FINAL_SHARE + (1 - FINAL_SHARE) * share
