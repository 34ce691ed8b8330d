"""Parts of words as tokens, by sentencepiece, made lossless for every Unicode text at any vocabulary size.

unigram (Kudo 2018, arXiv 1804.10959) keeps the pieces that make the text likeliest and cuts a word the likeliest way;
bpe merges pairs. sentencepiece drops newlines and treats U+2581 as a space; its byte fallback costs 256 tokens, most of
a vocabulary of 320. So the text is first rewritten: newline and tab become symbols of their own, and a character that
is not in the alphabet becomes the 4-bit halves of its UTF-8 bytes, 16 symbols that cover all of Unicode. A vocabulary
with markers for capitals is of marked text (case_markers.py).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Set
from typing import get_args

import numpy as np
import numpy.typing as npt
import sentencepiece

from reformer_cli.config.schema import SubwordKind
from reformer_cli.tokenizers.base import Ids, Prompt, Spelling, StreamDecoder, safe_pieces
from reformer_cli.tokenizers.case_markers import CAPITAL, CAPITALS, GLUED, MARKERS, add_markers
from reformer_cli.tokenizers.sentencepiece_proto import read_kind
from reformer_cli.utils.errors import UserError

# Private-use characters stand for the symbols; where a text holds them itself, they are spelt out like any rare one.
NIBBLES = [chr(0xE000 + n) for n in range(16)]
SYMBOLS = {"\n": "\ue010", "\t": "\ue011"}
SPACE = "\u2581"  # sentencepiece's own sign for a space
LAST = chr(0x10FFFF)  # of all characters
UNKNOWN, END = 0, 1
RESERVED = 2 + len(NIBBLES) + len(SYMBOLS)
LONGEST = 1_000  # characters handed to sentencepiece at once; while training it skips lines beyond 4,192 bytes
TAKEN_BACK = 8  # characters at the end of a prompt without spaces that are spelt anew
REMEMBERED, MEMORABLE = 2**18, 40  # words of which the tokens are kept, and the characters they may have


# A word with the spaces before it, spaces, or symbols: no token reaches beyond one of these.
TAKEN = "".join([*NIBBLES, *SYMBOLS.values(), *MARKERS])
UNITS = re.compile(f"[{TAKEN}]{{1,{LONGEST}}}| {{0,{LONGEST}}}[^ {TAKEN}]{{1,{LONGEST}}}| {{1,{LONGEST}}}")
CHUNKS = re.compile(r"\n? *[^ \n]+|\n| +")  # of a text that is still to be marked: no marker minds what is outside one
PRIVATE = re.compile("[\ue000-\uf8ff]")
CROSSING = re.compile(f"[^{SPACE}]{SPACE}")


class _Words(dict[str, bytes]):
    """Unit or chunk -> its int32 ids as bytes. Most of a text has occurred before: much faster than asking anew."""

    def __init__(self, ids_of: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._ids_of = ids_of

    def __missing__(self, unit: str) -> bytes:
        ids = np.asarray(self._ids_of(unit), np.int32).tobytes()
        if len(unit) <= MEMORABLE:
            self[unit] = ids
        return ids


class AnotherProgramsError(UserError):
    """A sentencepiece model, but not one that was trained here."""


class SubwordTokenizer:
    """A trained vocabulary; the alphabet is its one-character pieces."""

    end = END
    lossless = True

    def __init__(self, model: bytes, where: str = "the tokenizer") -> None:
        self._model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            pieces = [self._processor.id_to_piece(n) for n in range(self._processor.get_piece_size())]
            self.kind = read_kind(model)
        except Exception as error:  # the library raises RuntimeError or worse for bytes that are no model
            raise UserError(f"{where} is not a sentencepiece model ({error})", "it is damaged") from None
        self._ids = ids = {piece: n for n, piece in enumerate(pieces)}
        self._sorted = sorted(ids)
        ours = self.kind in get_args(SubwordKind) and all(sign in ids for sign in [*NIBBLES, *SYMBOLS.values()])
        if not ours or not self._processor.is_control(END):
            raise AnotherProgramsError(
                f"{where} is a sentencepiece model of another program", "it is damaged or was replaced"
            )
        self.vocab_size = len(pieces)
        self._nibbles = {ids[sign]: n for n, sign in enumerate(NIBBLES)}
        plain = {sign: char for char, sign in SYMBOLS.items()} | {SPACE: " "}
        table = str.maketrans(plain)
        self._markers = {ids[sign]: sign for sign in MARKERS if sign in ids}
        self._glued = frozenset(char for char, sign in GLUED.items() if sign in ids)
        self._signs = {*self._nibbles, *self._markers}  # after which no text can be cut
        special = {UNKNOWN, END, *self._nibbles, *self._markers}
        self._pieces = [b"" if n in special else piece.translate(table).encode() for n, piece in enumerate(pieces)]
        alphabet = {piece.translate(table) for n, piece in enumerate(pieces) if len(piece) == 1 and n not in special}
        self._alphabet = frozenset(alphabet)
        self._rare = rare_pattern(alphabet, self.has_case_markers)
        if any(CROSSING.search(piece) for piece in pieces):
            raise UserError(f"{where} has tokens of several words", "it was made by another program")
        self._words = _Words(self._ids_of_chunk if self.has_case_markers else self._processor.encode)

    @property
    def has_case_markers(self) -> bool:
        """Whether text is marked (case_markers.py) before it is split."""
        return bool(self._markers)

    def encode(self, text: str) -> Ids:
        found = [self._encode(part) for part in safe_pieces([text])]
        return np.frombuffer(b"".join(found), np.int32)

    def _encode(self, text: str) -> bytes:
        if len(self._words) > REMEMBERED:
            self._words.clear()
        units = CHUNKS.findall(text) if self.has_case_markers else UNITS.findall(rewrite(text, self._rare))
        return b"".join(map(self._words.__getitem__, units))

    def _ids_of_chunk(self, chunk: str) -> list[int]:
        marked = rewrite(chunk, self._rare, self._glued, self._alphabet)
        return [n for unit in UNITS.findall(marked) for n in self._processor.encode(unit)]

    def prompt(self, text: str, first: bool = True) -> Prompt:
        chunks = CHUNKS.findall(text[-LONGEST:])
        if not chunks:
            return Prompt(text, self.encode(text).tolist())
        # A first word is like others, not like a word's end: it has the space that the end of a line takes back.
        sign = "\n" if first and "\n" in self._glued and text[:1].isalpha() else ""
        tail = chunks[-1] if len(chunks[-1]) <= MEMORABLE else ""
        ids = self.encode(sign + text[: len(text) - len(tail)]).tolist()
        ids = ids[1:] if sign and len(tail) < len(text) else [] if sign else ids
        if not tail:
            ids, tail = self._without_end(ids)
        lead = " " if sign else ""
        return Prompt(lead + text, ids, self._spellings(tail, sign if not ids else ""))

    def _without_end(self, ids: list[int]) -> tuple[list[int], str]:
        """All but the last few characters, which begin at a token: of a script without spaces."""
        stream, start = self.stream(), max(0, len(ids) - TAKEN_BACK * 8)
        stream.follow(ids[:start])
        pieces = [stream.feed(token) for token in ids[start:]]
        keep, held = len(pieces), b""
        while keep and (len(held.decode("utf-8", "ignore")) < TAKEN_BACK or ids[start + keep - 1] in self._signs):
            keep -= 1
            held = pieces[keep] + held
        return ids[: start + keep], held.decode()

    def _spellings(self, tail: str, sign: str) -> list[Spelling]:
        """Of a prompt's last word, whether it ends there, goes on, or goes on with a capital or in capitals. No token
        reaches beyond a unit, and the tokens before one are those of what they spell: so one token crosses the end, or
        none."""
        marked = dict.fromkeys(self._marked_end(tail, sign, more) for more in ("", "x", "X", "XX"))
        found: dict[tuple[tuple[int, ...], str], Spelling] = {}
        for *before, unit in (UNITS.findall(text) for text in marked if text):
            known = [n for one in before for n in self._processor.encode(one)]
            for cut in range(len(unit) + 1):
                rest = unit[cut:].replace(" ", SPACE)
                after = self._beginning_with(rest)
                if after or not rest:
                    tokens = [*known, *self._processor.encode(unit[:cut])]
                    found[tuple(tokens), rest] = Spelling(tokens, after)
        return list(found.values())

    def _beginning_with(self, start: str) -> list[int]:
        """The pieces that go on beyond this, if it is anything."""
        if not start:
            return []
        first = bisect_right(self._sorted, start)
        last = bisect_right(self._sorted, start + LAST, first)
        return sorted(self._ids[piece] for piece in self._sorted[first:last])

    def _marked_end(self, tail: str, sign: str, more: str) -> str:
        """The tail as it is rewritten where `more` follows it."""
        marks = (self._glued, self._alphabet) if self.has_case_markers else ()
        text = rewrite(sign + tail + more, self._rare, *marks)[len(sign) :]
        if not more:
            return text
        if not text.endswith((more, more.lower())):
            return ""  # a capital that the vocabulary does not know
        text = text[: -len(more)]
        return text if tail.endswith(" ") else text.removesuffix(" ").rstrip(CAPITAL + CAPITALS)

    def decode(self, ids: Ids) -> str:
        stream = self.stream()
        return "".join(stream.push(int(n)) for n in ids) + stream.finish()

    def byte_lengths(self) -> npt.NDArray[np.float64]:
        lengths = np.array([len(piece) for piece in self._pieces], np.float64)
        lengths[list(self._nibbles)] = 0.5
        for char in self._glued:  # less the space that is taken back
            lengths[self._ids[GLUED[char]]] = len(char.encode()) - 1
        return lengths

    def stream(self) -> StreamDecoder:
        return StreamDecoder(self._pieces, self._nibbles, self._markers)

    def serialise(self) -> bytes:
        return self._model

    def names(self) -> list[str]:
        """The pieces as sentencepiece names them, by id; of those that merges make, the first made come first."""
        return [self._processor.id_to_piece(n) for n in range(self.vocab_size)]


def rare_pattern(alphabet: Set[str], marked: bool) -> re.Pattern[str]:
    """What is spelt out. marked: of a text that has markers; in others what looks like one is the text's own."""
    return re.compile("[^" + re.escape("".join(sorted({*alphabet, *(TAKEN if marked else "")}))) + "]")


def rewrite(
    text: str, rare: re.Pattern[str], glued: frozenset[str] | None = None, letters: frozenset[str] = frozenset()
) -> str:
    """Rare characters as nibbles, then newline and tab as their symbols. glued, letters: for `add_markers`, or None."""
    if glued is not None:
        text = rare.sub(_spelt, add_markers(PRIVATE.sub(_spelt, text), glued, letters))
    else:
        text = rare.sub(_spelt, text)
    for char, sign in SYMBOLS.items():
        text = text.replace(char, sign)
    return text


def _spelt(match: re.Match[str]) -> str:
    return "".join(NIBBLES[b >> 4] + NIBBLES[b & 15] for b in match.group().encode())
