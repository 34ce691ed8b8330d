"""What is learnt by how much reading: bits/byte of held-out text, forecast from a model's size and what it reads.

    bits/byte = E + ((A / N^a)^p + (B / D^b)^p)^(1/p)

N: million numbers in the matrices of layers; D: million bytes read, those read again counting ever less (Muennighoff et
al. 2023, arXiv 2305.16264), times (vocabulary / 1024)^g. Sums like this are Hoffmann et al.'s (arXiv 2203.15556; p = 1
there); p lets the scarcer of the two count for more, as in Kaplan et al. (arXiv 2001.08361). Constants: `python
benchmarks/choices.py fit`, from English novels read by models of 0.6 to 4.6 million numbers, 0.1 to 33 MB; beyond that
they are a judgement.
"""

from __future__ import annotations

import math

from reformer_cli.tokenizers.base import ByteTokenizer

E, A, SIZE, B, READ, SHARPNESS = 1.107, 0.458, 0.250, 1.014, 0.264, 3.94
AGAIN = 6.1  # readings beyond the first that all further ones are worth at most
LARGER_VOCABULARY = 0.122
ONE_BOOK = 0.126  # that the end of a single text is easier than the ends of many, as a share
MOST_READINGS, NOVEL, FEWER = 14.0, 1.1e6, 0.24  # of so many bytes, and by which power a shorter text has fewer
# Bits/byte of English novels in bz2, which other texts are measured by: of 2^18 characters; what it falls to, and by
# which power (2,000 to 262,144 characters of ten novels: 4.22, 3.34 of 10,000, 2.85 of 40,000, 2.40).
PROSE, ENDLESS_PROSE, PACKING = 2.36, 1.76, 0.285
# Of the starter, trained on one English text more (rows `continued` of benchmarks/choices.csv): what a million bytes of
# it leave of the bits/byte before, and by which power more or fewer do.
FAMILIAR, BY_READING = 0.876, 0.015
BYTES_PER_TOKEN, LENGTHENS = 2.82, 0.16  # of English prose, of a vocabulary of 1,024, and how it grows with that


def worth(read: float, text: float) -> float:
    """Bytes that as many bytes read of a text of so many are worth."""
    readings = read / max(1.0, text)
    return read if readings <= 1 else text * (1 + AGAIN * (1 - math.exp(-(readings - 1) / AGAIN)))


def most_readings(text: float) -> float:
    """Of a text of so many bytes, after which more make a new model worse (LOG.md, 2026-11-28)."""
    return MOST_READINGS * min(1.0, text / NOVEL) ** FEWER


def entropy(packed: float, characters: int) -> float:
    """Bits/byte of a text in bz2, were it 2^18 characters long: a shorter one packs worse, whatever it says."""
    prose = ENDLESS_PROSE + (PROSE - ENDLESS_PROSE) * (2**18 / max(1, characters)) ** PACKING
    return packed * PROSE / prose


def bits_per_byte(
    numbers: float, read: float, text: float, vocab_size: int, documents: int = 1, entropy: float = PROSE
) -> float:
    """Expected of a model with so many numbers in its layers that has read so many bytes of a text of `text` bytes.
    entropy: of the text in bz2, bits/byte."""
    larger = (max(256, vocab_size) / 1024) ** LARGER_VOCABULARY
    of_size = A / max(1e-3, numbers / 1e6) ** SIZE
    of_reading = B / max(1e-3, worth(read, text) * larger / 1e6) ** READ
    both = (of_size**SHARPNESS + of_reading**SHARPNESS) ** (1 / SHARPNESS)
    return (E + both) * (1 - ONE_BOOK / max(1, documents)) * entropy / PROSE


def continued(untrained: float, read: float, text: float) -> float:
    """Expected of the starter, which predicted samples of an English text of so many bytes with `untrained` bits/byte,
    once it has read so many bytes of it."""
    return untrained * FAMILIAR * (max(1e3, worth(read, text)) / 1e6) ** -BY_READING


def bytes_per_token(vocab_size: int) -> float:
    """Of English prose, about."""
    return 1.0 if vocab_size == ByteTokenizer.vocab_size else BYTES_PER_TOKEN * (vocab_size / 1024) ** LENGTHENS
