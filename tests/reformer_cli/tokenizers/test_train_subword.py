"""How large a vocabulary is, and when a text is better served by bytes.

Guards against a genome in parts of words that are but longer names for the same chances, Chinese at 0.83 bytes a token
because its characters were spelt out, and a capital that costs a token of its own in a text of capitals.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders.reading import silent

from reformer_cli.config.schema import DataConfig
from reformer_cli.data.dataset import open_dataset
from reformer_cli.tokenizers.line_widths import usual_line
from reformer_cli.tokenizers.train_subword import OFTEN, choose_vocab_size, is_worth_it, sample_of, train_subwords

RARE = random.Random(0)
GENOME = "".join(RARE.choices("ACGT", k=60_000))
LINES = "\n".join(GENOME[n : n + 9] for n in range(0, 3_000, 9))
WORDS = ["".join(RARE.choices("etaoinshrdlu", k=RARE.randint(2, 8))) for _ in range(300)]
PROSE = "\n".join(" ".join(RARE.choices(WORDS, [1 / (n + 1) for n in range(300)], k=12)) for _ in range(900)) + "\n"
CHARACTERS = [chr(0x4E00 + 7 * n) for n in range(2_600)]
CHINESE = "\n".join(
    "".join(RARE.choices(CHARACTERS, [1 / (n + 1) for n in range(2_600)], k=RARE.randint(5, 30))) for _ in range(4_000)
)


def test_vocabulary_grows_with_the_corpus() -> None:
    sizes = [choose_vocab_size(n) for n in (1000, 465_000, 1_135_000, 10**8, 10**12)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 256
    assert sizes[-1] == 32_768


def test_frequent_characters_are_tokens() -> None:
    """Chinese, Zipf distributed: each character that is often met is a token, and never is a token less than a byte."""
    tokenizer = train_subwords([CHINESE])
    assert not tokenizer.has_case_markers
    assert len(CHINESE.encode()) > 1.5 * len(tokenizer.encode(CHINESE))
    for char, n in Counter(CHINESE).items():
        assert n < OFTEN or len(tokenizer.encode(char)) == 1, (char, n)
    assert tokenizer.decode(tokenizer.encode(CHINESE)) == CHINESE


@pytest.mark.parametrize("text", [GENOME, GENOME.lower(), "".join(RARE.choices("0123456789", k=60_000))])
def test_parts_of_words_are_noise_where_there_are_no_words(text: str, tmp_path: Path) -> None:
    """One endless line of letters that nothing foretells: bytes, and no lines to count."""
    assert not is_worth_it(train_subwords([text]), sample_of([text])[0])
    (tmp_path / "t.txt").write_text(text, "utf-8")
    found = open_dataset(DataConfig(corpus=(str(tmp_path / "t.txt"),)), silent)
    assert found.tokenizer.kind == "bytes"
    assert found.tokens.bytes_per_token == pytest.approx(1, abs=1e-3)
    assert usual_line(found.tokenizer, np.asarray(found.tokens.train, np.int32)) == 0


@pytest.mark.parametrize(
    "text", [PROSE, PROSE.replace("\n", ";"), PROSE.upper(), CHINESE], ids=["", "line", "upper", "zh"]
)
def test_texts_of_words_gain_by_them(text: str) -> None:
    """Also all on one line, as minified code is."""
    assert is_worth_it(train_subwords([text]), sample_of([text])[0])


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize(
    "text", [GENOME[:3_000], "\n".join(GENOME[n : n + 9] for n in range(0, 3_000, 9)), PROSE.upper()[:3_000]]
)
def test_capitals_never_cost_more_than_they_are(text: str, size: int) -> None:
    """Also in a text too short for a trial of case markers."""
    tokenizer = train_subwords([text], size)
    assert len(tokenizer.encode(text)) <= len(text)
