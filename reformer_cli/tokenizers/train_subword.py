"""Vocabularies made from texts: how large, with case markers or without, and whether parts of words are worth it."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import sentencepiece

from reformer_cli.config.schema import SubwordKind
from reformer_cli.tokenizers.base import Ids
from reformer_cli.tokenizers.case_markers import CAPITAL, CAPITALS, GLUED, SELDOM, add_markers, gluing_in
from reformer_cli.tokenizers.subword import (
    END,
    LONGEST,
    NIBBLES,
    PRIVATE,
    RESERVED,
    SPACE,
    SYMBOLS,
    TAKEN,
    UNKNOWN,
    SubwordTokenizer,
    rare_pattern,
    rewrite,
)  # fmt: skip
from reformer_cli.utils.errors import UserError

SAMPLE = 8_000_000  # characters that training looks at
TRIAL, TRIAL_SIZE = 100_000, 512  # characters, and tokens, with which it is tried whether case markers are worth it
LEAST_TRIED = 50_000  # characters below which that says nothing
MOST_LENGTHENED = 0.06
OFTEN = (
    20  # times that a character occurs in what training looks at, from which it is given a token if that is possible
)
MEASURED = 1_000_000  # characters on which a finished vocabulary is measured
NOISE = 0.97  # of the bits of its bytes, one by one, that a text takes in parts of words if it is made of words
LINE_ENDS = re.compile(f"[{SYMBOLS[chr(10)]}{GLUED[chr(10)]}]")


def choose_vocab_size(n_characters: int, frequent: int = 0) -> int:
    """Tokens for a corpus of this length: a power of two with about 600 characters of text to a token, or more so that
    as many frequent characters as it has are half of them, as in Chinese.

    Fewer, and rare tokens are seen too seldom to be learnt; more, and texts are longer than they need be
    (measured on Crime and Punishment: LOG.md, 2026-11-24).
    """
    size = 256
    while size < 32_768 and (n_characters > 600 * 2 * size or frequent > (size - RESERVED) // 2):
        size *= 2
    return size


def train_subwords(
    texts: Iterable[str | Iterable[str]], vocab_size: int | None = None, characters: int | None = None, *,
    kind: SubwordKind = "bpe", case_markers: bool = True,
) -> SubwordTokenizer:  # fmt: skip
    """Train on texts, each whole or in pieces, of so many characters in all: `train_on` a sample of them."""
    return train_on(*sample_of(texts, characters), vocab_size, kind, case_markers)


def train_on(
    sample: list[str], characters: int, vocab_size: int | None = None, kind: SubwordKind = "bpe",
    case_markers: bool = True,
) -> SubwordTokenizer:  # fmt: skip
    """Train on a sample of texts of so many characters; vocab_size: None, to have it chosen; case_markers: with them,
    unless they lengthen the text.

    A vocabulary that the texts cannot fill is made smaller. At most half of it are single characters, the most
    frequent ones. Repeats bit for bit.
    """
    if vocab_size is None:
        counts = Counter(char for part in sample for char in part)
        vocab_size = choose_vocab_size(characters, sum(n >= OFTEN for n in counts.values()))
    if case_markers and not _lengthened(sample, vocab_size, kind):
        found = _train_on(sample, vocab_size, kind, True)
        if bytes_per_token(found, sample) >= 1:
            return found
    return _train_on(sample, vocab_size, kind, False)


def sample_of(texts: Iterable[str | Iterable[str]], characters: int | None = None) -> tuple[list[str], int]:
    """(what of the texts training looks at, the characters of all of them)."""
    if characters is None:
        whole = ["".join(text) for text in texts]
        texts, characters = whole, sum(map(len, whole))
    return list(_sample(texts, characters)), characters


def bytes_per_token(tokenizer: SubwordTokenizer, sample: list[str]) -> float:
    """Of a sample of a text; of nothing, 1."""
    texts, ids = _measured(tokenizer, sample)
    return len("".join(texts).encode()) / len(ids) if len(ids) else 1.0


def is_worth_it(tokenizer: SubwordTokenizer, sample: list[str]) -> bool:
    """Whether a vocabulary serves a text better than bytes: a token is more than a byte, and tells more than its bytes
    do one by one, which in a genome none does: there parts of words are but longer names for the same chances."""
    texts, ids = _measured(tokenizer, sample)
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    return len(ids) <= len(data) and (len(ids) == 0 or _bits(ids) < NOISE * _bits(data))


def _measured(tokenizer: SubwordTokenizer, sample: list[str]) -> tuple[list[str], Ids]:
    part = sample[:: max(1, len(sample) * LONGEST // MEASURED)]
    return part, np.concatenate([np.zeros(0, np.int32), *map(tokenizer.encode, part)])


def _bits(symbols: np.ndarray) -> float:
    """Of all of them if each is told by how often it occurs; by Miller and Madow's estimate, which is right for few."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / len(symbols))).sum() + (len(counts) - 1) / 2 / np.log(2))


def _lengthened(sample: list[str], vocab_size: int, kind: SubwordKind) -> bool:
    """Whether case markers lengthen a text by more than MOST_LENGTHENED, measured on a part of it.

    A novel takes 1 % more tokens, which are easier to predict; a text in capitals a third more, a genome in lines of
    capitals 9 %, of which none is predicted the better.
    """
    letters = [char for text in sample[::10] for char in text if char.isalpha()]
    if 2 * sum(char.lower() != char.upper() for char in letters) < len(letters):
        return True  # a script without capitals, and often without spaces
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
    alphabet = frozenset({" ", *SYMBOLS, *usable[: max(1, (vocab_size - reserved) // 2)]} - set(TAKEN))
    rare = rare_pattern(alphabet, case_markers)
    rewritten = [rewrite(part, rare, *((glued, alphabet) if case_markers else ())) for part in sample]
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
