"""A corpus opened: what is for validation is nowhere else, and processes of a job share what one of them made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.reading import silent

from reformer_cli.config.schema import DataConfig
from reformer_cli.data.batches import ValidationWindows
from reformer_cli.data.dataset import open_dataset, reopen_dataset
from reformer_cli.utils.errors import UserError

TEXTS = {"a": "one two\n" * 40, "b": "three\n" * 30, "c": "x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "texts"
    found.mkdir()
    for name, text in TEXTS.items():
        (found / f"{name}.txt").write_text(text)
    return found


def test_held_out_text_trains_neither_model_nor_tokenizer(tmp_path: Path) -> None:
    text = "plain words here\n" * 6000 + "zzqqzzqq\n" * 300
    (tmp_path / "c.txt").write_text(text)
    found = open_dataset(DataConfig(corpus=(str(tmp_path / "c.txt"),), val_fraction=0.1), silent)
    assert found.tokenizer.kind == "bpe"
    pieces = {found.tokenizer.decode(np.array([n])) for n in range(found.tokenizer.vocab_size)}
    assert not any("zz" in piece for piece in pieces)
    assert "zz" not in found.tokenizer.decode(np.asarray(found.tokens.train, np.int32))


def test_texts_to_validate_on_are_held_out_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("validate on this\n")
    data = DataConfig(corpus=(str(folder),), validation=(str(tmp_path / "v.txt"),), tokenizer="bytes")
    found = open_dataset(data, silent)
    trained = found.tokenizer.decode(np.asarray(found.tokens.train, np.int32))
    assert trained == "".join(TEXTS.values())
    (window,) = ValidationWindows(found.tokens, 16)
    assert window.name == str(tmp_path / "v.txt")
    assert window.prefix.tolist() == [found.tokenizer.end]
    assert found.tokenizer.decode(window.scored.numpy()) == "validate on this\n"
    assert found.tokens.documents == 3
    (tmp_path / "v.txt").write_text("other\n")
    assert open_dataset(data, silent).digest != found.digest


def test_a_text_is_named_as_it_is_named_now(tmp_path: Path) -> None:
    """Its tokens lie in the cache, made of an equal text elsewhere, whose name was then shown for this one's."""
    names = []
    for place in ("first", "second", "third"):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{place}.jsonl").write_text('{"text": "one two three"}\n{"text": "four five six"}\n')
        (tmp_path / place / f"x-{place}.txt").write_text("seven\neight\n" * 9)
        data = DataConfig(corpus=(str(tmp_path / place),), tokenizer="bytes", val_fraction=0.4)
        found = open_dataset(data, silent)
        names.append([span.name for span in found.tokens.spans])
        assert names[-1] == [name.replace("first", place) for name in names[0]]
    assert names[0][0] == f"{tmp_path / 'first' / 'first.jsonl'}:1"
    assert len(names[0]) == 3
    reopened = reopen_dataset(data, found.tokenizer, found.digest)
    assert len(reopened.tokens.spans) == 3


def test_the_other_processes_of_a_job_open_what_the_first_one_made(folder: Path) -> None:
    data = DataConfig(corpus=(str(folder),))
    made = open_dataset(data, silent)
    assert np.array_equal(reopen_dataset(data, made.tokenizer, made.digest).tokens.train, made.tokens.train)
    with pytest.raises(UserError, match="do all processes share it"):
        reopen_dataset(data, made.tokenizer, "other")
