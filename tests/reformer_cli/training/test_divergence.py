"""Losses that jump, weights that are no numbers, a running mean of weights, writing in the background."""

from __future__ import annotations

import random
import threading
import time

import pytest
import torch

from reformer_cli.runs.background_save import MOST_FAILURES, Writer
from reformer_cli.training.divergence import LEAST_WATCHED, DivergedError, check_finite, is_spike
from reformer_cli.training.state import (
    TrainState,
    plain,
    random_states,
    restore_random_states,
    seed_generators,
    train_state_of,
)  # fmt: skip
from reformer_cli.utils.errors import UserError


def falling(steps: int) -> list[float]:
    draw = random.Random(0)
    return [2 + 4 * 0.98**n + draw.gauss(0, 0.1) for n in range(steps)]


def test_a_falling_noisy_loss_has_no_spikes() -> None:
    progress = TrainState()
    assert not any(is_spike(progress, loss) for loss in falling(600))
    assert progress.loss_mean == pytest.approx(2, abs=0.1)


def test_spikes_are_seen_each_and_counted() -> None:
    progress, losses = TrainState(), falling(400)
    for n in (300, 303, 350):
        losses[n] += 3
    found = [n for n, loss in enumerate(losses) if is_spike(progress, loss)]
    assert found == [300, 303, 350]
    assert progress.spikes == 3


def test_no_spike_at_the_start_or_when_switched_off() -> None:
    progress = TrainState()
    assert not any(is_spike(progress, loss) for loss in [5.0] * (LEAST_WATCHED - 1) + [50.0])


def test_weights_that_are_no_numbers_are_named() -> None:
    good = {"model.a": torch.ones(2), "model.n": torch.ones(2, dtype=torch.int64)}
    check_finite(7, good)
    with pytest.raises(DivergedError, match="numbers in b after it") as error:
        check_finite(7, good | {"model.b": torch.tensor([1.0, torch.inf])})
    assert error.value.step == 7


def test_progress_comes_back() -> None:
    progress = TrainState(step=3, seconds=1.25, best=0.1 + 0.2, best_step=2, stages=[0, 2], loss_mean=1 / 3)
    assert train_state_of(plain(progress)) == progress
    for wrong in ({"step": "3"}, {"step": 1.5}, {"step": -1}, {"other": 1}, {"stages": [-1]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            train_state_of(plain(progress) | wrong)


def test_all_generators_come_back() -> None:
    import numpy as np

    def draw() -> tuple[float, ...]:
        return random.random(), random.gauss(0, 1), float(np.random.normal()), float(torch.rand(1)), *torch.randn(3)

    seed_generators(5)
    first = draw()
    seed_generators(5)
    assert draw() == first
    states = random_states()
    after = draw()
    assert draw() != after
    restore_random_states(states)
    assert draw() == after


def test_writing_does_not_hold_training_up() -> None:
    release, done = threading.Event(), []
    writer = Writer(background=True)
    writer.submit(lambda: (release.wait(30), done.append(1)))
    assert writer.busy
    assert not done
    release.set()
    writer.collect(final=True)
    assert done == [1]
    assert not writer.busy
    Writer(background=False).submit(lambda: done.append(2))
    assert done == [1, 2]


def test_a_write_that_fails_is_tried_again_and_given_up_at_last(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    writer = Writer(background=False)
    for _ in range(MOST_FAILURES - 1):
        writer.submit(fail)
    assert capsys.readouterr().err.count("training goes on") == MOST_FAILURES - 1
    writer.submit(lambda: None)  # the count begins anew
    writer.submit(fail)
    with pytest.raises(UserError, match="no space left"):
        writer.submit(fail) or writer.submit(fail)
    for background in (True, False):  # at once, the last failure was a warning, and a run without a result "finished"
        last = Writer(background)
        last.submit(fail)
        with pytest.raises(UserError, match="go on with --resume"):
            last.collect(final=True)


def test_no_checkpoint_is_spoken_of_before_the_first() -> None:
    """ "The last one is whole" was said where there was none."""

    def fail() -> None:
        raise OSError(28, "No space left on device")

    for kept, told in ((False, "it would have been the first; make room"), (True, "the last one is whole; make room")):
        writer = Writer(background=True, kept=lambda kept=kept: kept)
        writer.submit(fail)
        with pytest.raises(UserError, match=told):
            writer.collect(final=True)


def test_a_bug_in_the_writer_is_not_taken_for_a_full_disk() -> None:
    writer = Writer(background=True)
    writer.submit(lambda: 1 / 0)
    time.sleep(0.01)
    with pytest.raises(ZeroDivisionError):
        writer.collect()
