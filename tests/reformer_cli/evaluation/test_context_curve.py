"""The same tokens at every context, and a verdict that follows from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders.models import small, tokens

from reformer_cli.evaluation.context_curve import (
    Curve,
    Passage,
    choose_contexts,
    context_curve,
    tokens_to_read,
    verdict,
)
from reformer_cli.evaluation.likelihood import nats
from reformer_cli.evaluation.scorers import ContextRule
from reformer_cli.evaluation.word_recurrence import NEW, NO_WORD, Recurrence


def passage(before: int, scored: int, seed: int) -> Passage:
    return Passage(tokens(before, seed=seed)[0], tokens(scored, seed=seed + 1)[0], np.full(scored, 2.0))


def test_every_context_is_what_perplexity_gives_with_it() -> None:
    model, passages, read = small(), [passage(90, 70, 1), passage(3, 40, 5)], []
    contexts = [8, 32, None]
    curve = context_curve(model, passages, contexts, read.append)
    for n, context in enumerate(contexts):
        wanted = sum(nats(model, p.prefix, p.scored, ContextRule(context)) for p in passages)
        assert curve.nats[n].sum() == pytest.approx(wanted, rel=1e-6)
        assert curve.bits(n)[0] == pytest.approx(wanted / math.log(2) / 220, rel=1e-6)
    assert sum(read) == pytest.approx(tokens_to_read(passages, contexts), abs=len(passages))
    assert curve.sees(8) == (3, 7)  # the second passage begins after three tokens
    assert curve.sees(None) == (3, 159)


def test_contexts_fit_the_text() -> None:
    assert choose_contexts(20_000) == [256, 1024, 4096, 16384, None]
    assert choose_contexts(100) == [16, 64, None]
    assert choose_contexts(1000, [500, 2000, 100]) == [100, 500, None]


def made(gains: list[float], noise: float = 0.3, n: int = 20_000) -> Curve:
    """A curve in which each context saves so many nats a token, with noise that contexts share in part."""
    random = np.random.default_rng(0)
    shared = random.normal(3.0, 1.0, n)
    rows = [shared - sum(gains[:k]) + random.normal(0, noise, n) for k in range(len(gains) + 1)]
    distance = np.resize([NO_WORD, NEW, 100, 3000, 30_000], n)
    return Curve(
        [*(256 * 4**k for k in range(len(gains))), None],
        np.stack(rows), np.full(n, 3.0), Recurrence(distance, distance == 3000), (40_000, 60_000),
    )  # fmt: skip


def test_verdict_names_the_last_context_that_helps() -> None:
    # A gain of 0.05 nats shows through noise that is six times as large, since the same tokens are compared.
    text = verdict(made([0.05, 0.05, 0.0]))
    assert text.startswith("4,096 tokens of context are used: 4,096 instead of 256 saves 0.0")
    assert "beyond that no gain is shown" in text


def test_verdict_where_everything_helps_nothing_helps_or_more_hurts() -> None:
    assert verdict(made([0.05, 0.05, 0.05])).startswith("All that came before is used: all before instead of 256 saves")
    assert verdict(made([0.0, 0.0, 0.0])).startswith("No use of more than 256 tokens of context is shown")
    assert "beyond that no gain is shown: all before instead of 1,024 costs 0.0" in verdict(made([0.2, -0.1, -0.1]))
    assert verdict(made([0.2, 0.2], n=100)).startswith("Too few tokens")


def test_verdict_does_not_contradict_itself() -> None:
    # Two gains too small to show one by one show together: it once said "nothing is gained: saves 0.0019 (0.0002 to".
    curve = made([0.05, 0.006, 0.006, 0.0], noise=0.3)
    assert curve.saved(1, 2)[1][0] < 0 < curve.saved(1, 4)[1][0]  # type: ignore[index]
    text = verdict(curve)
    assert not text.startswith("1,024 tokens")
    assert "no gain is shown" not in text or "(95 %: -" in text.split("no gain is shown")[1]


def test_bands_hold_what_their_edges_say() -> None:
    curve = made([0.1, 0.0])
    counts = {str(b): int(curve.in_band(b, False).sum()) for b in curve.bands()}
    assert counts == {"1 - 255": 4000, "256 - 1,023": 0, "1,024 or more": 8000, "never before": 4000}
    assert [int(curve.in_band(b, True).sum()) for b in curve.bands()] == [0, 0, 4000, 0]
