"""Tokens on disk: what changed or broke is made again."""

from __future__ import annotations

import json
from pathlib import Path

from builders.reading import tokens_of

from reformer_cli.data.shards import open_tokens
from reformer_cli.tokenizers.base import ByteTokenizer

TOKENIZER = ByteTokenizer()


def test_what_changed_or_broke_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("one two\n" * 40)
    tokens = tokens_of([folder], TOKENIZER, tmp_path / "t")
    made = tmp_path / "t"
    assert open_tokens(made, "other", TOKENIZER) is None
    (made / "train.bin").write_bytes((made / "train.bin").read_bytes()[:-2])
    assert open_tokens(made, "digest", TOKENIZER) is None
    tokens_of([folder], TOKENIZER, made)
    manifest = json.loads((made / "manifest.json").read_text())
    for damage in (json.dumps(manifest | {"version": 0}), "[]", json.dumps(manifest | {"dtype": "O"}), "{"):
        (made / "manifest.json").write_text(damage)
        assert open_tokens(made, "digest", TOKENIZER) is None
    assert len(tokens_of([folder], TOKENIZER, made).train) == len(tokens.train)
