"""Words as they are compared. Guards against copies that hide behind capitals, quotation marks and hyphens."""

from __future__ import annotations

import pytest

from reformer_cli.novelty.words import words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("“Don’t!” HE said--'tis well-known_", "dont he said tis well known"),
        ("don't 'quoted' dogs' so\xadft", "dont quoted dogs soft"),
        ("Cafe\u0301 CAFÉ Straße ﬁn", "café café strasse fin"),
        ("हिन्दी में", "हिन्दी में"),
        ("她推开了门。Open ドア", "她 推 开 了 门 open ド ア"),
        ("…—* \n", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert [word.text for word in words_of(text)] == words.split()


def test_places_are_those_of_the_text() -> None:
    text = "She—“O’Brien,” I said."
    assert [text[w.start : w.stop] for w in words_of(text)] == ["She", "O’Brien", "I", "said"]
