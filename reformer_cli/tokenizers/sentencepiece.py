"""sentencepiece models of other programs, as they come: what they do to line breaks and rare characters is kept.

A tokenizer.model of this kind is a line of JSON and then the model, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import numpy.typing as npt
import sentencepiece

from reformer_cli.tokenizers.base import Ids, StatelessTokenizer, StreamDecoder, Tokenizer
from reformer_cli.tokenizers.sentencepiece_proto import ModelFacts, read_facts
from reformer_cli.utils.errors import UserError

KIND = "sentencepiece"
HEADER = b'{"kind": "sentencepiece"'
LARGEST_HEADER = 200  # bytes
LARGEST_VOCABULARY = 2**20
SPACE = "\u2581"
UNKNOWN = "\ufffd"  # what an unknown token is shown as
CHUNK = 100_000  # characters encoded at once, where a cut changes nothing
SPACES = {"\n": "line breaks", "\r": "line breaks", "\t": "tabs", " ": "spaces"}


class SentencePieceTokenizer(StatelessTokenizer):
    """Ids as the model gives them. Not lossless: most models turn line breaks and runs of spaces into one space, and
    all have one token for every character they do not know.

    end: id of the token that separates documents; None: the model's own. vocab_size: of the language model, where that
    has more rows than there are pieces. Raises UserError for bytes that are no model, or have no such token.
    """

    kind = KIND
    lossless = False

    def __init__(
        self, model: bytes, where: str = "the tokenizer", end: int | None = None, vocab_size: int | None = None
    ) -> None:
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            n = self._processor.get_piece_size()
            self.pieces = [self._processor.id_to_piece(i) for i in range(n)]
            self.facts: ModelFacts = read_facts(model)
        except Exception as error:  # the library raises RuntimeError or worse for bytes that are no model
            raise UserError(f"{where} is not a sentencepiece model ({error})", "it is damaged") from None
        self.vocab_size = vocab_size if vocab_size is not None else n
        if not n <= self.vocab_size <= LARGEST_VOCABULARY:
            raise UserError(
                f"{where} has {n:,} pieces, the model {self.vocab_size:,} tokens", "they do not belong together"
            )
        found = end if end is not None else self.own_end()
        if found is None or not self.separates(found):
            what = "has no token for the end of a text" if found is None else f"gives token {found} to texts"
            raise UserError(f"{where} {what}", "documents could not be told apart")
        self.end = found
        self._bytes = [self._bytes_of(i) for i in range(n)] + [b""] * (self.vocab_size - n)
        facts = self.facts
        words_apart = not any(SPACE in piece[1:] for piece in self.pieces)
        self._cuts = facts.dummy_prefix and facts.collapses_spaces and words_apart and not facts.spaces_after_words

    def own_end(self) -> int | None:
        """What the model itself calls the end of a text, else its padding or beginning."""
        p = self._processor
        return next((i for i in (p.eos_id(), p.pad_id(), p.bos_id()) if i >= 0 and self.separates(i)), None)

    def separates(self, token: int) -> bool:
        """Whether no text is ever given this token."""
        n = len(self.pieces)
        return self._processor.is_control(token) if 0 <= token < n else n <= token < self.vocab_size

    def unknown(self) -> int:
        """The token of what the model does not know."""
        return int(self._processor.unk_id())

    def special(self, test: str) -> list[int]:
        """Ids of pieces of a kind: control, unknown, byte."""
        is_so = getattr(self._processor, f"is_{test}")
        return [i for i in range(len(self.pieces)) if is_so(i)]

    def score(self, token: int) -> float:
        """The model's score of a piece: the higher, the sooner it is taken."""
        return float(self._processor.get_score(token))

    def _bytes_of(self, token: int) -> bytes:
        p, piece = self._processor, self.pieces[token]
        if p.is_control(token):
            return b""
        if p.is_unknown(token):
            return UNKNOWN.encode()
        if p.is_byte(token):
            return bytes([int(piece[3:-1], 16)])  # <0x0A>
        return piece.replace(SPACE, " ").encode()

    def encode(self, text: str) -> Ids:
        parts = [np.asarray(self._processor.encode(part), np.int32) for part in self._chunks(text)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def _chunks(self, text: str) -> list[str]:
        """Pieces of a long text, cut at spaces where the model would put one of its own; else the text."""
        if not self._cuts:
            return [text]
        found, start, cut = [], 0, re.compile(r" (?=\w)")
        while match := cut.search(text, start + CHUNK):
            found.append(text[start : match.start()])
            start = match.end()
        return [*found, text[start:]]

    def decode(self, ids: Ids) -> str:
        stream = self.stream()
        text = "".join(stream.push(int(n)) for n in ids) + stream.finish()
        return text[1:] if self.facts.dummy_prefix and text.startswith(" ") else text

    def byte_lengths(self) -> npt.NDArray[np.float64]:
        lengths = np.array([len(piece) for piece in self._bytes], np.float64)
        lengths[self.unknown()] = 1.0  # of one byte or more
        return lengths

    def stream(self) -> StreamDecoder:
        return StreamDecoder(self._bytes, {})

    def serialise(self) -> bytes:
        header = json.dumps({"kind": KIND, "end": self.end, "vocab_size": self.vocab_size})
        return header.encode() + b"\n" + self.model


def deserialise(data: bytes, where: str) -> SentencePieceTokenizer:
    """What `serialise` wrote; it may come from anyone. Raises UserError if it is damaged."""
    head, newline, _ = data[:LARGEST_HEADER].partition(b"\n")
    try:
        header = json.loads(head)
        end, size = header["end"], header["vocab_size"]
        if not newline or type(end) is not int or type(size) is not int:
            raise ValueError("end and vocab_size are not numbers")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where} has no whole first line ({error})", "it is damaged") from None
    return SentencePieceTokenizer(data[len(head) + 1 :], where, end, size)


def losses(tokenizer: Tokenizer, text: str) -> str:
    """What of a text its tokens do not give back, for people: '12 line breaks, 3 other characters (é 2, ß 1)'."""
    back = tokenizer.decode(tokenizer.encode(text))
    if back == text:
        return ""
    lost = Counter(text) - Counter(back)
    spaces = Counter(dict.fromkeys(SPACES.values(), 0))
    for char, name in SPACES.items():
        spaces[name] += lost.pop(char, 0)
    # A line break that became a space would make up for one that went.
    spaces["spaces"] = max(spaces["spaces"], _repeated(text) - _repeated(back))
    found = [f"{n:,} {name}" for name, n in spaces.items() if n]
    if lost:
        most = ", ".join(f"{char!r} {n:,}" for char, n in lost.most_common(5))
        found.append(f"{lost.total():,} other characters ({most}{', ...' if len(lost) > 5 else ''})")
    return ", ".join(found) or "the order of its characters"


def _repeated(text: str) -> int:
    """Spaces that follow a space."""
    return len(re.findall("(?<= ) ", text))
