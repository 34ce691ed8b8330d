"""Context, recall, attention and the public harness as a user asks for them."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path

import pytest
from builders.programs import TINY, Kept, Program

from reformer_cli.evaluation import periodic


@pytest.fixture
def copy_run(reformer: Program, tmp_path: Path, kept: Kept) -> Path:
    """A run of the copy task, hardly trained."""

    def train() -> None:
        result = reformer("train", "copy:15:20", *TINY, "--steps", 3, "--run", tmp_path / "copy")
        assert result.status == 0, result.err
        assert "every sequence new (32 tokens)" in result.err

    return kept("copy", train)


def test_context_scores_the_same_tokens_everywhere(reformer: Program, run: Path, text: Path) -> None:
    options = ["evaluate", "context", "--run", run, text, "--contexts", "16,256", "--tokens", 2000]
    found = json.loads(reformer(*options, "--json").out)
    assert found["contexts"] == [16, 256, None]
    overall = [row for row in found["rows"] if row["group"] == "all"]
    assert [row["tokens"] for row in overall] == [2000] * 3
    assert [(row["sees_least"], row["sees_most"]) for row in overall[:2]] == [(8, 15), (128, 255)]
    assert len({row["bits_per_byte"] for row in overall}) == 3
    words = [row for row in found["rows"] if row["group"] == "words" and row["context"] == 16]
    assert sum(row["tokens"] for row in words) <= 2000
    rows = list(csv.DictReader(io.StringIO(reformer(*options, "--csv").out)))
    assert [float(row["bits_per_byte"]) for row in rows] == [row["bits_per_byte"] for row in found["rows"]]
    report = reformer(*options, "--plot", "c.png")
    assert report.out.rstrip().endswith(found["verdict"])
    assert "a token sees" in report.out
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")


def test_context_of_what_was_held_out_has_the_whole_text_before_it(reformer: Program, run: Path) -> None:
    found = json.loads(reformer("evaluate", "context", "--run", run, "--tokens", 500, "--json").out)
    last = [row for row in found["rows"] if row["group"] == "all"][-1]
    assert last["context"] is None
    assert last["sees_least"] > 5000  # the training part, of which a step reads 32 tokens


def test_context_mistakes(reformer: Program, run: Path) -> None:
    Path("one.txt").write_text("a")
    options = ["evaluate", "context", "--run", run]
    assert "--contexts 'x' is not a number" in reformer(*options, "--contexts", "16,x").error
    assert "--contexts '1' is not a number from 2 to" in reformer(*options, "--contexts", "1").error
    assert "one.txt has 1 tokens" in reformer(*options, "one.txt").error
    assert "no file or folder 'none.txt'" in reformer(*options, "none.txt").error


def test_evaluations_during_training_and_at_its_end(
    reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "LONGEST", 64)
    sets = [
        part for setting in ("eval.tests_every=2", "eval.tokens=300", "tokenizer=bytes") for part in ("--set", setting)
    ]
    assert reformer("train", text, *TINY, *sets, "--steps", 5, "--run", "curve").status == 0
    lines = [json.loads(line) for line in Path("curve/metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["evaluation"] for line in lines if "evaluation" in line}
    assert list(found) == [2, 4, 5]
    for record in found.values():
        assert record["perplexity"]["tokens"] == 300
        assert set(record["context"]) == {"4", "16", "all"}
        assert {o["test"] for o in record["recall"]} == {"copy", "associative"}  # there are too few words for needles
        assert "tokens" in record["verdict"]
    # The last weights are the best ones here; the commands say the same of them.
    again = json.loads(
        reformer("evaluate", "recall", "--run", "curve", "--max-distance", 64, "--test", "associative", "--json").out
    )
    best = {json.dumps([o for o in r["recall"] if o["test"] == "associative"]) for r in found.values()}
    assert json.dumps(again["n_hashes"]["as trained"]) in best


def test_evaluations_can_begin_with_a_resumed_run(
    reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "LONGEST", 64)
    sets = ["--set", "eval.tests_every=1"]
    assert reformer("train", "--resume", "--run", run, "--steps", 8, *sets).status == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "evaluation" in line] == [7, 8]
    result = reformer("train", "--resume", "--run", run, "--set", "eval.tokens=0", "--set", "eval.tests_every=0")
    assert result.status == 2
    assert "eval.tokens: " in result.err
    assert "eval.tests_every: " in result.err
    assert "data.context is 32, not 9" in reformer("train", "--resume", "--run", run, "--set", "context=9").error


def test_published_runs_say_which_likelihood_they_are_scored_by(reformer: Program, text: Path) -> None:
    published = [
        "lsh_key_conv=1",
        "positions=none",
        "attn_layers=[chunked_local,chunked_lsh]",
        "lsh_window=8",
        "local_window=8",
    ]
    sets = [part for setting in [*published, "n_layers=2", "eval.tests_every=2"] for part in ("--set", setting)]
    assert reformer("train", text, *TINY, *sets, "--steps", 2, "--run", "p").status == 0
    Path("short.txt").write_text(text.read_text()[:2000])
    options = ["evaluate", "perplexity", "--run", "p", "short.txt"]
    by_pass = json.loads(reformer(*options, "--json").out)
    assert (by_pass["likelihood"], by_pass["context"]) == ("forward", 32)
    decoded = json.loads(reformer(*options, "--likelihood", "decoding", "--json").out)
    assert (decoded["likelihood"], decoded["context"]) == ("decoding", None)
    assert decoded["nats_per_token"] != by_pass["nats_per_token"]
    assert "this is that of the forward pass, as trained" in reformer(*options).out
    assert "the forward pass, as trained" in reformer(*options, "--csv").err
    assert "use decoding or forward" in reformer(*options, "--likelihood", "exact").error
    # Validation is of the same likelihood as the command gives.
    lines = [json.loads(line) for line in Path("p/metrics.jsonl").read_text().splitlines()]
    logged = [line["val_bits_per_byte"] for line in lines if "val_bits_per_byte" in line][-1]
    held_out = json.loads(reformer("evaluate", "perplexity", "--run", "p", "--json").out)
    assert held_out["bits_per_byte"] == pytest.approx(logged, rel=1e-6)
    for command in ("context", "recall"):
        result = reformer(
            "evaluate",
            command,
            "--run",
            "p",
            *(["--max-distance", 64, "--test", "associative"] * (command == "recall")),
        )
        assert result.status == 0
        assert "attention in chunks" in result.err


def test_recall_of_a_text_run(reformer: Program, run: Path, text: Path) -> None:
    words = [f"{a}{b}ing" for a in "bcdfghjklmnp" for b in ("a", "e", "i", "o", "u", "ar", "or")]
    Path("novel.txt").write_text((" ".join(words) + ".\n") * 9, "utf-8")
    options = ["evaluate", "recall", "--run", run, "--max-distance", 1024, "--text", "novel.txt"]
    report = reformer(*options, "--plot", "r.png")
    assert report.status == 0, report.err
    for part in ("copies of random symbols", "values of keys", "sentences planted", "depth  1,024 tokens"):
        assert part in report.out
    assert Path("r.png").read_bytes().startswith(b"\x89PNG")
    options = [*options, "--test", "associative", "--json"]
    found = json.loads(reformer(*options).out)
    assert {o["test"] for o in found["n_hashes"]["as trained"]} == {"associative"}
    assert json.loads(reformer(*options, "--seed", 1).out)["n_hashes"] != found["n_hashes"]


def test_recall_of_other_rounds(reformer: Program, copy_run: Path) -> None:
    options = ["evaluate", "recall", "--run", copy_run, "--max-distance", 64, "--n-hashes", "1,2,full"]
    found = json.loads(reformer(*options, "--json").out)
    assert found["symbols"] == 20
    rounds = found["n_hashes"]
    assert list(rounds) == ["1 round", "2 rounds", "full"]
    assert {o["test"] for o in rounds["2 rounds"]} == {"copy", "associative"}
    assert {o["test"] for o in rounds["full"]} == {"copy"}  # the others are streamed
    assert 16 in [o["distance"] for o in rounds["full"]]  # the length that it was trained with
    rows = list(csv.DictReader(io.StringIO(reformer(*options, "--csv").out)))
    assert len(rows) == sum(map(len, rounds.values()))


def test_recall_mistakes(reformer: Program, run: Path, copy_run: Path) -> None:
    options = ["evaluate", "recall", "--run", run]
    assert (
        "the test nothing is not known; use copy, associative, needle" in reformer(*options, "--test", "nothing").error
    )
    for wrong in ("0", "65", "many", "", "1,,2", "²"):
        assert "is not a number from 1 to 64 or 'full'" in reformer(*options, "--n-hashes", wrong).error
    assert "--far-buckets: far_buckets 7 is no even multiple" in reformer(*options, "--far-buckets", 7).error
    assert "no text to plant" in reformer("evaluate", "recall", "--run", copy_run, "--test", "needle").error
    assert "common words, too few" in reformer(*options, "--test", "needle").error


def test_a_text_too_short_for_needles_leaves_the_other_tests(reformer: Program, run: Path, text: Path) -> None:
    """Nothing at all was tested, although copies and keys need no text."""
    Path("short.txt").write_text("Too few words.\n")
    options = ["evaluate", "recall", "--run", run, "--max-distance", 64, "--json"]
    result = reformer(*options, "--text", "short.txt")
    assert {o["test"] for o in json.loads(result.out)["n_hashes"]["as trained"]} == {"copy", "associative"}
    assert "needle left out: the text has 0 common words, too few" in result.err
    text.unlink()  # what the run was trained on
    result = reformer(*options, "--test", "needle", "--test", "associative")
    assert {o["test"] for o in json.loads(result.out)["n_hashes"]["as trained"]} == {"associative"}
    assert "needle left out: " in result.err


def test_the_copy_task_is_a_corpus(reformer: Program, copy_run: Path) -> None:
    config = (copy_run / "config.yaml").read_text()
    assert "corpus_digest: copy:15:20" in config
    assert "context: 32" in config
    assert reformer("train", "--resume", "--run", copy_run, "--steps", 5).status == 0
    found = json.loads(reformer("evaluate", "perplexity", "--run", copy_run, "--json").out)
    assert found["tokens"] == 64 * 15
    error = reformer("train", "copy:15:20", "--set", "context=64", "--steps", 1).error
    assert "makes sequences of 32 tokens, data.context is 64; use --set context=32" in error


def test_attention_table_picture_and_listing(reformer: Program, run: Path, text: Path) -> None:
    options = ["evaluate", "attention", text, "--run", run, "--tokens", 300]
    report = reformer(*options, "--plot", "a.png")
    assert report.status == 0, report.err
    assert "top keys seen" in report.out
    assert "what token 299 reaches" in report.out
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(reformer(*options, "--token", 50, "--json").out)
    assert found["token"] == 50
    assert [layer["round"] for layer in found["layers"]] == [0, 1, 2, "all"]
    together = found["layers"][-1]
    assert together["reached"] >= max(layer["reached"] for layer in found["layers"][:-1])
    assert together["top_found"] >= max(layer["top_found"] for layer in found["layers"][:-1])
    assert all(seen["position"] < 50 for seen in found["reached"])
    more = json.loads(reformer(*options, "--n-hashes", 8, "--json").out)["layers"][-1]
    assert more["top_found"] > together["top_found"]
    assert reformer("evaluate", "attention", "--run", run).status == 0


def test_attention_mistakes(reformer: Program, run: Path, text: Path) -> None:
    options = ["evaluate", "attention", text, "--run", run, "--tokens", 300]
    assert "--token 300 is not among the 300 tokens" in reformer(*options, "--token", 300).error
    assert reformer("train", text, *TINY, "--set", "attn_layers=[local]", "--steps", 1, "--run", "local").status == 0
    assert "no LSH heads (attn_layers: local)" in reformer("evaluate", "attention", text, "--run", "local").error
    assert "no LSH heads" in reformer("evaluate", "recall", "--n-hashes", 2, "--run", "local").error


TASK = """
task: nursery
dataset_path: json
dataset_kwargs: {data_files: {test: "DATA"}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["mat", "noon"]
doc_to_target: label
metric_list: [{metric: acc}]
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task of the harness that needs no network."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    lines = [{"question": "The cat sat on a", "label": 0}, {"question": "All was calm until", "label": 1}]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "nursery.yaml").write_text(TASK.replace("DATA", str(folder / "data.jsonl")))
    return folder


@pytest.mark.slow
def test_the_public_harness_scores_a_run_offline(reformer: Program, run: Path, tasks: Path) -> None:
    pytest.importorskip("lm_eval")
    options = ["evaluate", "harness", "nursery", "--run", run, "--include-path", tasks]
    found = json.loads(reformer(*options, "--json").out)["tasks"]
    assert [(row["task"], row["metric"]) for row in found] == [("nursery", "acc")]
    assert found[0]["value"] in (0.0, 0.5, 1.0)
    assert "nursery" in reformer(*options).out
    assert "knows no task 'nurseries'" in reformer("evaluate", "harness", "nurseries", "--run", run).error
    assert "no folder" in reformer("evaluate", "harness", "x", "--run", run, "--include-path", "none").error


def test_without_the_harness_its_extra_is_named(reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else real(name))
    assert "pip install 'reformer-cli[lm-eval]'" in reformer("evaluate", "harness", "x", "--run", run).error
