"""Each filter is tested by the set it keeps."""

from __future__ import annotations

import math

import pytest
import torch
from core.models import small

from reformer_cli.sampling import filters
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.engine import generate
from reformer_cli.sampling.text import TextStream
from reformer_cli.tokenization.tokenizer import ByteTokenizer

# Probabilities 0.5, 0.25, 0.15, 0.1, shuffled.
P = torch.tensor([[0.15, 0.5, 0.1, 0.25]])


def kept(logits: torch.Tensor) -> set[int]:
    return set((logits[0] > -torch.inf).nonzero()[:, 0].tolist())


@pytest.mark.parametrize(("k", "expected"), [(1, {1}), (2, {1, 3}), (3, {0, 1, 3}), (99, {0, 1, 2, 3})])
def test_top_k(k: int, expected: set[int]) -> None:
    assert kept(filters.top_k(P.log(), k)) == expected


@pytest.mark.parametrize(
    ("p", "expected"), [(0.01, {1}), (0.49, {1}), (0.6, {1, 3}), (0.8, {0, 1, 3}), (0.95, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, expected: set[int]) -> None:
    assert kept(filters.top_p(P.log(), p)) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.9, {1}), (0.4, {1, 3}), (0.25, {0, 1, 3}), (0.1, {0, 1, 2, 3})])
def test_min_p(share: float, expected: set[int]) -> None:
    assert kept(filters.min_p(P.log(), share)) == expected


def test_repetition_penalty_lowers_what_was_said() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0]])
    found = filters.repetition_penalty(logits, torch.tensor([[0, 1, 0]]), 2.0)
    assert found.tolist() == [[1.0, -4.0, 1.0]]


def test_temperature_first_then_top_p() -> None:
    # At a high temperature the nucleus is wider: the conventional order.
    config = SamplingConfig(temperature=10, top_p=0.6)
    found = filters.filtered(P.log(), torch.zeros(1, 0, dtype=torch.int64), config)
    assert len(kept(found)) == 3


def test_draws_follow_the_probabilities() -> None:
    from reformer_cli.sampling.engine import draw

    config = SamplingConfig(temperature=1, top_p=1)
    generator = torch.Generator().manual_seed(0)
    drawn = draw(P.log().expand(20_000, 4), torch.zeros(20_000, 0, dtype=torch.int64), config, generator)
    assert (drawn.bincount() / 20_000 - P[0]).abs().max() < 0.02


def test_generation_is_what_the_model_says() -> None:
    """Greedy text from state is the text that full passes give, token by token."""
    model = small(torch.float64)
    prompt = list(range(30))
    found = [t[0] for t in generate(model, prompt, SamplingConfig(max_tokens=40, temperature=0), end=-1)]
    ids = prompt
    for token in found:
        with torch.no_grad():
            assert int(model(torch.tensor([ids]))[0, -1].argmax()) == token
        ids = [*ids, token]


def test_the_limit_and_the_end_are_honoured() -> None:
    model = small()
    config = SamplingConfig(max_tokens=17, samples=3, temperature=2.0, top_p=1.0)
    rows = list(generate(model, [1], config, end=-1))
    assert len(rows) == 17
    end = rows[4][1]
    rows = list(generate(model, [1], config, end=end))
    column = [row[1] for row in rows]
    first = column.index(None)
    assert first <= 4
    assert all(t is None for t in column[first:])
    assert list(generate(model, [1], SamplingConfig(max_tokens=0), end=-1)) == []


def push_all(text: str, stops: list[str]) -> tuple[list[str], str]:
    stream = TextStream(ByteTokenizer().stream(), stops)
    shown = [stream.push(b) for b in text.encode()]
    return shown, "".join(shown) + stream.finish()


def test_stop_strings_never_show_even_in_part() -> None:
    shown, whole = push_all("one END two", ["END"])
    assert whole == "one "
    assert "".join(shown) == "one "
    assert push_all("one EN two", ["END"])[1] == "one EN two"
    assert push_all("abab abac", ["abac", "zz"])[1] == "abab "
    assert push_all("ends with EN", ["END"])[1] == "ends with EN"
    assert push_all("é—x", ["—"])[1] == "é"


def test_half_a_character_is_not_shown() -> None:
    stream = TextStream(ByteTokenizer().stream())
    assert [stream.push(b) for b in "é".encode()] == ["", "é"]
    assert stream.push(0xC3) == ""
    assert stream.finish() == "\ufffd"


def test_word_perplexity_of_a_uniform_model() -> None:
    from reformer_cli.evaluation.likelihood import Score

    score = Score(tokens=10, bytes=20, characters=10, words=5, nats=10 * math.log(4))
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_byte == pytest.approx(1)
    assert score.bits_per_character == pytest.approx(2)
    assert score.word_perplexity == pytest.approx(16)
    assert (score + score).perplexity == pytest.approx(4)
