"""Perplexity as a user asks for it."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
import math
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from builders.programs import TINY, Program

from reformer_cli.data import text_chunks
from reformer_cli.runs.run import Run
from reformer_cli.utils.files import cache_folder

FIGURES = {"nats_per_token", "perplexity", "bits_per_byte", "bits_per_character", "word_perplexity"}
KEYS = FIGURES | {"tokens", "bytes", "characters", "words", "intervals", "block_tokens"}


def test_json_has_the_promised_keys_and_adds_up(reformer: Program, run: Path, text: Path) -> None:
    Path("b.txt").write_text("The cat sät.\n", "utf-8")
    result = reformer("evaluate", "perplexity", "--run", run, text, "b.txt", "--json")
    found = json.loads(result.out)
    assert set(found) == KEYS | {"context", "likelihood", "n_hashes", "far_buckets", "rule", "files"}
    assert "a file's first one, given the end-of-text token" in found["rule"]
    assert found["bytes"] == text.stat().st_size + 14
    parts = found["files"].values()
    assert found["tokens"] == sum(p["tokens"] for p in parts)
    nats = sum(p["nats_per_token"] * p["tokens"] for p in parts)
    assert found["nats_per_token"] == pytest.approx(nats / found["tokens"])
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / found["bytes"])
    assert found["bits_per_character"] == pytest.approx(nats / math.log(2) / (found["bytes"] - 1))
    assert found["word_perplexity"] == pytest.approx(math.exp(nats / (500 * 8 + 3)))
    assert (found["characters"], found["words"]) == (found["bytes"] - 1, 500 * 8 + 3)
    assert set(found["intervals"]) == FIGURES
    for name in FIGURES:
        low, high = found["intervals"][name]
        assert low < found[name] < high


def test_the_same_digits_twice(reformer: Program, run: Path, text: Path) -> None:
    for options in ([], ["--json", "--by-position"], ["--csv"]):
        a, b = (reformer("evaluate", "perplexity", "--run", run, text, *options).out for _ in range(2))
        assert a == b
    assert "bits/byte" in reformer("evaluate", "perplexity", "--run", run, text).out


def test_perplexity_is_the_probability_of_the_text_token_by_token(reformer: Program, run: Path, text: Path) -> None:
    # What is streamed in thousands of tokens must be what decoding assigns, one token after another.
    opened = Run.open(run)
    tokenizer, model = opened.tokenizer(), opened.load_model()
    short = text.read_text("utf-8")[:1500]
    Path("short.txt").write_text(short, "utf-8")
    ids = [tokenizer.end, *tokenizer.encode(short).tolist()]
    nats, state = 0.0, None
    for token, following in pairwise(ids):
        logits, state = model.extend(torch.tensor([[token]]), state)
        nats -= float(logits[0, 0].double().log_softmax(-1)[following])
    found = json.loads(reformer("evaluate", "perplexity", "--run", run, "short.txt", "--json").out)
    assert found["tokens"] == len(ids) - 1
    assert found["nats_per_token"] * found["tokens"] == pytest.approx(nats, rel=1e-6)


def test_figures_do_not_depend_on_how_a_file_is_read(
    reformer: Program, run: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reformer("evaluate", "perplexity", "--run", run, text, "--json").out
    Path("t.txt.gz").write_bytes(gzip.compress(text.read_bytes()))
    packed = reformer("evaluate", "perplexity", "--run", run, "t.txt.gz", "--json").out
    assert packed == whole.replace(str(text), "t.txt.gz")
    monkeypatch.setattr(text_chunks.read_pieces, "__defaults__", (100, False))
    assert reformer("evaluate", "perplexity", "--run", run, text, "--json").out == whole


def test_by_position_adds_up_and_csv_says_the_same(reformer: Program, run: Path, text: Path) -> None:
    options = ["evaluate", "perplexity", "--run", run, text, "--by-position"]
    found = json.loads(reformer(*options, "--json").out)
    parts = found["by_position"]
    assert [(p["from"], p["to"]) for p in parts[:3]] == [(0, 15), (16, 63), (64, 255)]
    assert sum(p["tokens"] for p in parts) == found["tokens"]
    nats = sum(p["nats_per_token"] * p["tokens"] for p in parts)
    assert nats == pytest.approx(found["nats_per_token"] * found["tokens"])
    rows = list(csv.DictReader(io.StringIO(reformer(*options, "--csv").out)))
    assert [row["from"] for row in rows] == ["", *(str(p["from"]) for p in parts)]
    assert float(rows[0]["bits_per_byte"]) == found["bits_per_byte"]
    assert float(rows[0]["bits_per_byte_low"]) == found["intervals"]["bits_per_byte"][0]
    assert float(rows[2]["nats_per_token"]) == parts[1]["nats_per_token"]
    assert "0 - 15" in reformer(*options).out


def test_several_files_in_csv_have_a_total(reformer: Program, run: Path, text: Path) -> None:
    Path("b.txt").write_text("The cat sat.\n" * 9, "utf-8")
    rows = list(
        csv.DictReader(io.StringIO(reformer("evaluate", "perplexity", "--run", run, text, "b.txt", "--csv").out))
    )
    assert [row["text"] for row in rows] == [str(text), "b.txt", "total"]
    assert int(rows[2]["tokens"]) == int(rows[0]["tokens"]) + int(rows[1]["tokens"])


def test_a_bad_file_does_not_cost_the_figures_of_those_before_it(reformer: Program, run: Path, text: Path) -> None:
    Path("bad.txt").write_bytes(b"fine so far\n" * 99 + b"\xff\xfe")
    options = ["evaluate", "perplexity", "--run", run, text, "bad.txt"]
    result = reformer(*options, "--json")
    assert "bad.txt is not utf-8: byte 1188 (line 100)" in result.error
    assert list(json.loads(result.out)["files"]) == [str(text)]
    assert "bits/byte" in reformer(*options).out


def test_files_of_one_name_are_all_counted(reformer: Program, run: Path, text: Path) -> None:
    once = json.loads(reformer("evaluate", "perplexity", "--run", run, text, "--json").out)
    twice = json.loads(reformer("evaluate", "perplexity", "--run", run, text, text, "--json").out)
    assert list(twice["files"]) == [str(text), f"{text} (2)"]
    assert twice["tokens"] == 2 * once["tokens"]
    assert twice["bits_per_byte"] == pytest.approx(once["bits_per_byte"])


def test_a_text_without_words_is_no_number_in_json(reformer: Program, run: Path) -> None:
    # exp(nats of 3,000 characters / 1 word) overflows, and JSON has no infinity.
    Path("long.txt").write_text("a" * 3000)
    result = reformer("evaluate", "perplexity", "--run", run, "long.txt", "--json")
    assert "Infinity" not in result.out
    assert json.loads(result.out)["word_perplexity"] is None
    Path("blank.txt").write_text(" \n\n")
    assert (
        json.loads(reformer("evaluate", "perplexity", "--run", run, "blank.txt", "--json").out)["word_perplexity"]
        is None
    )
    for name in ("long.txt", "blank.txt"):
        assert "word perplexity" in reformer("evaluate", "perplexity", "--run", run, name).out


def test_many_texts_have_a_line_each(reformer: Program, run: Path) -> None:
    for n in range(4):
        Path(f"{n}.txt").write_text("The cat sat.\n" * (n + 1))
    out = reformer("evaluate", "perplexity", "--run", run, "0.txt", "1.txt", "2.txt", "3.txt").out.splitlines()
    assert [row.split(":")[0] for row in out[:4]] == ["0.txt", "1.txt", "2.txt", "3.txt"]
    assert out[4].startswith("total (95 % interval")


def test_rounds_are_an_override(reformer: Program, run: Path, text: Path) -> None:
    as_trained, same, more = (
        json.loads(reformer("evaluate", "perplexity", "--run", run, text, "--json", *options).out)["bits_per_byte"]
        for options in ([], ["--n-hashes", 2], ["--n-hashes", 6])
    )
    assert as_trained == same != more


def test_buckets_are_an_override(reformer: Program, run: Path, text: Path) -> None:
    options = ["evaluate", "perplexity", "--run", run, text, "--json"]
    as_trained, fewer = (json.loads(reformer(*options, *rest).out) for rest in ([], ["--far-buckets", 0]))
    assert as_trained["bits_per_byte"] != fewer["bits_per_byte"]
    assert (as_trained["far_buckets"], fewer["far_buckets"]) == (None, 0)
    options = ["evaluate", "context", "--run", run, text, "--tokens", 1000, "--csv"]
    assert reformer(*options).out != reformer(*options, "--far-buckets", 0).out


def test_pictures(reformer: Program, run: Path, text: Path) -> None:
    options = ["evaluate", "perplexity", "--run", run, text]
    assert reformer(*options, "--by-position", "--plot", "a.png").status == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert "add --by-position" in reformer(*options, "--plot", "b.png").error
    assert "no known ending" in reformer(*options, "--by-position", "--plot", "b.jpeg2").error
    assert "no folder none" in reformer(*options, "--by-position", "--plot", "none/b.png").error


def test_without_matplotlib_the_extra_is_named_and_tables_work(
    reformer: Program, run: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else real(name))
    options = ["evaluate", "perplexity", "--run", run, text, "--by-position"]
    assert "pip install 'reformer-cli[plots]'" in reformer(*options, "--plot", "b.png").error
    assert reformer(*options, "--plot", "b.svg").status == 0
    assert Path("b.svg").read_text().startswith("<svg")
    assert reformer(*options).status == 0


def test_held_out_text_by_default(reformer: Program, run: Path) -> None:
    result = reformer("evaluate", "perplexity", "--run", run, "--json")
    found = json.loads(result.out)
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    # Six steps, the last validation is of the last weights: the same figure as training showed.
    best = min(
        json.loads(line)["val_bits_per_byte"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if "val_bits_per_byte" in line
    )
    assert found["bits_per_byte"] == pytest.approx(best, rel=1e-6)
    assert last["val_tokens"] == found["tokens"]


def test_context_limits_what_is_seen(reformer: Program, run: Path, text: Path) -> None:
    text.write_text(text.read_text()[:3000])
    whole = json.loads(reformer("evaluate", "perplexity", "--run", run, text, "--json").out)
    short = json.loads(reformer("evaluate", "perplexity", "--run", run, text, "--context", 8, "--json").out)
    wide = json.loads(reformer("evaluate", "perplexity", "--run", run, text, "--context", 100_000, "--json").out)
    assert short["tokens"] == whole["tokens"]
    assert short["nats_per_token"] != whole["nats_per_token"]
    assert wide["nats_per_token"] == pytest.approx(whole["nats_per_token"], rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "no file or folder 'none.txt'"),
        (["empty.txt"], "empty.txt is empty"),
        (["latin.txt"], "not utf-8: byte 0"),
        (["--context", "1"], "'--context': Input should be greater than or equal to 2"),
        (["--json", "--csv"], "exclude each other"),
        (["--n-hashes", "0"], "--n-hashes"),
        (["--far-buckets", "100"], "far_buckets 100 is no even multiple of the 64 buckets"),
        ([".."], "cannot read"),
    ],
)
def test_mistakes_get_one_line(reformer: Program, run: Path, arguments: list[str], message: str) -> None:
    Path("empty.txt").touch()
    Path("latin.txt").write_bytes(b"\xe9")
    assert message in reformer("evaluate", "perplexity", "--run", run, *arguments).error


def test_a_changed_corpus_is_noticed(reformer: Program, run: Path, text: Path) -> None:
    assert reformer("evaluate", "perplexity", "--run", run).status == 0  # its tokens come into this test's cache
    text.write_text("Something else.\n" * 100)
    assert "has changed since" in reformer("evaluate", "perplexity", "--run", run).error
    text.unlink()
    result = reformer("evaluate", "perplexity", "--run", run)  # its tokens are in the cache
    assert result.status == 0
    assert "text.txt is gone; going on with its tokens" in result.err
    shutil.rmtree(cache_folder())
    assert "its tokens are no longer in the cache" in reformer("evaluate", "perplexity", "--run", run).error


def test_models_with_numbered_positions_say_what_they_can_read(reformer: Program, text: Path) -> None:
    axial = ["positions=axial", "axial_shape=[8,8]", "axial_dims=[8,8]", "attn_layers=[lsh]", "data.context=32"]
    sets = [part for setting in axial for part in ("--set", setting)]
    assert reformer("train", text, *TINY, *sets, "--steps", 1, "--run", "axial").status == 0
    text.write_text(text.read_text()[:3000])
    error = reformer("evaluate", "perplexity", "--run", "axial", text).error
    assert "tokens exceed the 64 positions of this model; use --context 64" in error
    assert reformer("evaluate", "perplexity", "--run", "axial", text, "--context", 64).status == 0
    assert (
        "--context: 65 tokens exceed the 64 positions"
        in reformer("evaluate", "perplexity", "--context", 65, "--run", "axial", text).error
    )
    Path("short.txt").write_text("The cat sat.", "utf-8")
    assert reformer("evaluate", "perplexity", "--run", "axial", "short.txt").status == 0
