"""No text is ever changed by a tokenizer, and no bytes are shown before they are whole characters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_cli.config.schema import SubwordKind
from reformer_cli.data.sources import python_reference
from reformer_cli.tokenizers.base import ByteTokenizer, Tokenizer, is_foreign
from reformer_cli.tokenizers.load import load_tokenizer
from reformer_cli.tokenizers.subword import SubwordTokenizer
from reformer_cli.tokenizers.train_subword import train_subwords
from reformer_cli.utils.errors import UserError

HARD = [
    "", " ", "   a  b ", "\n", "\n\n\n x\n", "\t\ttab", "a\r\nb\rc", "\0", "\u2581", "x\u2581 \u2581y",
    "\ue000\ue010\ue011\ue00f",
    "<end><unk><s></s>", "naïve café — “quoted”",
    "😀👩‍👩‍👧", "中文", "e\u0301", "\ufeff", "\u2028", "\U0010ffff", "\x7f\x80",
]  # fmt: skip
REFERENCE, SMALL = [python_reference()[:60_000]], ["日本語のテキスト、漢字とかな。" * 20]
UNIGRAM = train_subwords(REFERENCE, 400, kind="unigram")
TOKENIZERS = {
    "bytes": ByteTokenizer(),
    "unigram": UNIGRAM,
    "bpe": train_subwords(REFERENCE, 400, kind="bpe"),
    "small unigram": train_subwords(SMALL, 80, kind="unigram"),
    "small bpe": train_subwords(SMALL, 80, kind="bpe"),
}
any_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
any_subwords = pytest.mark.parametrize("kind", ["unigram", "bpe"])


@any_tokenizer
@pytest.mark.parametrize("text", HARD)
def test_hard_texts_survive(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.end not in ids
    assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())


@any_tokenizer
@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_text_survives(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    stream = tokenizer.stream()
    shown = [stream.push(int(n)) for n in ids]
    assert "".join(shown) + stream.finish() == text
    assert "\ufffd" not in "".join(shown) or "\ufffd" in text  # nothing incomplete was shown


@any_subwords
def test_chunks_do_not_change_the_ids(kind: SubwordKind, monkeypatch: pytest.MonkeyPatch) -> None:
    text = python_reference()[:30_000]
    whole = TOKENIZERS[kind].encode(text)
    monkeypatch.setattr("reformer_cli.tokenizers.base.CHUNK", 500)
    assert np.array_equal(TOKENIZERS[kind].encode(text), whole)


def test_a_script_that_is_not_known() -> None:
    """English parts of words spell Russian out; a model then scores what it has never seen, and nothing said so."""
    assert is_foreign(UNIGRAM, "Все счастливые семьи похожи друг на друга.")
    assert not is_foreign(UNIGRAM, "All happy families are alike: «Все».")
    assert not is_foreign(UNIGRAM, "")
    assert not is_foreign(ByteTokenizer(), "Все счастливые семьи")


@any_subwords
def test_training_repeats_and_reads_back(kind: SubwordKind, tmp_path) -> None:
    found = TOKENIZERS[kind]
    again = train_subwords(REFERENCE, 400, kind=kind)
    assert again.serialise() == found.serialise()
    assert found.vocab_size == 400
    (tmp_path / "t").write_bytes(found.serialise())
    read = load_tokenizer(tmp_path / "t")
    assert read.kind == found.kind == kind
    assert np.array_equal(read.encode("the with statement"), found.encode("the with statement"))
    assert len(found.encode(REFERENCE[0])) < 60_000 / 1.8  # it does compress


@any_subwords
def test_a_small_vocabulary_is_not_eaten_by_single_characters(kind: SubwordKind) -> None:
    # 256 byte tokens would leave 64 of 320; here rare characters are spelt out instead.
    text = python_reference()
    tokenizer = train_subwords([text], 320, kind=kind)
    assert tokenizer.vocab_size == 320
    assert len(tokenizer.encode(text)) < len(text) / 1.6


@any_subwords
def test_a_tiny_corpus_gets_a_smaller_vocabulary(kind: SubwordKind) -> None:
    tokenizer = train_subwords(["abc abc"], 5000, kind=kind)
    assert tokenizer.vocab_size < 60
    assert tokenizer.decode(tokenizer.encode("abc xyz")) == "abc xyz"


@pytest.mark.parametrize("data", [b"", b"garbage", b'{"kind": "other"}', UNIGRAM.serialise()[:200]])
def test_damaged_files_are_refused(data: bytes, tmp_path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(UserError, match=r"tokenizer\.model"):
        load_tokenizer(tmp_path / "tokenizer.model")


def test_another_programs_model_is_refused() -> None:
    import io

    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d"] * 9), model_writer=out, vocab_size=12, model_type="bpe", minloglevel=2
    )
    with pytest.raises(UserError, match="another program"):
        SubwordTokenizer(out.getvalue())
