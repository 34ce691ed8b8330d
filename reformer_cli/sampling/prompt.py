"""What a model goes on from: a prompt in the characters of its training text, or the beginning of a paragraph."""

from __future__ import annotations

import re

from reformer_cli.tokenizers.base import Prompt, Tokenizer

QUOTES = {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "…": "..."}
BEFORE = r"(?<![^\s(\[—–-])"  # where a quotation mark opens


def matched(tokenizer: Tokenizer, text: str) -> str:
    """The text with the line ends, and the quotation marks and dashes, that the tokenizer has tokens for."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for curly, straight in QUOTES.items():
        if curly in text and not _known(tokenizer, curly) and _known(tokenizer, straight):
            text = text.replace(curly, straight)
    for straight, opening, closing in (('"', "“", "”"), ("'", "‘", "’")):
        if straight in text and not _known(tokenizer, straight) and _known(tokenizer, closing):
            text = re.sub(BEFORE + straight, opening, text).replace(straight, closing)
    return text


def prepared(tokenizer: Tokenizer, text: str, *, first: bool = True, as_typed: bool = False) -> tuple[str, Prompt]:
    """The prompt as the model is shown it, and its tokens. first: nothing comes before it; then no text at all means
    the beginning of a paragraph. as_typed: its characters and tokens are left as they are."""
    if as_typed:
        return text, Prompt(text, tokenizer.prompt(text, first).whole)
    if not text and first:
        return "", tokenizer.prompt("\n\n", first)
    text = matched(tokenizer, text)
    return text, tokenizer.prompt(text, first)


def _known(tokenizer: Tokenizer, text: str) -> bool:
    """Whether it has tokens of its own, and is not spelt in halves of bytes."""
    return 0.5 not in tokenizer.byte_lengths()[tokenizer.encode(text)]
