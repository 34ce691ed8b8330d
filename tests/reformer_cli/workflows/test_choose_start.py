"""What a new run begins with when nobody says: the starter where it knows the text, new weights where it does not."""

from __future__ import annotations

import csv
import itertools
import random
from pathlib import Path

import pytest
from builders.programs import TINY, Program

from reformer_cli.data.scan import scanned
from reformer_cli.data.text_decoding import Options
from reformer_cli.runs.run import Run
from reformer_cli.training.auto_config import REFERENCE, Budget, Text, best
from reformer_cli.workflows import choose_start
from reformer_cli.workflows.choose_settings import text_of


def chosen(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("  --from = ")]


def train(reformer: Program, *arguments: object) -> str:
    result = reformer("train", *arguments, "--steps", 1, "--run", "new")
    assert result.status == 0, result.err
    return result.err


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A text that nothing was ever learnt of, and that bz2 makes much of: four letters that follow each other."""
    draw = random.Random(3)
    path = tmp_path / "genome.txt"
    path.write_text("".join(draw.choice("ACGT") for _ in range(30_000)) + "\n", "utf-8")
    return path


def test_a_text_that_it_knows_begins_with_it(reformer: Program, starter: Path, text: Path, monkeypatch) -> None:
    monkeypatch.setattr(choose_start, "GAIN", 99.0)  # of what six steps have taught
    [line] = chosen(train(reformer, text, "--set", "context=32"))
    assert line.split()[2] == "starter"
    assert "bits/byte" in line
    assert line.count(".") >= 2  # both numbers
    made, began = Run.open(Path("new")), Run.open(Path("starter"))
    assert made.config.model.d_model == began.config.model.d_model
    assert made.tokenizer().serialise() == began.tokenizer().serialise()
    assert made.config.data.corpus == (str(text),)
    assert (Path("new") / "origin.json").read_text() == '{"kind": "run", "name": "starter"}\n'  # no path of a machine


def test_a_text_that_it_does_not_know_begins_anew(reformer: Program, starter: Path, foreign: Path) -> None:
    [line] = chosen(train(reformer, foreign))
    assert line.split()[2] == "none"
    assert not (Path("new") / "origin.json").exists()


@pytest.mark.parametrize(
    ("model", "data", "why"),
    [
        ({"d_model": 16, "n_layers": 2}, {}, "model.d_model and 1 more are for a new model"),
        ({"n_layers": 2, "dropout": 0.1, "seed": 3}, {}, "model.n_layers is for a new model"),
        ({}, {"tokenizer": "bytes", "context": 32}, "data.tokenizer is for a new model"),
        ({}, {"image_size": [8, 8]}, "images are no text"),
        ({}, {"corpus": ["copy:15:60"]}, "a task is no text"),
        ({"dropout": 0.1, "chunk_tokens": 64, "backend": "torch"}, {"context": 32, "corpus": ["a.txt"]}, None),
    ],
)
def test_what_does_not_go_with_it(model: dict, data: dict, why: str | None) -> None:
    assert choose_start.why_anew({"model": model, "data": data}, None, None) == why


def test_what_does_not_go_with_it_is_said(reformer: Program, starter: Path, text: Path) -> None:
    [line] = chosen(train(reformer, text, *TINY))
    assert line.split()[2] == "none"
    assert line.endswith("model.d_model and 2 more are for a new model")
    assert choose_start.why_anew({"model": {}, "data": {}}, "novel", None) == "--config novel is for a new model"


def test_none_asks_nothing(reformer: Program, starter: Path, text: Path) -> None:
    assert not chosen(train(reformer, text, "--from", "none", *TINY))
    assert not (Path("new") / "origin.json").exists()


def test_without_a_starter_nothing_is_said(reformer: Program, run: Path) -> None:
    assert not chosen(reformer("train", "text.txt", *TINY, "--steps", 1, "--run", "new").err)


def test_a_sample_is_from_all_over(tmp_path: Path) -> None:
    # Of a corpus whose first text is another than the rest, the first alone would decide.
    for n in range(50):
        (tmp_path / f"{n:02}.txt").write_text(f"file {n} " * 500)
    (tmp_path / "50.txt").write_bytes(b"\xff\xfe\xfd")  # what cannot be read is left out
    with scanned([str(tmp_path)], Options(), 1, print) as scan:
        parts = choose_start.sample(scan)
    together = "".join(parts)
    assert len({n for n in range(50) if f"file {n} " in together}) >= 20
    assert len(parts) <= 2 * choose_start.PARTS
    assert max(map(len, parts)) <= choose_start.PART


def test_a_shelf_is_as_hard_to_predict_as_its_books(tmp_path: Path) -> None:
    """Stretches of many books, joined, pack worse than those of one: of 94 novels 1.76 bits/byte were told, 1.56 came,
    and a folder could be begun with the starter where each of its books would not."""
    draw = random.Random(0)
    folder = tmp_path / "shelf"
    folder.mkdir()
    for n in range(choose_start.PARTS):
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(60)]
        (folder / f"{n:02}.txt").write_text(
            "".join(f"{word} " for word in draw.choices(words, k=choose_start.PART // 8))
        )
    found = []
    for path in (folder, folder / "07.txt"):
        with scanned([str(path)], Options(), 1, print) as scan:
            found.append(text_of(scan, choose_start.sample(scan)).entropy)
    assert found[0] == pytest.approx(found[1], rel=0.05)


def expected(entropy: float, n_bytes: int, minutes: float) -> float:
    """Of a new model, on the machine that the rows are from."""
    text = Text(n_bytes, entropy=entropy)
    return best(text, Budget(REFERENCE, 2**33, minutes, None))[0].expected


def test_more_time_and_text_make_more_be_expected() -> None:
    few, much = (expected(2.4, 1_000_000, minutes) for minutes in (2, 20))
    assert much < few
    assert expected(2.4, 10_000_000, 2) < few


def test_what_was_measured_is_chosen_right() -> None:
    # English novels begin with it, other languages, programs and a genome do not, whatever the minutes.
    with (Path(__file__).parents[3] / "benchmarks" / "starter.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    novels = {"crime-and-punishment", "war-and-peace", "hardy_crowd", "wells_thetimemachine"}
    assert novels < {row["text"] for row in rows}
    for row, minutes in itertools.product(rows, (0.5, 2, 10, 30)):
        new = expected(float(row["bz2_bits_per_byte"]), int(row["bytes"]), minutes)
        better = float(row["starter_untrained"]) < choose_start.GAIN * new
        assert better == (row["text"] in novels), (row, minutes)
    for row in rows:
        if row["new"]:
            new = expected(float(row["bz2_bits_per_byte"]), int(row["bytes"]), float(row["minutes"]))
            assert abs(new / float(row["new"]) - 1) < 0.05, row
