"""What may not come again, and what is made likelier or not by its text."""

from __future__ import annotations

import pytest
import torch
from builders.models import small

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import generate
from reformer_cli.sampling.history import History, TextBias
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.tokenizers.base import ByteTokenizer, StreamDecoder
from reformer_cli.tokenizers.case_markers import CAPITAL
from reformer_cli.tokenizers.train_subword import train_subwords


class Pieces(ByteTokenizer):
    """A tokenizer with longer tokens, and one that splits a byte in two."""

    def __init__(self, pieces: list[bytes], nibbles: dict[int, int]) -> None:
        self.pieces, self.nibbles = pieces, nibbles

    def stream(self) -> StreamDecoder:
        return StreamDecoder(self.pieces, self.nibbles)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_comes_twice(n: int) -> None:
    model = small()
    texts = Sampler(model, SamplingConfig(no_repeat_ngram_size=n, temperature=0.3, num_samples=2), end=0)
    texts.read([1, 2, 3, 1, 2])
    rows = [texts.draw().tokens for _ in range(40)]
    for row in range(2):
        ids = [1, 2, 3, 1, 2, *(r[row] for r in rows)]
        found = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        found = [g for g in found[5 - n + 1 :] if 0 not in g]
        assert len(set(found)) == len(found)


def test_the_end_may_always_come() -> None:
    history = History(ngram=1, end=0)
    history.extend([0, 5, 0, 7])
    assert sorted(history.repeating()) == [5, 7]


def test_a_copy_goes_its_own_way() -> None:
    bias = TextBias([("ab", 1.0)], ByteTokenizer())
    one = History(ngram=2, bias=bias)
    one.extend(b"xa")
    other = one.copy()
    other.extend(b"b")
    assert one.tokens == list(b"xa")
    assert one.repeating() == []
    assert [t.tolist() for t, _ in one.biases()] == [[ord("b")]]
    assert other.biases() == []
    other.extend(b"xa")
    assert other.repeating() == [ord("b")]


def test_whatever_completes_a_text_is_found() -> None:
    """A word is one token or several, and may end within a longer one: every way to complete it counts."""
    pieces = [b"c", b"a", b"t", b"ca", b"cat", b"at the", b"dog", b"cats cat", b"", b""]
    follow = TextBias([("cat", -100.0)], Pieces(pieces, {8: 7, 9: 4})).follow()

    def completing() -> set[int]:
        return {t for tokens, _ in follow.biases() for t in tokens.tolist()}

    assert completing() == {4, 7}
    follow.push(0)
    assert completing() == {4, 5, 7}
    follow.push(1)
    assert completing() == {2, 4, 7}
    follow.push(6)  # dog: begins anew
    assert completing() == {4, 7}
    for token in (0, 1, 8):  # the upper half of "t" (0x74)
        follow.push(token)
    assert completing() == {2, 4, 7, 9}  # half a byte without the other half is nothing


def test_capitals_that_are_tokens_of_their_own() -> None:
    """With case markers, `The` is completed by ` the` or `the` after a capital, and by nothing after none."""
    tokenizer = train_subwords(["The cat saw the dog.\nThe dog saw the cat.\n" * 50], 100, kind="bpe")
    names = tokenizer.names()
    follow = TextBias([("The", -100.0)], tokenizer).follow()
    follow.push(names.index("▁saw"))
    assert follow.biases() == []
    follow.push(names.index(CAPITAL))
    assert [sorted(names[t] for t in tokens) for tokens, _ in follow.biases()] == [["the", "▁the"]]


def test_overlapping_occurrences() -> None:
    follow = TextBias([("aba", 1.0)], ByteTokenizer()).follow()
    for byte in b"aba":
        follow.push(byte)
    assert follow.biases() == []
    follow.push(ord("b"))
    assert [t.tolist() for t, _ in follow.biases()] == [[ord("a")]]


def test_a_forbidden_text_never_appears_and_a_wanted_one_does() -> None:
    model, tokenizer = small(vocab_size=257), ByteTokenizer()
    settings = {"max_tokens": 400, "temperature": 1.5, "top_p": 1.0, "seed": 0}
    plain = "".join(generate(model, tokenizer, "x", **settings))
    pair = next(
        plain[i : i + 2] for i in range(len(plain)) if plain[i : i + 2].isascii() and len(plain[i : i + 2]) == 2
    )
    assert pair in plain
    assert pair not in "".join(generate(model, tokenizer, "x", bias=[(pair, -1000.0)], **settings))
    assert "".join(generate(model, tokenizer, "x", bias=[("Q", 1000.0)], max_tokens=5)) == "QQQQQ"


def test_bias_moves_the_distribution_by_its_amount() -> None:
    model = small(vocab_size=257)
    texts = Sampler(model, SamplingConfig(temperature=0), 256, TextBias([("A", 3.0)], ByteTokenizer()))
    texts.read([256, 1])
    from reformer_cli.sampling.filters import apply_rules

    logits = texts.logits()
    moved = apply_rules(logits, texts.histories) - logits
    assert moved[0].nonzero().flatten().tolist() == [ord("A")]
    assert torch.isclose(moved[0, ord("A")], torch.tensor(3.0))
