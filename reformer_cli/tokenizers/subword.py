"""Parts of words as tokens, by sentencepiece, made lossless for every Unicode text at any vocabulary size.

unigram (Kudo 2018, arXiv 1804.10959) keeps the pieces that make the text likeliest and cuts a word the likeliest way;
bpe merges pairs. sentencepiece drops newlines and treats U+2581 as a space; its byte fallback costs 256 tokens, most of
a vocabulary of 320. So the text is first rewritten: newline and tab become symbols of their own, and a character that
is not in the alphabet becomes the 4-bit halves of its UTF-8 bytes, 16 symbols that cover all of Unicode. A vocabulary
with markers for capitals is of marked text (case_markers.py).
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from typing import get_args

import numpy as np
import numpy.typing as npt
import sentencepiece

from reformer_cli.config.schema import SubwordKind
from reformer_cli.tokenizers.base import Ids, StreamDecoder, safe_pieces
from reformer_cli.tokenizers.case_markers import CAPITAL, CAPITALS, GLUED, MARKERS, SELDOM, add_markers, gluing_in
from reformer_cli.tokenizers.sentencepiece_proto import read_kind
from reformer_cli.utils.errors import UserError

# Private-use characters stand for the symbols; where a text holds them itself, they are spelt out like any rare one.
NIBBLES = [chr(0xE000 + n) for n in range(16)]
SYMBOLS = {"\n": "\ue010", "\t": "\ue011"}
SPACE = "\u2581"  # sentencepiece's own sign for a space
UNKNOWN, END = 0, 1
RESERVED = 2 + len(NIBBLES) + len(SYMBOLS)
SAMPLE = 8_000_000  # characters that training looks at
TRIAL, TRIAL_SIZE = 100_000, 512  # characters, and tokens, with which it is tried whether case markers are worth it
LEAST_TRIED = 50_000  # characters below which that says nothing
MOST_LENGTHENED = 0.06
LONGEST = 1_000  # characters handed to sentencepiece at once; while training it skips lines beyond 4,192 bytes
REMEMBERED, MEMORABLE = 2**18, 40  # words of which the tokens are kept, and the characters they may have


# A word with the spaces before it, spaces, or symbols: no token reaches beyond one of these.
_MARKERS = "".join([*NIBBLES, *SYMBOLS.values(), *MARKERS])
UNITS = re.compile(f"[{_MARKERS}]{{1,{LONGEST}}}| {{0,{LONGEST}}}[^ {_MARKERS}]{{1,{LONGEST}}}| {{1,{LONGEST}}}")
CHUNKS = re.compile(r"\n? *[^ \n]+|\n| +")  # of a text that is still to be marked: no marker minds what is outside one
QUOTES = "\"'"  # that open and close
PRIVATE = re.compile("[\ue000-\uf8ff]")
LINE_ENDS = re.compile(f"[{SYMBOLS[chr(10)]}{GLUED[chr(10)]}]")
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
        special = {UNKNOWN, END, *self._nibbles, *self._markers}
        self._pieces = [b"" if n in special else piece.translate(table).encode() for n, piece in enumerate(pieces)]
        alphabet = {piece.translate(table) for n, piece in enumerate(pieces) if len(piece) == 1 and n not in special}
        self._alphabet = frozenset(alphabet)
        self._rare = _rare_pattern(alphabet, self.has_case_markers)
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
        units = CHUNKS.findall(text) if self.has_case_markers else UNITS.findall(_rewrite(text, self._rare))
        return b"".join(map(self._words.__getitem__, units))

    def _ids_of_chunk(self, chunk: str) -> list[int]:
        marked = _rewrite(chunk, self._rare, self._glued, self._alphabet)
        return [n for unit in UNITS.findall(marked) for n in self._processor.encode(unit)]

    def prompt(self, text: str, first: bool = True) -> Ids:
        sign: list[int] = []
        if text and text[-1] in self._glued and not (text[-1] in QUOTES and text[-2:-1].strip() not in ("", *GLUED)):
            text, sign = text[:-1], [self._ids[GLUED[text[-1]]]]  # the model is to go on with a word
        if first and "\n" in self._glued and text[:1].isalpha():  # a first word is like others, not like a word's end
            return np.append(self.encode("\n" + text)[1:], np.asarray(sign, np.int32))
        return np.append(self.encode(text), np.asarray(sign, np.int32))

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


def choose_vocab_size(n_characters: int) -> int:
    """Tokens for a corpus of this length: a power of two with about 600 characters of text to a token.

    Fewer, and rare tokens are seen too seldom to be learnt; more, and texts are longer than they need be
    (measured on Crime and Punishment: LOG.md, 2026-11-24).
    """
    size = 256
    while size < 32_768 and n_characters > 600 * 2 * size:
        size *= 2
    return size


def train_subwords(
    texts: Iterable[str | Iterable[str]], vocab_size: int, characters: int | None = None, *,
    kind: SubwordKind = "bpe", case_markers: bool = True,
) -> SubwordTokenizer:  # fmt: skip
    """Train on texts, each whole or in pieces, of so many characters in all; case_markers: with them, unless they
    lengthen the text.

    A vocabulary that they cannot fill is made smaller. At most half of it are single characters, the most
    frequent ones. Repeats bit for bit.
    """
    if characters is None:
        whole = ["".join(text) for text in texts]
        texts, characters = whole, sum(map(len, whole))
    sample = list(_sample(texts, characters))
    if case_markers and _lengthened(sample, vocab_size, kind):
        case_markers = False
    return _train_on(sample, vocab_size, kind, case_markers)


def _lengthened(sample: list[str], vocab_size: int, kind: SubwordKind) -> bool:
    """Whether case markers lengthen a text by more than MOST_LENGTHENED, measured on a part of it.

    A novel takes 1 % more tokens, which are easier to predict; a text in capitals a third more, a genome in lines of
    capitals 9 %, of which none is predicted the better.
    """
    if sum(map(len, sample)) < LEAST_TRIED:
        return False
    part = sample[:: max(1, len(sample) * LONGEST // TRIAL)]
    plain, marked = (_train_on(part, min(vocab_size, TRIAL_SIZE), kind, markers) for markers in (False, True))
    lengths = [sum(len(found.encode(text)) for text in part) for found in (plain, marked)]
    return lengths[1] > (1 + MOST_LENGTHENED) * lengths[0]


def _train_on(sample: list[str], vocab_size: int, kind: SubwordKind, case_markers: bool) -> SubwordTokenizer:
    markers, glued = _markers_for(sample, vocab_size) if case_markers else ([], frozenset())
    counts = Counter(char for part in sample for char in part)
    if case_markers:  # letters are counted as they will be written
        everything = frozenset(counts) | {small for char in counts for small in char.lower()}
        counts = Counter(char for part in sample for char in add_markers(PRIVATE.sub(" ", part), glued, everything))
    # Control characters upset sentencepiece's text format, and seldom occur.
    usable = [
        c for c, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if c.isprintable() and c != SPACE
    ]
    reserved = RESERVED + len(markers)
    alphabet = frozenset({" ", *SYMBOLS, *usable[: max(1, (vocab_size - reserved) // 2)]} - set(_MARKERS))
    rare = _rare_pattern(alphabet, case_markers)
    rewritten = [_rewrite(part, rare, *((glued, alphabet) if case_markers else ())) for part in sample]
    lines = [line for part in rewritten for line in LINE_ENDS.split(part) if line]
    while True:
        try:
            return SubwordTokenizer(_train(lines or [" "], vocab_size, markers, kind))
        except RuntimeError as error:
            limit = re.search(r"value <= (\d+)", str(error))
            smaller = int(limit.group(1)) if limit else vocab_size // 2
            if not reserved < smaller < vocab_size:
                raise UserError(
                    f"no vocabulary of {vocab_size} tokens can be made of this corpus", "use --set tokenizer=bytes"
                ) from None
            vocab_size = smaller


def _markers_for(sample: list[str], vocab_size: int) -> tuple[list[str], frozenset[str]]:
    """The markers that are worth a place each, and the characters that are glued."""
    counts = sum(map(gluing_in, sample), Counter[str]())
    often = [char for char, n in counts.most_common(max(1, vocab_size // 64)) if n >= SELDOM]
    return [CAPITAL, CAPITALS, *(GLUED[char] for char in sorted(often))], frozenset(often)


def _train(lines: list[str], vocab_size: int, markers: list[str], kind: SubwordKind) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        model_type=kind,
        vocab_size=vocab_size,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=[*NIBBLES, *SYMBOLS.values(), *markers],
        unk_id=UNKNOWN,
        eos_id=END,
        bos_id=-1,
        pad_id=-1,
        num_threads=1,  # results do not depend on the machine
        max_sentence_length=2**16,
        minloglevel=2,
    )
    return out.getvalue()


def _rare_pattern(alphabet: Set[str], marked: bool) -> re.Pattern[str]:
    """What is spelt out. marked: of a text that has markers; in others what looks like one is the text's own."""
    return re.compile("[^" + re.escape("".join(sorted({*alphabet, *(_MARKERS if marked else "")}))) + "]")


def _rewrite(
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
