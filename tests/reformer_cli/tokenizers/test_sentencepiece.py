"""Tokenizers of other programs: ids as they give them, what they lose is told, and their files are not trusted."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from reformer_cli.data.sources import python_reference
from reformer_cli.tokenizers import sentencepiece as ours
from reformer_cli.tokenizers.enwik8_bytes import ShiftedByteTokenizer
from reformer_cli.tokenizers.load import deserialise, load_tokenizer, open_tokenizer
from reformer_cli.tokenizers.sentencepiece import SentencePieceTokenizer, losses
from reformer_cli.tokenizers.sentencepiece_proto import read_facts
from reformer_cli.utils.errors import UserError


@lru_cache
def model(kind: str = "bpe", size: int = 320, **settings: Any) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(python_reference()[:60_000].splitlines()), model_writer=out, vocab_size=size,
        model_type=kind, character_coverage=1.0, minloglevel=2, num_threads=1, **settings,
    )  # fmt: skip
    return out.getvalue()


@given(st.text(max_size=60))
def test_bytes_and_two_lose_nothing(text: str) -> None:
    tokenizer = ShiftedByteTokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert (ids >= 2).all()
    assert (ids < 258).all()
    stream = tokenizer.stream()
    assert "".join(stream.push(int(n)) for n in ids) + stream.finish() == text
    assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())


def test_bytes_and_two_as_the_enwik8_models_page_codes_them() -> None:
    """Its `encode` adds 2 to each byte, its `decode` makes nothing of 0 and 1."""
    tokenizer = ShiftedByteTokenizer()
    assert tokenizer.encode("In 1965, é").tolist() == [b + 2 for b in "In 1965, é".encode()]
    assert tokenizer.decode([0, 75, 112, 1, 0]) == "In"
    assert deserialise(tokenizer.serialise(), "x").kind == "bytes+2"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_ids_are_those_of_the_library_in_texts_of_any_length(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug guarded against: a long text, cut for speed, gets other tokens at the cuts.

    The library adds a unigram model's scores up in float32: in 20,000 characters of one Python's reference, its
    rounding chose between two splits of a word that are as likely.
    """
    wanted = sentencepiece.SentencePieceProcessor(model_proto=model(kind))
    tokenizer, text = SentencePieceTokenizer(model(kind)), python_reference()[: 20_000 if kind == "bpe" else 3_000]
    monkeypatch.setattr(ours, "CHUNK", 50)
    assert tokenizer.encode(text).tolist() == wanted.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == wanted.decode(wanted.encode(text))
    assert tokenizer.encode("").tolist() == []


def test_a_stream_shows_what_decode_gives() -> None:
    tokenizer = SentencePieceTokenizer(model(size=600, byte_fallback=True))
    ids = tokenizer.encode("The é and 中 of it")
    stream = tokenizer.stream()
    assert ("".join(stream.push(int(n)) for n in ids) + stream.finish()).lstrip() == tokenizer.decode(ids)
    assert tokenizer.decode(ids) == "The é and 中 of it"


def test_what_is_lost_is_counted() -> None:
    tokenizer = SentencePieceTokenizer(model())
    assert losses(tokenizer, "The statement") == ""
    said = losses(tokenizer, "One\ntwo   three\t中中é")
    for part in ("1 line breaks", "1 tabs", "2 spaces", "3 other characters ('中' 2, 'é' 1)"):
        assert part in said


def test_the_separator_is_a_token_that_no_text_has() -> None:
    assert SentencePieceTokenizer(model()).end == 2  # </s>
    bare = model(size=321, bos_id=-1, eos_id=-1, pad_id=-1)
    with pytest.raises(UserError, match="no token for the end of a text"):
        SentencePieceTokenizer(bare)
    with pytest.raises(UserError, match="gives token 5 to texts"):
        SentencePieceTokenizer(bare, end=5)
    assert SentencePieceTokenizer(bare, end=321, vocab_size=322).end == 321


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(SentencePieceTokenizer(model(), end=1, vocab_size=330).serialise())
    again = load_tokenizer(tmp_path / "tokenizer.model")
    assert isinstance(again, SentencePieceTokenizer)
    assert (again.end, again.vocab_size, again.model) == (1, 330, model())


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b'{"kind": "sentencepiece"',
        b'{"kind": "sentencepiece"}\n',
        b'{"kind": "sentencepiece", "end": "1", "vocab_size": 330}\n',
    ],
)
def test_a_damaged_first_line(head: bytes) -> None:
    with pytest.raises(UserError, match="whole first line"):
        ours.deserialise(head + model(), "x")


@pytest.mark.parametrize("size", [-1, 3, 2**40])
def test_a_vocabulary_of_no_possible_size(size: int) -> None:
    head = f'{{"kind": "sentencepiece", "end": 1, "vocab_size": {size}}}\n'.encode()
    with pytest.raises(UserError, match="do not belong together"):
        ours.deserialise(head + model(), "x")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x0a\xff\xff\xff\xff\x7f", bytes(100)])
def test_no_model_at_all(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(UserError, match=r"spiece\.model"):
        open_tokenizer(tmp_path / "spiece.model")
    with pytest.raises(UserError, match="no file"):
        open_tokenizer(tmp_path / "missing")
    with pytest.raises(UserError, match="cannot read"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
def test_facts_of_a_model_file(kind: str) -> None:
    facts = read_facts(model(kind, 100 if kind in ("char", "word") else 320, hard_vocab_limit=False))
    assert (facts.kind, facts.dummy_prefix, facts.collapses_spaces, facts.escapes_spaces) == (kind, True, True, True)
    assert facts.charsmap  # of nmt_nfkc, the default
    other = read_facts(
        model(
            normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
            user_defined_symbols="<x>", treat_whitespace_as_suffix=True,
        )
    )  # fmt: skip
    assert (other.charsmap, other.dummy_prefix, other.collapses_spaces) == (b"", False, False)
    assert other.spaces_after_words
    assert len(other.user_defined) == 1


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_cut_message_is_no_message(cut: int) -> None:
    """Never a crash of another kind: the file may come from anyone."""
    data = model()[:cut] + b"\xff" * 11
    with pytest.raises(ValueError, match="byte"):
        read_facts(data)
