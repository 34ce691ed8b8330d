"""Schedules, and that an optimiser comes back from plain tensors."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders.models import small, tokens

from reformer_cli.config.schema import TrainConfig
from reformer_cli.training import mixed_precision, trainer
from reformer_cli.training.display import printable
from reformer_cli.training.distributed import World
from reformer_cli.training.looks import Looks
from reformer_cli.training.mixed_precision import LARGEST_SCALE, STEADY, products_in, rescaled, unscale_
from reformer_cli.training.optimizers import OPTIMIZERS, make_optimizers, optimizer_tensors, prime
from reformer_cli.training.schedules import FINAL_SHARE, learning_rate
from reformer_cli.training.state import TrainState
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
