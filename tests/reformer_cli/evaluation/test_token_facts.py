"""Facts of tokens add up to those of the text, wherever tokens begin."""

from __future__ import annotations

from reformer_cli.evaluation.token_facts import facts_of
from reformer_cli.tokenizers.base import ByteTokenizer


def test_facts_are_of_the_token_in_which_a_thing_begins() -> None:
    text = "é ab"
    found = facts_of(text, ByteTokenizer().encode(text), ByteTokenizer().byte_lengths())
    assert found.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0]]
