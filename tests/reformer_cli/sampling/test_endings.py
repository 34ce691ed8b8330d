"""Where a text stops by itself, however its pieces arrive."""

from __future__ import annotations

import pytest

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.endings import Endings, Unit
from reformer_cli.sampling.text_stream import TextStream
from reformer_cli.tokenizers.base import ByteTokenizer

TEXT = (
    'ld not. "Mr. Poe is here!" She went. And\nthen she slept.\n\n     * * *\n\nIt was late... so late. Rain\nfell.\n\n'
    "CHAPTER II\n\nMorning came."
)


def written(text: str, **endings: object) -> str:
    """What is shown of it, byte by byte: nothing is ever taken back."""
    stream, shown = TextStream(ByteTokenizer().stream(), (), Endings(**endings)), ""  # type: ignore[arg-type]
    for byte in text.encode():
        shown += stream.push(byte)
        if stream.ended:
            break
    return shown + stream.finish()


@pytest.mark.parametrize(
    ("unit", "end"),
    [
        ("sentence", "ld not."),
        ("paragraph", "then she slept."),
        ("scene", "then she slept."),
        ("chapter", "Rain\nfell."),
    ],
)
def test_a_unit_ends_there_and_not_later(unit: Unit, end: str) -> None:
    assert written(TEXT, at=unit) == TEXT[: TEXT.index(end) + len(end)]


def test_a_title_ends_no_sentence() -> None:
    assert written(TEXT[8:], at="sentence") == '"Mr. Poe is here!"'
    assert written("他走了。她说", at="sentence") == "他走了。"


def test_what_comes_before_a_word_ends_nothing() -> None:
    assert written('"\n\nOne. Two.', at="paragraph") == '"\n\nOne. Two.'
    assert written('... "\n\nOne. Two.', at="sentence") == '... "\n\nOne.'


def test_about_so_many_words_end_a_sentence_or_a_word() -> None:
    text = "One two three four five. Six seven eight. Nine ten."
    assert written(text, words=5) == "One two three four five."
    assert written(text, words=8) == "One two three four five. Six seven eight."
    assert written("one " * 40, words=10) == ("one " * 12).strip()
    assert written(text, words=99) == text


def test_until_a_text() -> None:
    assert written(TEXT, until=["She went."]) == TEXT[: TEXT.index(" And")]
    assert written(TEXT, until=["nowhere"]) == TEXT


def test_a_unit_may_take_as_many_tokens_as_it_does() -> None:
    """--stop-at chapter stopped after 500 tokens, which is what --max-tokens was by itself."""
    assert SamplingConfig(stop_at="chapter").max_tokens == 20_000
    assert SamplingConfig(stop_at="chapter", max_tokens=7).max_tokens == 7
    assert SamplingConfig(max_words=300).max_tokens == 1_800
    assert SamplingConfig().max_tokens == 500
