"""Texts of several people, drawn together: each as alone, with its own faults."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.drawing import draw_rows
from reformer_cli.sampling.history import History
from reformer_cli.sampling.repeats import Repeats, breakers
from reformer_cli.tokenizers.base import ByteTokenizer

SIZE = 1500  # so large that top-p first looks at a part
ASKED: list[dict[str, Any]] = [
    {}, {"temperature": 0.5, "top_p": 0.6}, {"temperature": 1.7, "min_p": 0.02}, {"temperature": 0}, {"top_k": 9},
    {"xtc_probability": 0.5}, {"xtc_probability": 0.9, "xtc_threshold": 0.01}, {"mirostat": 2}, {"typical_p": 0.5},
    {"mirostat": 2, "mirostat_tau": 2.0, "temperature": 1.2}, {"presence_penalty": 1.5}, {"no_repeat_ngram_size": 2},
    {"dynatemp_range": 0.4, "temperature": 1.1}, {"samplers": "top_p;temperature"}, {"dry_allowed_length": 1},
]  # fmt: skip


class Text:
    """One text, beyond any model."""

    def __init__(self, seed: int, **asked: Any) -> None:
        self.config = SamplingConfig(**asked)
        repeats = Repeats(breakers(ByteTokenizer(), ""), self.config.dry_allowed_length)
        self.history = History(ngram=self.config.no_repeat_ngram_size, repeats=repeats)
        self.history.extend([1, 2, 3, 1, 2])
        self.generator = torch.Generator().manual_seed(seed)


def drawn(texts: list[Text], logits: torch.Tensor) -> list[int | Exception]:
    """One token more of each."""
    rows = ([t.config for t in texts], [t.history for t in texts], [t.generator for t in texts])
    found = draw_rows(logits, *rows)
    for text, token in zip(texts, found, strict=True):
        if isinstance(token, int):
            text.history.extend([token % 256], drawn=True)
    return found


def test_each_draws_what_it_draws_alone() -> None:
    together, alone = ([Text(n % 7, **asked) for n, asked in enumerate(ASKED * 2)] for _ in range(2))
    given = torch.Generator().manual_seed(0)
    for _ in range(25):
        logits = torch.randn(len(together), SIZE, generator=given) * 4
        found = drawn(together, logits)
        assert found == [drawn([text], row)[0] for text, row in zip(alone, logits.split(1), strict=True)]


class Broken(Repeats):
    def lengths(self) -> dict[int, int]:
        raise OSError("gone")


def test_a_fault_is_of_one_text_and_costs_the_others_no_random_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended every text that was drawn with it."""
    together, alone = ([Text(n, **ASKED[n % 3]) for n in range(6)] for _ in range(2))
    together[4].history.repeats = Broken(together[4].history.repeats.breakers, 4)
    for _ in range(5):
        logits = torch.randn(6, SIZE) * 4
        found, expected = drawn(together, logits), drawn(alone, logits)
        assert isinstance(found.pop(4), OSError)
        assert found == expected[:4] + expected[5:]
