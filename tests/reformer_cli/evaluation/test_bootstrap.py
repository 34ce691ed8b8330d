"""Block sums lose nothing, and intervals mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reformer_cli.evaluation import bootstrap
from reformer_cli.evaluation.bootstrap import Blocks, interval
from reformer_cli.evaluation.likelihood import Score


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 1] / sums[..., 0]


def rows_of(values: np.ndarray) -> np.ndarray:
    return np.stack([np.ones(len(values)), values], 1)


@pytest.mark.parametrize("piece", [1, 7, 64, 1000, 100_000])
def test_sums_do_not_depend_on_the_pieces_they_come_in(piece: int) -> None:
    rows = rows_of(np.random.default_rng(0).integers(0, 9, 20_000).astype(float))
    whole, parts = Blocks(2), Blocks(2)
    whole.add(rows)
    for start in range(0, len(rows), piece):
        parts.add(rows[start : start + piece])
    assert np.array_equal(whole.sums, parts.sums)
    assert np.array_equal(whole.total, rows.sum(0))
    assert whole.sums[:-1, 0].tolist() == [64.0] * (20_000 // 64)


@pytest.mark.parametrize("n", [64 * 2048, 64 * 2048 + 1, 64 * 2047 + 63, 1_000_003])
def test_blocks_are_joined_as_a_text_grows(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # An odd number of blocks once lost its last one.
    monkeypatch.setattr(bootstrap, "MOST", 32)
    found, values = Blocks(2), np.arange(n) % 10.0
    for part in np.array_split(rows_of(values), 13):
        found.add(part)
    assert found.total.tolist() == [n, values.sum()]
    assert len(found.sums) <= 33
    assert set(found.sums[:-1, 0].tolist()) == {float(found.size)}


def test_the_interval_of_independent_numbers_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 200_000)
    found = Blocks(2)
    found.add(rows_of(values))
    span = interval(found.sums, mean)
    assert span is not None
    assert span[0] < values.mean() < span[1]
    assert span[1] - span[0] == pytest.approx(2 * 1.96 * 2.0 / len(values) ** 0.5, rel=0.1)


def test_neighbours_that_go_together_widen_it() -> None:
    # Tokens drawn one by one would make it as narrow as for independent ones.
    values = np.repeat(np.random.default_rng(2).normal(5.0, 2.0, 2000), 50)
    together, apart = Blocks(2), Blocks(2)
    together.add(rows_of(values))
    apart.add(rows_of(np.random.default_rng(3).permutation(values)))
    wide, narrow = interval(together.sums, mean), interval(apart.sums, mean)
    assert wide is not None
    assert narrow is not None
    assert wide[1] - wide[0] > 4 * (narrow[1] - narrow[0])


def test_the_same_digits_twice_and_none_for_too_little() -> None:
    found = Blocks(2)
    found.add(rows_of(np.random.default_rng(4).normal(0, 1, 64 * 7)))
    assert interval(found.sums, mean) is None
    found.add(rows_of(np.ones(64)))
    first = interval(found.sums, mean)
    assert first is not None
    assert first == interval(found.sums.copy(), mean)


def test_figures_of_a_uniform_model() -> None:
    score = Score(tokens=10, bytes=20, characters=10, words=5, nats=10 * math.log(4))
    figures = (score + score).as_dict()
    assert figures["tokens"] == 20
    assert figures["perplexity"] == pytest.approx(4)
    assert figures["bits_per_byte"] == pytest.approx(1)
    assert figures["bits_per_character"] == pytest.approx(2)
    assert figures["word_perplexity"] == pytest.approx(16)
