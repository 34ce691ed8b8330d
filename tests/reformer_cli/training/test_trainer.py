"""Schedules, choices, and that an optimiser comes back from plain tensors."""

from __future__ import annotations

import copy
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders.models import small, tokens
from reformer import ReformerConfig

from reformer_cli.config.schema import TrainConfig
from reformer_cli.training import mixed_precision, trainer
from reformer_cli.training.auto_config import MOST_READINGS, TOKENS_PER_MINUTE, TOKENS_PER_STEP, choose
from reformer_cli.training.display import printable
from reformer_cli.training.distributed import World
from reformer_cli.training.looks import Looks
from reformer_cli.training.mixed_precision import LARGEST_SCALE, STEADY, products_in, rescaled, unscale_
from reformer_cli.training.optimizers import OPTIMIZERS, make_optimizers, optimizer_tensors, prime
from reformer_cli.training.schedules import FINAL_SHARE, learning_rate
from reformer_cli.training.state import TrainState
from reformer_cli.training.throughput import tokens_per_minute
from reformer_cli.utils.format import as_time


def test_schedule_rises_then_falls() -> None:
    config = TrainConfig(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(x / 100, config) for x in range(101)]
    assert rates[0] > 0
    assert rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(FINAL_SHARE)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(0.0, TrainConfig(learning_rate=1.0, warmup=0.0)) == 1.0


