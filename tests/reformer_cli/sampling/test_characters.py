"""No byte that cannot become a character is ever drawn."""

from __future__ import annotations

import pytest
import torch
from builders.models import small

from reformer_cli.sampling.characters import NONE, Characters
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.tokenizers.base import ByteTokenizer, Tokenizer
from reformer_cli.tokenizers.train_subword import train_subwords

TEXT = "the cat and the dog sat on the mat; The End.\n" * 30


def possible(data: bytes) -> bool:
    """Whether something makes it whole."""
    return any(_is_whole(data + tail * n) for tail in (b"\x80", b"\xbf") for n in range(4))


def _is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("before", ["", "e", "\u20ac", "\u0939", "\ud55c", "\U0001f600", "\U00010348", "\U0010fffd"])
def test_bytes_that_may_follow_are_those_of_utf_8(before: str) -> None:
    """Each beginning of a character, and every byte after it, as Python's own decoder judges."""
    characters = Characters(ByteTokenizer())
    whole = before.encode()
    for n in range(len(whole) + 1):
        refused = characters.refused(characters.follow(list(whole[:n])))
        wanted = [not possible(whole[:n] + bytes([b])) for b in range(256)]
        assert refused[:256].tolist() == wanted
        assert bool(refused[256]) == (0 < n < len(whole))  # no text ends within a character


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_a_hot_model_writes_characters_only(kind: str) -> None:
    """A model of Chinese wrote 9 bytes in 625 that were none; at temperature 3 an untrained one writes them all."""
    tokenizer: Tokenizer = ByteTokenizer() if kind == "bytes" else train_subwords([TEXT], 64, kind="bpe")
    model = small(vocab_size=tokenizer.vocab_size)
    config = SamplingConfig(temperature=3.0, top_p=1.0, num_samples=4, seed=1)
    sampler = Sampler(model, config, tokenizer.end, tokenizer=tokenizer)
    sampler.read([tokenizer.end])
    rows = torch.tensor([sampler.draw().tokens for _ in range(150)]).T.tolist()
    for row in rows:
        waiting = sampler.histories[0].characters.follow(row)  # type: ignore[union-attr]
        stream = tokenizer.stream()
        text = "".join(map(stream.push, row))
        assert "\ufffd" not in text
        assert len(text) > 40
        assert waiting == NONE or any(map(int, row))
