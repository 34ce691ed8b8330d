"""What a training run tells about its time: that it is off, what more of it would give, that it is used up."""

from __future__ import annotations

import math
from pathlib import Path

from reformer_cli.config.schema import RunConfig, TrainConfig
from reformer_cli.data.copy_task import find
from reformer_cli.data.shards import TokenFiles
from reformer_cli.training import learning
from reformer_cli.training.cost import rounded
from reformer_cli.training.memory import hidden_numbers
from reformer_cli.training.state import TrainState
from reformer_cli.utils.format import as_time

OFF = 0.2  # share that a speed is off by, from which that is said


def off_forecast(found: float, forecast: float, minutes: float) -> str:
    """Tokens/s that came beside those forecast, and what comes of it in the time; nothing where they are close."""
    if (off := abs(found / forecast - 1)) <= OFF:
        return ""
    return (
        f"{off:.0%} {'slower' if found < forecast else 'faster'} than forecast: {rounded(found):,} tokens/s, not "
        f"{rounded(forecast):,}; in {minutes:g} minutes about {rounded(60 * minutes * found):,} tokens are read, not "
        f"{rounded(60 * minutes * forecast):,}"
    )


def of_other_times(
    found: float, progress: TrainState, config: RunConfig, tokens: TokenFiles, begun: bool = False
) -> str:
    """What less or more time would have given a run that came to `found` bits/byte, by the fit that sizes are chosen
    by. begun: with the starter."""
    if config.data.image_size is not None or find(config.data.corpus) is not None:
        return ""

    def expected(times: float) -> float:
        most = (config.train.max_epochs or math.inf) * tokens.train_bytes
        read = min(times * progress.tokens * tokens.bytes_per_token, most)
        if begun:
            return learning.continued(found, read, tokens.train_bytes)
        model = config.model
        return learning.bits_per_byte(hidden_numbers(model), read, tokens.train_bytes, model.vocab_size)

    less, more = (found * expected(times) / expected(1) for times in (0.5, 2))
    return f"  half of the time would have given about {less:.2f}, twice as much {more:.2f}"


def nothing_left(path: Path, progress: TrainState, train: TrainConfig, epochs: float) -> str:
    """What a run says that has had all it was given, and the line for more."""
    had = f"{path} has had its {as_time(progress.seconds)} ({progress.step:,} steps, read {epochs:.1f} times)"
    if train.max_epochs and epochs >= train.max_epochs:
        return f"{had}: more would overfit (--set max_epochs=null reads on after all)"
    more, what = f"--minutes {math.ceil(progress.seconds / 6) / 10 + 2:g}", "two minutes more"
    if train.steps:
        more, what = f"--steps {progress.step * 2}", "as many again"
    return f"{had}: nothing is left to do. For {what}: reformer train --resume --run {path} {more}"
