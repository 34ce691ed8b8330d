"""Byte pair encoding by sentencepiece, made lossless for every Unicode text at any vocabulary size.

sentencepiece drops newlines and treats U+2581 as a space; its byte fallback costs 256 tokens, most of a vocabulary of
320. So the text is first rewritten: newline and tab become symbols of their own, and a character that is not in the
alphabet becomes the 4-bit halves of its UTF-8 bytes, 16 symbols that cover all of Unicode.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import sentencepiece

from reformer_cli.errors import UserError
from reformer_cli.tokenization.tokenizer import Ids, StreamDecoder, safe_pieces

# Private-use characters stand for the symbols; where a text holds them itself, they are spelt out like any rare one.
NIBBLES = [chr(0xE000 + n) for n in range(16)]
SYMBOLS = {"\n": "\ue010", "\t": "\ue011"}
SPACE = "\u2581"  # sentencepiece's own sign for a space
UNKNOWN, END = 0, 1
RESERVED = 2 + len(NIBBLES) + len(SYMBOLS)
SAMPLE = 8_000_000  # characters that training looks at
LONGEST = 1_000  # characters handed to sentencepiece at once; while training it skips lines beyond 4,192 bytes
REMEMBERED, MEMORABLE = 2**18, 40  # words of which the tokens are kept, and the characters they may have


# A word with the spaces before it, spaces, or symbols: no token reaches beyond one of these.
_SIGNS = "".join([*NIBBLES, *SYMBOLS.values()])
UNITS = re.compile(f"[{_SIGNS}]{{1,{LONGEST}}}| {{0,{LONGEST}}}[^ {_SIGNS}]{{1,{LONGEST}}}| {{1,{LONGEST}}}")
CROSSING = re.compile(f"[^{SPACE}]{SPACE}")


class _Words(dict[str, bytes]):
    """Unit -> its int32 ids as bytes. Most words of a text have occurred before: much faster than asking anew."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        super().__init__()
        self._processor = processor

    def __missing__(self, unit: str) -> bytes:
        ids = np.asarray(self._processor.encode(unit), np.int32).tobytes()
        if len(unit) <= MEMORABLE:
            self[unit] = ids
        return ids


class AnotherProgramsError(UserError):
    """A sentencepiece model, but not one that was trained here."""


class BPETokenizer:
    """A trained vocabulary; the alphabet is its one-character pieces."""

    kind = "bpe"
    end = END
    lossless = True

    def __init__(self, model: bytes, where: str = "the tokenizer") -> None:
        self._model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            pieces = [self._processor.id_to_piece(n) for n in range(self._processor.get_piece_size())]
        except Exception as error:  # the library raises RuntimeError or worse for bytes that are no model
            raise UserError(f"{where} is not a sentencepiece model ({error})", "it is damaged") from None
        ids = {piece: n for n, piece in enumerate(pieces)}
        if not all(sign in ids for sign in [*NIBBLES, *SYMBOLS.values()]) or not self._processor.is_control(END):
            raise AnotherProgramsError(
                f"{where} is a sentencepiece model of another program", "it is damaged or was replaced"
            )
        self.vocab_size = len(pieces)
        self._nibbles = {ids[sign]: n for n, sign in enumerate(NIBBLES)}
        plain = {sign: char for char, sign in SYMBOLS.items()} | {SPACE: " "}
        table = str.maketrans(plain)
        special = {UNKNOWN, END, *self._nibbles}
        self._pieces = [b"" if n in special else piece.translate(table).encode() for n, piece in enumerate(pieces)]
        alphabet = {piece.translate(table) for n, piece in enumerate(pieces) if len(piece) == 1 and n not in special}
        self._rare = _rare_pattern(alphabet)
        if any(CROSSING.search(piece) for piece in pieces):
            raise UserError(f"{where} has tokens of several words", "it was made by another program")
        self._words = _Words(self._processor)

    def encode(self, text: str) -> Ids:
        found = [self._encode(part) for part in safe_pieces([text])]
        return np.frombuffer(b"".join(found), np.int32)

    def _encode(self, text: str) -> bytes:
        if len(self._words) > REMEMBERED:
            self._words.clear()
        return b"".join(map(self._words.__getitem__, UNITS.findall(_rewrite(text, self._rare))))

    def decode(self, ids: Ids) -> str:
        stream = self.stream()
        return "".join(stream.push(int(n)) for n in ids) + stream.finish()

    def byte_lengths(self) -> npt.NDArray[np.float64]:
        lengths = np.array([len(piece) for piece in self._pieces], np.float64)
        lengths[list(self._nibbles)] = 0.5
        return lengths

    def stream(self) -> StreamDecoder:
        return StreamDecoder(self._pieces, self._nibbles)

    def serialise(self) -> bytes:
        return self._model

    def names(self) -> list[str]:
        """The pieces as sentencepiece names them, by id; of those that merges make, the first made come first."""
        return [self._processor.id_to_piece(n) for n in range(self.vocab_size)]


