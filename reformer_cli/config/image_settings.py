"""Settings of data where the corpus is images: which go together, and what follows from which. Imports no torch."""

from __future__ import annotations

from typing import Any

LARGEST_SIDE = 4096  # pixels of an image
VALUES_PER_PIXEL = 3  # red, green, blue


class Unchosen(int):
    """A context that every grid of positions has, where the user names none: one is chosen once the text is known."""


def of_images(data: dict[str, Any]) -> list[str]:
    """What is wrong with data.* where the corpus is images; fills in the context, which follows from their size."""
    size = data.get("image_size")
    if not isinstance(size, (list, tuple)) or not all(type(n) is int for n in size) or len(size) != 2:
        return []  # text, or of a wrong type, which is told elsewhere
    if min(size) < 1 or max(size) > LARGEST_SIDE:
        return [f"data.image_size {list(size)}: both from 1 to {LARGEST_SIDE:,}"]
    values = VALUES_PER_PIXEL * size[0] * size[1]
    faults = []
    if isinstance(data.get("context"), Unchosen):
        data["context"] = values
    if data.setdefault("context", values) != values:
        faults.append(
            f"data.context {data['context']} is not {values}, the values of an image of {list(size)}; leave it out"
        )
    if (kind := data.get("tokenizer", "auto")) in ("unigram", "bpe"):
        faults.append(f"data.tokenizer {kind} is for text; of an image each byte is a token")
    if data.get("vocab_size") is not None:
        faults.append(
            f"data.vocab_size {data['vocab_size']}: images have 256 bytes and a token that begins one; leave it out"
        )
    return faults
