"""No word that exists nowhere, no copy that is too long, whatever the model would like to draw."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from builders.models import small

from reformer_cli.novelty.copies import find_matches
from reformer_cli.novelty.index import TextIndex, build_index
from reformer_cli.novelty.words import WORD, spelling, words_of
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import begin, stream_samples
from reformer_cli.sampling.sampler import Sampler, draw_each
from reformer_cli.sampling.word_rules import KnownWords, NoLongCopies, WordRule, WordWatch, is_mixed
from reformer_cli.tokenizers.base import ByteTokenizer

BYTES = ByteTokenizer()


def refused(watch: WordWatch, characters: str) -> str:
    return "".join(c for c in characters if watch.refuses(c.encode()[0]))


def written(prompt: str, rules: list[WordRule], **settings) -> list[str]:
    """Text of a model that knows nothing, token by token a byte, with the prompt."""
    config = SamplingConfig(top_p=1.0, dry_multiplier=0.0, **settings)
    sampler, samples = begin(small(vocab_size=257), BYTES, prompt, config, rules=rules)
    for _ in stream_samples(sampler, samples):
        pass
    for one in samples:
        one.close()
    return [prompt + one.text for one in samples]


@pytest.fixture
def index(tmp_path: Path) -> TextIndex:
    draw = random.Random(0)
    text = " ".join(draw.choice("abcd") + draw.choice("efgh") for _ in range(500))
    build_index(tmp_path / "index", [("text", [text])], lambda index: {})
    return TextIndex(tmp_path / "index")


def test_only_known_words_may_begin_go_on_and_end() -> None:
    watch = WordWatch(BYTES, [KnownWords(["don't", "door", "café"])])
    watch.extend(b"Zorro said: do", drawn=False)
    assert refused(watch, "onz -'") == "z -'"  # neither doz nor do
    watch.extend(b"n", drawn=True)
    assert refused(watch, "'’te ") == "te "
    watch.extend(b"'", drawn=True)
    assert refused(watch, "t !") == " !"
    watch.extend(b"t", drawn=True)
    assert refused(watch, "s !-") == "s"
    watch.extend(b" ", drawn=True)
    assert refused(watch, "ZCDzqs 7\n") == "q"  # Zorro and said are the prompt's; numbers are no words
    watch.extend(b"CAF", drawn=True)
    assert refused(watch, "e. ") == "e. "
    assert not watch.refuses(0xC3)  # half of a character says nothing yet
    watch.extend(b"\xc3", drawn=True)
    assert not watch.refuses(0x89)  # É
    assert watch.refuses(0xA9)  # é, after capitals
    assert watch.refuses(0x88)
    watch.extend(b"\x89 d", drawn=True)
    assert watch.refuses(0xF2)  # beyond all letters; but d is no word that could end here
    assert watch.refuses(0xE6)


def test_capitals_stand_where_words_have_them() -> None:
    """The starter wrote "MendicanT" and "CramptonS": known words, had they been written as words are."""
    for word in ("Crampton", "CRAMPTON", "O'Brien", "MacGregor", "McD", "I", "don't", "Ünal"):
        assert not is_mixed(word), word
    for word in ("CramptonS", "MendicanT", "MENdicant", "tHe", "iPhone", "McDoNald"):
        assert is_mixed(word), word
    watch = WordWatch(BYTES, [KnownWords(["door", "doors"])])
    watch.extend(b"an iPhone doO", drawn=False)
    watch.extend(b" Door", drawn=True)
    assert refused(watch, "Ss ") == "S"
    watch.extend(b" iPhon", drawn=True)  # as the prompt has it
    assert refused(watch, "eE") == "E"


def test_two_signs_after_a_word_end_it() -> None:
    """A word with a sign in it was known without: "Mendican't", "Mallarm" and four signs after it."""
    watch = WordWatch(BYTES, [KnownWords(["door", "don", "o'clock"])])
    watch.extend(b" do", drawn=True)
    assert refused(watch, "'n") == "'"
    watch.extend(b"n'", drawn=True)
    assert refused(watch, "'t s") == "t"  # the end of a quotation, or the Don's
    watch.extend(b"' o'", drawn=True)
    assert refused(watch, "c' ") == "' "


def test_a_prompt_may_end_within_an_unknown_word() -> None:
    watch = WordWatch(BYTES, [KnownWords(["door"])])
    watch.extend(b"the xyz", drawn=False)
    assert refused(watch, " .a") == "a"
    watch = WordWatch(BYTES, [KnownWords(["door"])])
    watch.extend(b"the doo", drawn=False)
    assert refused(watch, " .r") == " ."  # doo is no word for being in the prompt


def test_a_model_that_knows_nothing_writes_known_words() -> None:
    known = ["cat", "catalogue", "well", "known", "o", "oclock"]
    for text in written("The cat, ", [KnownWords([*known])], max_tokens=40, seed=3, num_samples=2):
        words = [spelling(match[0]).removesuffix("'s") for match in WORD.finditer(text)]
        assert len(words) > 2
        *whole, last = words
        assert {w for w in whole if not w[0].isdigit()} <= {*known, "the"}
        assert any(w.startswith(last) for w in [*known, last if last[0].isdigit() else "the"])


@pytest.mark.parametrize("most", [1, 2, 4])
def test_no_copy_is_longer(index: TextIndex, most: int) -> None:
    # Where every word is known, nearly each is part of a copy; the prompt's words count.
    rules: list[WordRule] = [KnownWords(index.vocabulary), NoLongCopies(index, most)]
    prompt = " ".join(index.vocabulary[n - 1] for n in [1, 2]) + " "
    texts = written(prompt, rules, max_tokens=70, seed=1, num_samples=3)
    for text in texts:
        lengths = find_matches(index, text).lengths.tolist()
        assert max((n for at, n in enumerate(lengths) if at + n > 2), default=0) <= most
    assert sum(len(list(words_of(text))) for text in texts) > 6
    (alone,) = written(prompt, rules, max_tokens=70, seed=2)
    assert alone == texts[1]  # what is drawn anew takes nothing from its neighbours
    assert written(prompt, rules, max_tokens=30, temperature=0) == written(prompt, rules, max_tokens=30, temperature=0)


def test_a_text_ends_where_any_word_would_be_a_copy(tmp_path: Path) -> None:
    # a forced end, and no word that a copy goes on with.
    build_index(tmp_path / "index", [("text", ["a b a a b b a"])], lambda index: {})
    rules: list[WordRule] = [KnownWords(["a", "b"]), NoLongCopies(TextIndex(tmp_path / "index"), 1)]
    sampler, _ = begin(small(vocab_size=257), BYTES, "a ", SamplingConfig(max_tokens=9, seed=0), rules=rules)
    letters = torch.full((1, 257), -torch.inf)
    letters[0, [97, 98]] = 0.0
    assert sampler.take(letters).tokens == [BYTES.end]


def test_texts_side_by_side_keep_to_their_own_rules(index: TextIndex) -> None:
    # The server draws for texts of several clients at once, each with its own rules and random numbers.
    def sampler(seed: int, words: list[str]) -> Sampler:
        rules = [KnownWords(words), NoLongCopies(index, 2)]
        made, _ = begin(small(vocab_size=257), BYTES, "a ", SamplingConfig(max_tokens=9, seed=seed), rules=rules)
        return made

    draw = torch.Generator().manual_seed(0)
    wanted = [index.vocabulary, ["zebra", "yak"]]
    together, alone = ([sampler(n, words) for n, words in enumerate(wanted)] for _ in range(2))
    for _ in range(20):
        logits = torch.randn(2, 257, generator=draw)
        logits[:, 128:] = -torch.inf
        found = draw_each(together, logits)
        assert [f.tokens for f in found] == [s.take(logits[n : n + 1]).tokens for n, s in enumerate(alone)]
