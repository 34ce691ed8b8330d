"""The tests of recall find everything where a model recalls everything, and chance where it knows nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.models import small
from reformer import ReformerLM
from reformer.rehash import FULL, with_rounds
from torch import Tensor

from reformer_cli.data.copy_task import CopyTask
from reformer_cli.evaluation import recall
from reformer_cli.evaluation.recall import Alphabet, alphabet_of, associative, common_words, copy, needle, steps_to
from reformer_cli.tokenizers.base import ByteTokenizer
from reformer_cli.tokenizers.train_subword import train_subwords
from reformer_cli.utils.errors import UserError

TEXT = "The old gardener carried water through the silent orchard while nobody watched him there.\n" * 60


class History:
    """All tokens so far, for a model that recalls perfectly."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens

    def clone(self) -> History:
        return History(self.tokens.clone())


class Oracle:
    """Predicts what followed the latest earlier occurrence of the last `n` tokens, else token 0; reach: how far back
    it remembers."""

    def __init__(self, vocab: int, n: int, reach: int = 10**9) -> None:
        self.vocab, self.n, self.reach = vocab, n, reach
        self.embedding = torch.zeros(1)
        self.config = SimpleNamespace(max_length=None)

    def tokens_at_once(self, rows: int) -> int:
        return 4096 // rows

    def extend(self, tokens: Tensor, state: History | None = None, last_only: bool = False) -> tuple[Tensor, History]:
        before = state.tokens if state is not None else tokens[:, :0]
        whole = torch.cat([before, tokens], 1)
        first = whole.shape[1] - 1 if last_only else before.shape[1]
        logits = torch.zeros(len(whole), whole.shape[1] - first, self.vocab)
        for row, ids in enumerate(whole.tolist()):
            places: dict[tuple[int, ...], int] = {}
            for t in range(len(ids)):
                key = tuple(ids[max(0, t + 1 - self.n) : t + 1])
                if t >= first and t + 1 - places.get(key, -(10**9)) <= self.reach:
                    logits[row, t - first, ids[places[key]]] = 10.0
                places[key] = t + 1
        return logits, History(whole)


def oracle(**settings) -> ReformerLM:
    return Oracle(**({"vocab": 300, "n": 3} | settings))  # type: ignore[return-value]


BYTES = Alphabet(np.arange(1, 128), 0, ())


def test_copies_are_found_by_who_remembers_and_not_by_who_does_not() -> None:
    found = copy(oracle(), BYTES, 100, seed=0)
    assert found.asked == 100 * 64
    assert found.distance == 101
    # The first two symbols of the copy follow a mark and symbols that stand elsewhere before.
    assert found.share > 0.97
    assert found.nats < 0.3
    forgetful = copy(oracle(reach=50), BYTES, 100, seed=0)
    assert forgetful.share < 0.02
    assert copy(oracle(reach=50), BYTES, 100, seed=0) == forgetful
    guessing = [copy(oracle(n=1), BYTES, 100, seed=seed).nats for seed in (0, 0, 1)]
    assert guessing[0] == guessing[1] != guessing[2]


def test_values_of_keys_by_distance() -> None:
    found = associative(oracle(n=2, reach=300), BYTES, [64, 256, 1024], seed=0)
    assert [o.distance for o in found] == [64, 256, 1024]
    assert [o.asked for o in found] == [64] * 3
    assert min(found[0].share, found[1].share) > 0.95  # a key may also stand where a value ends and a mark begins
    assert found[2].share < 0.1


def test_keys_have_as_many_symbols_as_they_need_to_differ() -> None:
    few = Alphabet(np.arange(1, 9), 0, ())
    assert associative(oracle(n=4), few, [64], seed=0)[0].share == 1.0  # 8 symbols: keys of three and more
    assert associative(oracle(n=1), few, [64], seed=0)[0].share < 0.7  # one symbol of a key tells little


def test_needles_are_found_where_planted_and_not_elsewhere() -> None:
    tokenizer = ByteTokenizer()
    text = tokenizer.encode(TEXT).astype(np.int64)
    words = [f"{a}{b}{c}rt" for a in "bcdfghjk" for b in ("aem", "ion", "ust", "ila", "oxe", "yra") for c in "lmn"]
    found = needle(oracle(n=20), tokenizer, text, words, 1500, seed=0)
    assert [o.depth for o in found] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert all(o.share == 1.0 for o in found)
    assert all(o.right_without is not None and o.right_without / o.asked < 0.2 for o in found)
    assert [o.distance for o in found] == [1500, 1125, 750, 375, 0]
    near = needle(oracle(n=20, reach=800), tokenizer, text, words, 1500, seed=0)
    assert [o.share > 0.9 for o in near] == [False, False, True, True, True]


def test_planted_texts_have_the_length_asked_for() -> None:
    tokenizer = train_subwords([TEXT], 120)
    text = tokenizer.encode(TEXT * 3).astype(np.int64)
    words = common_words(
        TEXT + " alpha beta gamma delta " * 2 + " ".join(f"word{c}{d}" for c in "abcdefg" for d in "abcdefgh") * 2
    )
    random = np.random.default_rng(0)
    needles = [recall.make_needle(tokenizer, words, random) for _ in recall.DEPTHS]
    for each in needles:
        # Cue and answer are the planted tokens, so that a model sees the very same again.
        assert each.planted[: len(each.cue) + len(each.answer)].tolist() == [*each.cue, *each.answer]
    assert len(recall._planted(text, needles, 900, tokenizer.end)) == 900
    with pytest.raises(UserError, match="too few for 5 planted sentences"):
        recall._planted(text, needles, 50, tokenizer.end)


def test_streamed_and_in_one_pass_agree() -> None:
    model = small(torch.float64, vocab_size=200, n_hashes=2)
    a = copy(model, BYTES, 60, seed=0)
    b = copy(model, BYTES, 60, seed=0, streamed=False)
    assert (a.right, a.nats) == (b.right, pytest.approx(b.nats, rel=1e-9))
    assert copy(with_rounds(model, FULL, 123), BYTES, 60, seed=0, streamed=False).nats != pytest.approx(a.nats)


def test_symbols_are_visible_tokens() -> None:
    assert alphabet_of(ByteTokenizer(), None).symbols.tolist() == list(range(33, 127))
    tokenizer = train_subwords([TEXT], 120)
    found = alphabet_of(tokenizer, None)
    texts = [tokenizer.decode(np.array([n])) for n in found.symbols]
    assert all(text.strip() and "\n" not in text for text in texts)
    assert tokenizer.end not in found.symbols
    assert tokenizer.decode(np.array([found.mark])) == "\n"
    assert alphabet_of(ByteTokenizer(), CopyTask(30, 7)).symbols.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_lengths_grow_by_fours_and_words_must_suffice() -> None:
    assert steps_to(5000) == [64, 256, 1024, 4096]
    with pytest.raises(UserError, match="0 common words"):
        common_words("1 2 3")
