"""Beam search against every text there is."""

from __future__ import annotations

import itertools

import pytest
import torch
from builders.models import small

from reformer_cli.sampling.beam_search import search
from reformer_cli.sampling.config import SamplingConfig


@pytest.mark.parametrize("length", [1, 2, 3])
def test_enough_beams_find_the_likeliest_texts(length: int) -> None:
    model = small(torch.float64, vocab_size=5)
    with torch.no_grad():
        model.head.weight.mul_(30)  # far from uniform
    prompt = [0, 3, 1, 1, 2]
    found = search(model, prompt, SamplingConfig(max_tokens=length, num_beams=256, num_samples=3), end=-1)
    every = []
    for tail in itertools.product(range(5), repeat=length):
        ids = torch.tensor([[*prompt, *tail]])
        with torch.no_grad():
            logprob = model(ids[:, :-1]).log_softmax(-1).gather(2, ids[:, 1:, None])[0, len(prompt) - 1 :, 0]
        every.append((float(logprob.sum()) / length, list(tail)))
    every.sort(reverse=True)
    assert [one.tokens for one in found] == [tail for _, tail in every[:3]]
    assert [-one.rank() for one in found] == pytest.approx([score for score, _ in every[:3]], abs=1e-5)


def test_one_that_ends_competes_by_its_mean() -> None:
    model = small(torch.float64, vocab_size=5)
    with torch.no_grad():
        model.head.weight.mul_(30)
    plain = search(model, [0, 1], SamplingConfig(max_tokens=6, num_beams=8), end=-1)[0]
    ended = search(model, [0, 1], SamplingConfig(max_tokens=6, num_beams=8, num_samples=8), end=plain.tokens[1])
    assert any(one.ended for one in ended)
    for one in ended:
        assert one.ended == (one.tokens[-1] == plain.tokens[1])
        assert plain.tokens[1] not in one.tokens[:-1]
    ranks = [one.rank() for one in ended]
    assert ranks == sorted(ranks)


def test_penalties_count_in_the_search() -> None:
    model = small(torch.float64, vocab_size=5)
    found = search(model, [0, 1, 2, 3, 4], SamplingConfig(max_tokens=10, num_beams=4, no_repeat_ngram_size=2), end=-1)[
        0
    ]
    ids = [0, 1, 2, 3, 4, *found.tokens]
    pairs = list(itertools.pairwise(ids))
    assert len(set(pairs)) == len(pairs)
