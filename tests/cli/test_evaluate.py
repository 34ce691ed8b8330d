"""Perplexity as a user asks for it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from cli.conftest import Program

from reformer_cli.files import cache_folder

KEYS = {"tokens", "bytes", "nats_per_token", "perplexity", "bits_per_byte", "bits_per_character", "word_perplexity"}


def test_json_has_the_promised_keys_and_adds_up(reformer: Program, run: Path, text: Path) -> None:
    Path("b.txt").write_text("The cat sät.\n", "utf-8")
    result = reformer("evaluate", "perplexity", "--run", run, text, "b.txt", "--json")
    found = json.loads(result.out)
    assert set(found) == KEYS | {"context", "files"}
    assert found["bytes"] == text.stat().st_size + 14
    parts = found["files"].values()
    assert found["tokens"] == sum(p["tokens"] for p in parts)
    nats = sum(p["nats_per_token"] * p["tokens"] for p in parts)
    assert found["nats_per_token"] == pytest.approx(nats / found["tokens"])
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / found["bytes"])
    assert found["bits_per_character"] == pytest.approx(nats / math.log(2) / (found["bytes"] - 1))
    assert found["word_perplexity"] == pytest.approx(math.exp(nats / (500 * 8 + 3)))


def test_the_same_digits_twice(reformer: Program, run: Path, text: Path) -> None:
    a, b = (reformer("evaluate", "perplexity", "--run", run, text).out for _ in range(2))
    assert a == b
    assert "bits/byte" in a


def test_held_out_text_by_default(reformer: Program, run: Path) -> None:
    result = reformer("evaluate", "perplexity", "--run", run, "--json")
    found = json.loads(result.out)
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    # Six steps, the last validation is of the last weights: the same figure as training showed.
    best = min(
        json.loads(line)["held_out_bits_per_byte"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if "held_out_bits_per_byte" in line
    )
    assert found["bits_per_byte"] == pytest.approx(best, rel=1e-6)
    assert last["held_out_tokens"] == found["tokens"]


def test_context_limits_what_is_seen(reformer: Program, run: Path, text: Path) -> None:
    whole = json.loads(reformer("evaluate", "perplexity", "--run", run, text, "--json").out)
    short = json.loads(reformer("evaluate", "perplexity", "--run", run, text, "--context", 8, "--json").out)
    wide = json.loads(reformer("evaluate", "perplexity", "--run", run, text, "--context", 100_000, "--json").out)
    assert short["tokens"] == whole["tokens"]
    assert short["nats_per_token"] != whole["nats_per_token"]
    assert wide["nats_per_token"] == pytest.approx(whole["nats_per_token"], rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "no file 'none.txt'"),
        (["empty.txt"], "empty.txt is empty"),
        (["latin.txt"], "not utf-8: byte 0"),
        (["--context", "1"], "'--context': Input should be greater than or equal to 2"),
        ([".."], "cannot read"),
    ],
)
def test_mistakes_get_one_line(reformer: Program, run: Path, arguments: list[str], message: str) -> None:
    Path("empty.txt").touch()
    Path("latin.txt").write_bytes(b"\xe9")
    assert message in reformer("evaluate", "perplexity", "--run", run, *arguments).error


def test_a_changed_corpus_is_noticed(reformer: Program, run: Path, text: Path) -> None:
    text.write_text("Something else.\n" * 100)
    assert "has changed since" in reformer("evaluate", "perplexity", "--run", run).error
    text.unlink()
    result = reformer("evaluate", "perplexity", "--run", run)  # its tokens are in the cache
    assert result.status == 0
    assert "text.txt is gone; going on with its tokens" in result.err
    shutil.rmtree(cache_folder())
    assert "its tokens are no longer in the cache" in reformer("evaluate", "perplexity", "--run", run).error
