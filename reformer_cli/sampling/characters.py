"""Only what can become characters: which tokens may follow bytes that wait for the rest of their character."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from reformer_cli.tokenizers.base import Tokenizer

Waiting = tuple[bytes, int | None]  # the bytes of a character that is not whole, and half of one more
NONE: Waiting = (b"", None)
# A first byte that narrows what the second may be (RFC 3629, section 4), and one for each length that does not.
SURROGATES = b"\xed"
NARROW, LIKE = b"\xe0\xed\xf0\xf4", {2: b"\xc2", 3: b"\xe1", 4: b"\xf1"}


class Characters:
    """Of a tokenizer: the tokens after which the text is still UTF-8, or could become so."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        decoder = tokenizer.stream()
        self.pieces, self.nibbles, self.markers = decoder.pieces, decoder.nibbles, decoder.markers
        self.end = tokenizer.end
        self._plain = [
            t not in self.nibbles and piece != b"" and _is_whole(piece) for t, piece in enumerate(self.pieces)
        ]
        self._masks: dict[tuple[Waiting, torch.device], Tensor] = {}

    def follow(self, tokens: Sequence[int], waiting: Waiting = NONE) -> Waiting:
        """What waits after these tokens. Bytes that became no character are forgotten."""
        for token in tokens:
            waiting = NONE if self._plain[token] else self._after(token, waiting) or NONE
        return waiting

    def refused(self, waiting: Waiting) -> Tensor:
        """Tokens that may not come next: bool [vocab_size]."""
        whole = waiting == NONE
        found = [not whole if plain else self._after(token, waiting) is None for token, plain in enumerate(self._plain)]
        return torch.tensor(found)

    def mask(self, waiting: Waiting, device: torch.device) -> Tensor:
        """What is added to logits: -inf at tokens that may not come next, 0 at others, float [vocab_size]."""
        if (key := (waiting, device)) not in self._masks:
            refused = self.refused(waiting)
            self._masks[key] = torch.zeros(len(refused)).masked_fill_(refused, -torch.inf).to(device)
        return self._masks[key]

    def _after(self, token: int, waiting: Waiting) -> Waiting | None:
        """What would wait after it; None where no character could come of it."""
        before, half = waiting
        if (nibble := self.nibbles.get(token)) is not None:
            if half is None:
                possible = any(_rest(before + bytes([nibble * 16 + low])) is not None for low in range(16))
                return (before, nibble) if possible else None
            new = bytes([half * 16 + nibble])
        elif half is not None or (before and (token in self.markers or token == self.end)):
            return None
        elif not self.pieces[token] and token not in self.markers and token != self.end:
            return None  # stands for nothing: what the vocabulary does not know
        else:
            new = self.pieces[token]
        rest = _rest(before + new)
        return None if rest is None else (rest, None)


@lru_cache(maxsize=4)
def characters_of(tokenizer: Tokenizer) -> Characters:
    """Those of a tokenizer, made once: each text of a server asks for them."""
    return Characters(tokenizer)


def _is_whole(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _rest(data: bytes) -> bytes | None:
    """The bytes at the end that wait for more, as the first of those that behave alike; None: this is no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data)
    except UnicodeDecodeError:
        return None
    rest = decoder.getstate()[0]
    if rest[:1] == SURROGATES and rest[1:] >= b"\xa0":  # Python waits for these, to refuse them whole
        return None
    if not rest or (len(rest) == 1 and rest in NARROW):
        return rest
    length = 2 if rest[0] < 0xE0 else 3 if rest[0] < 0xF0 else 4
    return LIKE[length - len(rest) + 1]  # so many bytes are still to come, whatever they are
