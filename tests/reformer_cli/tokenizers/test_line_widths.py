"""Lengths of tokens on lines add up to what a reader would count."""

from __future__ import annotations

import pytest
import torch
from reformer.layers.line_position import LinePositions

from reformer_cli.tokenizers.base import ByteTokenizer, Tokenizer
from reformer_cli.tokenizers.enwik8_bytes import ShiftedByteTokenizer
from reformer_cli.tokenizers.line_widths import lengths_on_lines, usual_line
from reformer_cli.tokenizers.train_subword import train_subwords

TEXT = "“You?” he said. THE END\nSonia wept - O'Brien (the old one)\n\n  did not é, for he'd\n" * 30
KINDS = {
    "marked": train_subwords([TEXT], 400),
    "marked unigram": train_subwords([TEXT], 400, kind="unigram"),
    "not marked": train_subwords([TEXT], 400, case_markers=False),
    "bytes": ByteTokenizer(),
    "bytes+2": ShiftedByteTokenizer(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_knows_how_full_its_line_is(kind: str) -> None:
    tokenizer: Tokenizer = KINDS[kind]
    counting = LinePositions(128, tokenizer.vocab_size, 4)
    characters, ends = lengths_on_lines(tokenizer)
    counting.set_token_widths(torch.from_numpy(characters), torch.from_numpy(ends))
    ids = [tokenizer.end, *tokenizer.encode(TEXT[:300]).tolist()]
    found = counting(torch.tensor([ids]))[0].tolist()
    differ = set()
    for n, column in enumerate(found):
        text = tokenizer.decode(ids[: n + 1])  # bytes that are half a character are shown as one
        differ.add(column - len(text.rpartition("\n")[2]))
    # A sign that glues a word to it has taken the word's space back before it comes.
    assert differ == ({0, -1} if kind.startswith("marked") else {0})
    assert found[-1] == len(TEXT[:300].rpartition("\n")[2])


def test_documents_begin_with_a_line() -> None:
    tokenizer = KINDS["marked"]
    characters, ends = lengths_on_lines(tokenizer)
    assert (characters[tokenizer.end], ends[tokenizer.end]) == (0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_how_long_lines_are(kind: str) -> None:
    """More columns than lines have characters are never learnt: one line that was too long went on for 246."""
    lines = ["“You?” he said.", "THE END", "", "did not é, for he'd"] * 50
    text = "\n".join([*lines, "Sonia wept - O'Brien (the old one)", ""])
    assert usual_line(KINDS[kind], KINDS[kind].encode(text)) == len(lines[3])
    assert usual_line(KINDS[kind], KINDS[kind].encode("THE END\n" * 40)) is None
    assert usual_line(KINDS[kind], KINDS[kind].encode("")) is None


@pytest.mark.parametrize(
    ("text", "most"), [("x" * 5_000, 0), ("x" * 500, None), ("line\n" * 200, 4), ("x" * 3_000 + "\nend\n", None)]
)
def test_an_endless_line_is_none(text: str, most: int | None) -> None:
    """A genome, minified code: nothing is counted; of a text that is short it is not known."""
    tokenizer = ByteTokenizer()
    assert usual_line(tokenizer, tokenizer.encode(text)) == most