def choose_vocab_size(n_characters: int) -> int:
    """Tokens for a corpus of this length: a power of two with about 600 characters of text to a token.

    Fewer, and rare tokens are seen too seldom to be learnt; more, and texts are longer than they need be
    (measured on Crime and Punishment, see LOG.md).
    """
    size = 256
    while size < 32_768 and n_characters > 600 * 2 * size:
        size *= 2
    return size


def train_bpe(texts: Iterable[str | Iterable[str]], vocab_size: int, characters: int | None = None) -> BPETokenizer:
    """Train on texts, each whole or in pieces, of so many characters in all.

    A vocabulary that they cannot fill is made smaller. At most half of it are single characters, the most
    frequent ones. Repeats bit for bit.
    """
    if characters is None:
        whole = ["".join(text) for text in texts]
        texts, characters = whole, sum(map(len, whole))
    sample = list(_sample(texts, characters))
    counts = Counter(char for part in sample for char in part)
    # Control characters upset sentencepiece's text format, and seldom occur.
    usable = [
        c for c, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if c.isprintable() and c != SPACE
    ]
    rare = _rare_pattern({" ", *SYMBOLS, *usable[: max(1, (vocab_size - RESERVED) // 2)]} - set(NIBBLES))
    lines = [line for part in sample for line in _rewrite(part, rare).split(SYMBOLS["\n"]) if line]
    while True:
        try:
            return BPETokenizer(_train(lines or [" "], vocab_size))
        except RuntimeError as error:
            limit = re.search(r"value <= (\d+)", str(error))
            smaller = int(limit.group(1)) if limit else vocab_size // 2
            if not RESERVED < smaller < vocab_size:
                raise UserError(
                    f"no vocabulary of {vocab_size} tokens can be made of this corpus", "use --set tokenizer=bytes"
                ) from None
            vocab_size = smaller


def _train(lines: list[str], vocab_size: int) -> bytes:
    import io

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=[*NIBBLES, *SYMBOLS.values()],
        unk_id=UNKNOWN,
        eos_id=END,
        bos_id=-1,
        pad_id=-1,
        num_threads=1,  # results do not depend on the machine
        max_sentence_length=2**16,
        minloglevel=2,
    )
    return out.getvalue()


def _rare_pattern(alphabet: set[str]) -> re.Pattern[str]:
    return re.compile("[^" + re.escape("".join(sorted(alphabet))) + "]")


def _rewrite(text: str, rare: re.Pattern[str]) -> str:
    """Rare characters as nibbles, then newline and tab as their symbols."""
    text = rare.sub(lambda m: "".join(NIBBLES[b >> 4] + NIBBLES[b & 15] for b in m.group().encode()), text)
    for char, sign in SYMBOLS.items():
        text = text.replace(char, sign)
    return text


def _sample(texts: Iterable[str | Iterable[str]], characters: int) -> Iterator[str]:
    """Pieces of at most LONGEST characters, evenly spread over all texts, about SAMPLE characters in all."""
    stride = max(1.0, characters / SAMPLE)
    place = 0.0  # where the next piece starts, counted over all texts
    offset = 0  # of `waiting`
    for text in texts:
        waiting = ""
        for part in [text] if isinstance(text, str) else text:
            waiting += part
            while int(place - offset) + LONGEST <= len(waiting):
                start = int(place - offset)
                yield waiting[start : start + LONGEST]
                place += LONGEST * stride
            cut = min(len(waiting), int(place - offset))
            waiting, offset = waiting[cut:], offset + cut
        while place < offset + len(waiting):
            piece = waiting[int(place - offset) : int(place - offset) + LONGEST]
            yield piece
            place += max(1, len(piece)) * stride
        offset += len(waiting)
        place = max(place, float(offset)) if stride == 1.0 else place
