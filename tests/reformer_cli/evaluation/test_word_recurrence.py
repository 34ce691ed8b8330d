"""Distances to a word's last occurrence, by hand."""

from __future__ import annotations

import numpy as np

from reformer_cli.evaluation.word_recurrence import NEW, NO_WORD, recurrence
from reformer_cli.tokenizers.base import ByteTokenizer
from reformer_cli.tokenizers.train_subword import train_subwords

BYTES = ByteTokenizer()


def by_byte(text: str) -> tuple[list[int], list[bool]]:
    found = recurrence(text, BYTES.encode(text), BYTES.byte_lengths())
    return found.distance.tolist(), found.rare_name.tolist()


def test_every_byte_of_a_word_has_its_distance_and_other_bytes_none() -> None:
    distance, _ = by_byte("ab cd. AB")
    assert distance == [NEW, NEW, NO_WORD, NEW, NEW, NO_WORD, NO_WORD, 7, 7]


def test_characters_of_several_bytes_do_not_shift_what_follows() -> None:
    distance, _ = by_byte("é ü é")  # each letter two bytes: é at 0, ü at 3, é at 6
    assert distance == [NEW, NEW, NO_WORD, NEW, NEW, NO_WORD, 6, 6]


def test_rare_names_are_capitalised_and_never_small() -> None:
    text = "Sonia saw him. Him she saw, and Sonia wept. NATO did not."
    _, names = by_byte(text)
    marked = "".join(c for c, name in zip(text, names, strict=True) if name)
    assert marked == "SoniaSonia"  # not Him (occurs small), not NATO (all capitals)
    _, frequent = by_byte("Petersburg is far. " * 21)
    assert not any(frequent)


def test_tokens_that_begin_with_a_space_belong_to_the_word() -> None:
    text = "the old man and the old sea\n" * 40
    tokenizer = train_subwords([text], 80, kind="bpe")
    ids = tokenizer.encode(text)
    found = recurrence(text, ids, tokenizer.byte_lengths())
    line = int(np.flatnonzero(ids == tokenizer.encode("\n")[0])[0]) + 1  # tokens a line
    assert (found.distance == NO_WORD).sum() == 40  # the newlines alone
    # From the second line on, `man`, `and`, `sea` last occurred a line ago.
    texts = [tokenizer.decode(ids[n : n + 1]).strip() for n in range(len(ids))]
    for n, word in enumerate(texts):
        if n >= line and word in ("man", "and", "sea"):
            assert found.distance[n] == line, word


def test_nothing_in_nothing_out() -> None:
    assert by_byte("") == ([], [])
    assert by_byte(" .\n")[0] == [NO_WORD] * 3
