"""Our tokenizers in transformers: the same ids for the same text, and the text back."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
from builders.transformers_folders import VOCAB, spiece, transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reformer_cli.convert.tokenizer_json import tokenizer_files
from reformer_cli.data.sources import python_reference
from reformer_cli.tokenizers.base import ByteTokenizer, Tokenizer
from reformer_cli.tokenizers.enwik8_bytes import ShiftedByteTokenizer
from reformer_cli.tokenizers.sentencepiece import SentencePieceTokenizer
from reformer_cli.tokenizers.subword import NIBBLES
from reformer_cli.tokenizers.train_subword import train_subwords
from reformer_cli.utils.errors import UserError

TEXTS = [
    "", " ", "a", "The statement.", "  two  spaces \n\n\ta tab\r\n", "«é中😀»", "\u2581 a sentencepiece space",
    f"{NIBBLES[3]}{NIBBLES[15]} private characters \U000f0001 \U000fffff", "\x00\x01\x7f", "e\u0301 é ﬁ Å", "<|e",
    "a<|endoftext|><|unknown|> <|pad|>",
    python_reference()[:3000],
]  # fmt: skip


@lru_cache
def ours(kind: str) -> Tokenizer:
    if kind.startswith("bpe"):
        text = python_reference()[:60_000] + "éé «» 中" * 30
        return train_subwords([text], 512 if kind == "bpe 512" else 300, kind="bpe", case_markers=False)
    return {"bytes": ByteTokenizer, "bytes+2": ShiftedByteTokenizer}[kind]()


@lru_cache
def there(kind: str, folder: Path):
    for name, content in tokenizer_files(ours(kind), 100).items():
        (folder / name).write_bytes(content)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer")


KINDS = ["bpe 512", "bpe 300", "bytes", "bytes+2"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_the_same_ids_and_the_text_back(kind: str, text: str, folder: Path) -> None:
    theirs = there(kind, folder)
    found = theirs.encode(text, add_special_tokens=False)
    assert found == ours(kind).encode(text).tolist()
    assert theirs.decode(found) == text


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_any_text(kind: str, text: str, folder: Path) -> None:
    theirs = there(kind, folder)
    found = theirs.encode(text, add_special_tokens=False)
    assert found == ours(kind).encode(text).tolist()
    assert theirs.decode(found) == text


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_a_text_is_that_of_ours(kind: str, folder: Path) -> None:
    assert there(kind, folder).eos_token_id == ours(kind).end
    assert len(there(kind, folder)) == ours(kind).vocab_size


@pytest.mark.parametrize("model", ["bpe", "unigram"])
@pytest.mark.parametrize("fallback", [False, True])
def test_a_sentencepiece_model_of_another_program(model: str, fallback: bool, tmp_path: Path) -> None:
    found = SentencePieceTokenizer(spiece(model, 600 if fallback else VOCAB, byte_fallback=fallback))
    for name, content in tokenizer_files(found, 100).items():
        (tmp_path / name).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ["The statement.", "  two  spaces \n a line", "é and 中 unknown", python_reference()[:3000]]:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids == found.encode(text).tolist()
    text = "The with statement is used to wrap"
    assert theirs.decode(theirs.encode(text, add_special_tokens=False)) == text


def test_a_model_of_words_is_refused() -> None:
    found = SentencePieceTokenizer(spiece("word", 100))
    with pytest.raises(UserError, match=r"sentencepiece model with kind word \(bpe or unigram\)"):
        tokenizer_files(found, 100)


def test_a_tokenizer_with_case_markers_is_refused() -> None:
    """Written without its capitals it would give other ids, and nobody would be told."""
    with pytest.raises(UserError, match="--no-case-markers"):
        tokenizer_files(train_subwords(["The cat. THE end\n" * 50], 100), 100)


def test_a_unigram_tokenizer_is_refused() -> None:
    """Of two ways to cut that are equally likely, such as six spaces, transformers took the other: other ids."""
    with pytest.raises(UserError, match=r"data\.tokenizer=bpe"):
        tokenizer_files(train_subwords(["The cat. THE end\n" * 50], 100, kind="unigram", case_markers=False), 100)
