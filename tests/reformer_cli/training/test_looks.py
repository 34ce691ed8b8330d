"""How often a run is looked at. Guards against a run of thirty seconds that took ten steps and eight validations."""

from __future__ import annotations

import pytest

from reformer_cli.training.looks import LEAST_TOKENS, MOST, SHARE, Looks
from reformer_cli.training.state import TrainState


def looked_at(minutes: float, speed: float, cost: float) -> list[float]:
    """The shares of a run at which it is looked at, of a machine that trains on `speed` tokens a second in steps of
    2,048 and takes `cost` seconds a look and what scoring takes."""
    progress, looks, found = TrainState(), Looks(None, timed=True), []
    while (share := progress.seconds / (60 * minutes)) < 1:
        progress.step += 1
        progress.tokens += 2048
        progress.seconds += 2048 / speed
        share = min(1.0, progress.seconds / (60 * minutes))
        if looks.due(progress, share):
            seconds = cost + looks.tokens(progress, share) / (3 * speed)
            progress.seconds += seconds
            looks.took(progress, share, seconds)
            found.append(share)
    assert progress.looking <= SHARE * 60 * minutes * 1.2 + cost
    return found


@pytest.mark.parametrize("minutes", [0.5, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("cost", [0.1, 1.0, 10.0])
def test_looking_takes_little_of_a_run_of_any_length(minutes: float, cost: float) -> None:
    found = looked_at(minutes, 1500.0, cost)
    assert len(found) <= MOST
    if minutes >= 5 and cost < 1:  # there is time for as many as anybody wants
        assert len(found) >= MOST - 3


def test_a_run_of_steps_is_looked_at_at_the_same_steps_again() -> None:
    """However fast the machine is: or a run that was killed would end otherwise than one that was not."""
    found = []
    for pace in (0.1, 100.0):
        progress, looks = TrainState(), Looks(None, timed=False)
        for step in range(1, 2001):
            progress.step, progress.tokens, progress.seconds = step, 2048 * step, pace * step
            if looks.due(progress, step / 2000):
                looks.took(progress, step / 2000, pace)
                found.append((pace, step))
    assert [step for pace, step in found if pace < 1] == [step for pace, step in found if pace > 1]
    assert len(found) == 2 * (MOST - 1)


def test_a_validation_is_as_long_as_there_is_time_for() -> None:
    def tokens(total: int) -> int:
        return Looks(None, timed=True).tokens(TrainState(step=9, tokens=total // 2), 0.5)

    assert tokens(20_000) == LEAST_TOKENS < tokens(10**6) < tokens(10**7)
