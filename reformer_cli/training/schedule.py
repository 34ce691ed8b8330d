"""How the step size changes over a run: a pure function of how far it has got."""

from __future__ import annotations

import math

from reformer_cli.config import TrainConfig


def learning_rate(progress: float, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to the final share (SGDR, arXiv 1608.03983); progress in [0, 1]."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < config.warmup:
        # Not from 0: the first step of a run by minutes has progress 0 and is meant to count.
        return config.learning_rate * max(progress / config.warmup, 0.01)
    along = (progress - config.warmup) / (1 - config.warmup)
    low = config.final_learning_rate
    return config.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * along)) / 2)
