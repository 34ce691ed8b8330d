"""No text is ever changed by a tokenizer, and no bytes are shown before they are whole characters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_cli.errors import UserError
from reformer_cli.tokenization.bpe import BPETokenizer, choose_vocab_size, train_bpe
from reformer_cli.tokenization.corpus import python_reference
from reformer_cli.tokenization.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer

HARD = [
    "", " ", "   a  b ", "\n", "\n\n\n x\n", "\t\ttab", "a\r\nb\rc", "\0", "\u2581", "x\u2581 \u2581y",
    "\ue000\ue010\ue011\ue00f",
    "<end><unk><s></s>", "naïve café — “quoted”",
    "😀👩‍👩‍👧", "中文", "e\u0301", "\ufeff", "\u2028", "\U0010ffff", "\x7f\x80",
]  # fmt: skip
BPE = train_bpe([python_reference()[:60_000]], 400)
TOKENIZERS = [ByteTokenizer(), BPE, train_bpe(["日本語のテキスト、漢字とかな。" * 20], 80)]
any_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "bpe", "small bpe"])


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


def test_chunks_do_not_change_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    text = python_reference()[:30_000]
    whole = BPE.encode(text)
    monkeypatch.setattr("reformer_cli.tokenization.tokenizer.CHUNK", 500)
    assert np.array_equal(BPE.encode(text), whole)


def test_training_repeats_and_reads_back(tmp_path) -> None:
    again = train_bpe([python_reference()[:60_000]], 400)
    assert again.serialise() == BPE.serialise()
    assert BPE.vocab_size == 400
    (tmp_path / "t").write_bytes(BPE.serialise())
    assert np.array_equal(load_tokenizer(tmp_path / "t").encode("the with statement"), BPE.encode("the with statement"))
    assert len(BPE.encode(python_reference()[:60_000])) < 60_000 / 1.8  # it does compress


def test_a_small_vocabulary_is_not_eaten_by_single_characters() -> None:
    # 256 byte tokens would leave 64 of 320; here rare characters are spelt out instead.
    text = python_reference()
    tokenizer = train_bpe([text], 320)
    assert tokenizer.vocab_size == 320
    assert len(tokenizer.encode(text)) < len(text) / 1.6


def test_a_tiny_corpus_gets_a_smaller_vocabulary() -> None:
    tokenizer = train_bpe(["abc abc"], 5000)
    assert tokenizer.vocab_size < 60
    assert tokenizer.decode(tokenizer.encode("abc xyz")) == "abc xyz"


def test_vocabulary_grows_with_the_corpus() -> None:
    sizes = [choose_vocab_size(n) for n in (1000, 465_000, 1_135_000, 10**8, 10**12)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 256
    assert sizes[-1] == 32_768


@pytest.mark.parametrize("data", [b"", b"garbage", b'{"kind": "other"}', BPE.serialise()[:200]])
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
        BPETokenizer(out.getvalue())
