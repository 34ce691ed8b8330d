"""What can go wrong with a loss: it is no number, or it jumps."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from reformer_cli.training.state import TrainState

SPIKE = 6.0  # deviations above the recent loss, from which it is reported
RATE = 0.03  # of the running mean and variance of the loss
LEAST_WATCHED = 50  # steps before a jump can be told from the start
LEAST_SPREAD = 0.02  # of the recent loss: a very steady one may wobble


class DivergedError(Exception):
    """Training cannot go on. step: the one at which it stopped; what: the problem."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(what)
        self.step, self.what = step, what


def is_spike(progress: TrainState, loss: float) -> bool:
    """Whether a loss lies SPIKE deviations above what the last steps had; progress keeps what they had.

    A spike enters the mean as if it stood at the limit, so that one does not hide the next.
    """
    deviation = max(math.sqrt(progress.loss_var), LEAST_SPREAD * abs(progress.loss_mean))
    limit = progress.loss_mean + SPIKE * deviation
    found = progress.watched >= LEAST_WATCHED and loss > limit
    value = limit if found else loss
    if progress.watched:
        away = value - progress.loss_mean
        rate = max(RATE, 1 / (progress.watched + 1))
        progress.loss_mean += rate * away
        progress.loss_var = (1 - rate) * (progress.loss_var + rate * away * away)
    else:
        progress.loss_mean = value
    progress.watched += 1
    progress.spikes += found
    return found


def check_finite(step: int, tensors: Mapping[str, Tensor]) -> None:
    """Raises DivergedError: weights that are no numbers must not take the place of good ones."""
    bad = sorted(name for name, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all()))
    if bad:
        what = f"{bad[0].removeprefix('model.')}{f' and {len(bad) - 1} more' if len(bad) > 1 else ''} after it"
        raise DivergedError(step, f"values that are not finite numbers in {what}")