def test_a_best_validation_that_takes_the_rest_of_the_time_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a run of two steps ended without weights: the same figure again was no new best."""
    clock, saved = [0.0], []

    def passing(seconds: float) -> float:
        clock[0] += seconds
        return 1.0  # bits/byte

    class Stepping(trainer.Trainer):
        def __init__(self) -> None:
            self.config, self.progress, self.world = TrainConfig(minutes=1.0), TrainState(), World(0, 1, "cpu")
            self.looks = Looks(None, timed=True)
            self.model: Any = SimpleNamespace(eval=lambda: None)
            self.prefetcher: Any = SimpleNamespace(close=lambda: None)
            self.callbacks: Any = SimpleNamespace(validate_every=None, evaluate_every=None, busy=lambda: False,
                validate=lambda tokens: passing(30.0), finish=lambda: None)  # fmt: skip

        def _step(self) -> None:
            self.progress.step += passing(40.0) > 0

        def _save(self, best: bool) -> None:
            saved.append((self.progress.step, best))

    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert Stepping().run() == "finished"
    assert saved == [(2, True)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_goes_on_where_it_was(name: str) -> None:
    one = small()
    config = TrainConfig(optimizer=name)
    first = make_optimizers(one, config)

    def step(model, optimizers) -> None:
        model.zero_grad()
        model.loss(tokens(40), tokens(40, seed=1)).backward()
        for optimizer in optimizers:
            optimizer.step()

    start = [p.clone() for p in one.parameters()]
    step(one, first)
    assert not any(torch.equal(a, b) for a, b in zip(start, one.parameters(), strict=True) if a.dim() == 2)
    other = copy.deepcopy(one)
    second = make_optimizers(other, config)
    before = [p.clone() for p in other.parameters()]
    prime(second)
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))  # no step was taken
    kept = {k: t.clone() for k, t in optimizer_tensors(one, first).items()}
    for key, tensor in optimizer_tensors(other, second).items():
        tensor.copy_(kept.pop(key))
    assert not kept
    step(one, first)
    step(other, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_only_matrices_decay() -> None:
    groups = make_optimizers(small(), TrainConfig())[0].param_groups
    assert all(p.dim() >= 2 for p in groups[0]["params"])
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]


def test_choices_follow_the_budget() -> None:
    def size(**kw) -> dict:
        given = {"n_tokens": 400_000, "device": "cpu", "memory": 2**34, "minutes": 10.0, "steps": None} | kw
        return {c.key: c.value for c in choose(**given)}

    assert size(minutes=1.0)["model.d_model"] < size()["model.d_model"] < size(minutes=600.0)["model.d_model"]
    assert size(minutes=600.0, memory=2**27)["model.d_model"] < size(minutes=600.0)["model.d_model"]
    assert size(n_tokens=2000)["data.context"] <= 250
    assert size(minutes=None, steps=10)["model.d_model"] == size(minutes=1.0)["model.d_model"]
    assert all(c.reason for c in choose(400_000, "cpu", 2**34, 10.0, None))


def test_a_short_text_and_much_time_are_given_a_larger_model() -> None:
    """Before, one novel in twenty minutes had the model of five, and read it 35 times. A page is not worth more."""

    def width(n_tokens: int, minutes: float) -> int:
        return {c.key: c.value for c in choose(n_tokens, "cpu", 2**34, minutes, None)}["model.d_model"]

    assert width(400_000, 20.0) > width(10**8, 20.0)
    assert width(20_000, 20.0) == width(10**8, 20.0)


def test_a_text_read_often_is_trained_with_dropout() -> None:
    """One novel in five minutes on two cores is learnt by heart otherwise; a large corpus is not."""
    found = []
    for n_tokens, minutes, steps in ((400_000, 5.0, None), (10**8, 5.0, None), (400_000, None, 100), (2048, None, 5)):
        choices = {c.key: c.value for c in choose(n_tokens, "cpu", 2**34, minutes, steps)}
        found.append((choices.get("model.dropout", 0.0), choices.get("train.weight_decay", 0.1)))
    assert found == [(0.2, 0.5), (0.0, 0.1), (0.0, 0.1), (0.1, 0.1)]


def test_a_slow_machine_is_given_what_it_has_time_for() -> None:
    """The bugs it guards against: on a CPU a third as fast as ours, five minutes read a novel three times and not nine,
    and it was given the size and the decay of nine; where it reads it seven times, a small model was given the decay
    that suits a large one."""

    def chosen(speed: float | None) -> dict[str, Any]:
        return {c.key: c.value for c in choose(400_000, "cpu", 2**34, 5.0, None, speed=speed)}

    assert chosen(TOKENS_PER_MINUTE) == chosen(None)
    slow, fast = chosen(TOKENS_PER_MINUTE / 4), chosen(TOKENS_PER_MINUTE * 10)
    assert slow["model.d_model"] < chosen(None)["model.d_model"] < fast["model.d_model"]
    assert "train.weight_decay" not in slow
    smaller = chosen(TOKENS_PER_MINUTE / 2.6)
    assert (smaller["model.d_model"], smaller["model.dropout"]) == (128, 0.1)
    assert "train.weight_decay" not in smaller
    assert chosen(None)["train.weight_decay"] == 0.5


def test_a_model_that_is_there_is_given_what_suits_its_size() -> None:
    """The bug it guards against: continued for five minutes, a model that reads a novel four times in them was given
    the dropout of the smaller one that would have read it ten times."""
    there = ReformerConfig(vocab_size=4096, d_model=256, n_layers=6, n_heads=4)
    new, begun = (
        {c.key: c.value for c in choose(345_000, "cpu", 2**34, 5.0, None, model=model)} for model in (None, there)
    )
    assert (new["model.dropout"], begun["model.dropout"]) == (0.2, 0.1)
    assert "train.max_epochs" not in begun
    few = {c.key: c.value for c in choose(345_000, "cpu", 2**34, 1.0, None, model=there)}
    assert few["train.learning_rate"] == begun["train.learning_rate"]  # its size's, whatever the minutes


def test_the_speed_of_a_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves two seconds a look: a step takes two."""
    clock = itertools.count(0, 2)
    monkeypatch.setattr("reformer_cli.training.throughput.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert tokens_per_minute("float32", processes=3) == 3 * 30 * TOKENS_PER_STEP


def test_a_text_is_read_only_so_often() -> None:
    """The bug it guards against: a novel was learnt by heart in twenty minutes and scored worse than after five."""

    def most(n_tokens: int, minutes: float | None, steps: int | None = None) -> float | None:
        return {c.key: c.value for c in choose(n_tokens, "cpu", 2**34, minutes, steps)}.get("train.max_epochs")

    assert most(400_000, 20.0) == MOST_READINGS
    assert most(10**8, 20.0) is None
    assert most(400_000, None, 10**5) is None  # whoever says how many steps is taken at his word
    assert most(20_000, 20.0) > 5 * MOST_READINGS


@pytest.mark.parametrize(
    ("ratios", "wanted", "said"),
    [((3.0, 3.0), "bfloat16", "3.0 x as fast"), ((1.0, 1.0), "float32", "take 1.0 x as long"),
     ((0.02, 0.02), "float32", "take 50 x as long"), ((1.5, 0.5, 0.6), "float32", "take 1.7 x as long"),
     ((0.5, 1.5, 1.6), "bfloat16", "1.5 x as fast")],
)  # fmt: skip
def test_precision_is_what_measures_faster(
    ratios: tuple[float, ...], wanted: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A measurement that something else disturbed is taken again; and "0.0 x as fast" was nothing to read."""
    measured = iter(ratios)
    monkeypatch.setattr(mixed_precision, "_measured", lambda: next(measured))
    mixed_precision._ratio.cache_clear()
    found, reason = mixed_precision.pick_precision("cpu")
    mixed_precision._ratio.cache_clear()
    assert found == wanted
    assert said in reason
    assert next(measured, None) is None


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.2, "1:01"), (3725, "1:02:05")])
def test_times(seconds: float, text: str) -> None:
    assert as_time(seconds) == text


def test_samples_do_not_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\r\n\tü") == "a\ufffd[2Jb\ufffd\ufffd\n\tü"


def test_gradients_of_a_scaled_loss_are_those_of_the_loss_where_float16_alone_would_lose_them() -> None:
    """Each of 4,000 tokens has so small a share of the gradient that float16 is left with few digits of it, or none."""
    text, aims = tokens(4000, 1), tokens(4000, 1, seed=1)
    found = []
    for name, scale in (("float32", 1.0), ("float16", 1.0), ("float16", 2.0**16)):
        model = small(n_layers=1, attn_layers=("local",))  # a hash would move with the rounding
        with products_in(name, "cpu"):
            loss = model.loss(text, aims)
        (loss * scale).backward()
        unscale_(model.parameters(), scale)
        found.append(torch.cat([p.grad.flatten() for n, p in model.named_parameters() if n.startswith("layers")]))
    exact, plain, scaled = found
    lost, kept = ((x - exact).norm() / exact.norm() for x in (plain, scaled))
    assert kept < 0.006
    assert lost > 2 * kept


def test_the_scale_halves_at_overflow_and_doubles_when_all_is_well() -> None:
    scale, steady = 2.0**16, 7
    scale, steady = rescaled(scale, steady, True)
    assert (scale, steady) == (2.0**15, 0)
    for _ in range(STEADY):
        scale, steady = rescaled(scale, steady, False)
    assert (scale, steady) == (2.0**16, 0)
    assert rescaled(1.0, 0, True)[0] == 1.0
    assert rescaled(LARGEST_SCALE, STEADY, False)[0] == LARGEST_SCALE


def test_a_gpu_without_bfloat16_gets_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert mixed_precision.pick_precision("cuda")[0] == ("bfloat16" if has else "float16")
