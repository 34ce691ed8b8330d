"""DRY against the definition: the longest end of the text that stood before each token."""

from __future__ import annotations

import numpy as np
import pytest

from reformer_cli.sampling import repeats
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.repeats import Repeats, breakers
from reformer_cli.tokenizers.base import ByteTokenizer


def by_definition(tokens: list[int], apart: np.ndarray, least: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for at, token in enumerate(tokens):
        if at < len(tokens) - repeats.WINDOW:
            continue
        n = 0
        while n < repeats.LONGEST and n < at and tokens[at - 1 - n] == tokens[-1 - n] and not apart[tokens[-1 - n]]:
            n += 1
        if n >= least:
            found[token] = max(found.get(token, 0), n)
    return found


@pytest.mark.parametrize(("piecewise", "least"), [(True, 2), (False, 2), (True, 1), (True, 3)])
def test_lengths_are_the_definitions(monkeypatch: pytest.MonkeyPatch, piecewise: bool, least: int) -> None:
    """With a small window, so that what has left it is met; a prompt in one piece, or token by token."""
    monkeypatch.setattr(repeats, "WINDOW", 30)
    monkeypatch.setattr(repeats, "LONGEST", 6)
    random, apart = np.random.default_rng(0), np.zeros(8, bool)
    apart[7] = True
    tokens = random.choice(8, 300, p=[0.3, 0.3, 0.2, 0.05, 0.05, 0.03, 0.03, 0.04]).tolist()
    one = Repeats(apart, least)
    met = 0
    for n in range(100, 300):
        if piecewise:
            one.extend(tokens[: n + 1] if n == 100 else [tokens[n]])
        else:
            one = Repeats(apart, least)
            one.extend(tokens[: n + 1])
        found = one.lengths()
        met += len(found)
        assert found == by_definition(tokens[: n + 1], apart, least)
    assert met > 30


def test_breakers_are_tokens_that_hold_a_character() -> None:
    found = breakers(ByteTokenizer(), SamplingConfig().breakers)
    assert np.flatnonzero(found).tolist() == sorted(b'\n:"*')
