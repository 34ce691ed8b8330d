"""What tokens do to a line of text: how long they make it, and which end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer_cli.tokenizers.case_markers import NOTHING, after_marker

if TYPE_CHECKING:
    from reformer_cli.tokenizers.base import Ids, Tokenizer

USUAL, LEAST = 0.99, 100  # share of the lines; lines below which nothing is said of them
ENDLESS = 2_000  # characters a line from which so few lines are no lines: a genome, minified code


def lengths_on_lines(tokenizer: Tokenizer) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(characters that each token adds to its line, 1 where it ends a line), each [vocab_size].

    Of a token that ends a line, the characters are those after its last line's end. The end of a document ends a line.
    What takes the next space back counts one less. A character of several tokens counts once where they are bytes,
    and not at all where they are halves of bytes, which is what rare ones are.
    """
    decoder = tokenizer.stream()
    characters, ends = np.zeros(tokenizer.vocab_size, np.float32), np.zeros(tokenizer.vocab_size, np.float32)
    for token in range(tokenizer.vocab_size):
        piece, less = decoder.pieces[token], 0
        if token in decoder.nibbles:
            piece = b""
        elif token in decoder.markers:
            text, pending = after_marker(decoder.markers[token], NOTHING)
            piece, less = text.encode(), int(pending.glued)
        line = piece.rpartition(b"\n")[2]
        characters[token] = sum(byte & 0xC0 != 0x80 for byte in line) - less
        ends[token] = b"\n" in piece
    ends[tokenizer.end], characters[tokenizer.end] = 1, 0
    return characters, ends


def usual_line(tokenizer: Tokenizer, ids: Ids) -> int | None:
    """Characters that 99 of 100 of a text's lines do not exceed, empty lines apart; None for a text of few lines, 0 for
    one that has none to speak of."""
    characters, ends = lengths_on_lines(tokenizer)
    total = characters[ids].cumsum(dtype=np.float64)
    at = np.flatnonzero(ends[ids])
    begin = total[at] - characters[ids[at]]
    lengths = total[at[1:] - 1] - begin[:-1]
    lengths = lengths[lengths > 0]
    if len(lengths) < LEAST:
        return 0 if len(ids) and total[-1] > ENDLESS * (len(lengths) + 1) else None
    return int(np.ceil(np.quantile(lengths, USUAL)))
