"""The model card says what is known, and nothing of whose disk it was made on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from reformer import ReformerConfig

from reformer_cli.config.schema import DataConfig, RunConfig
from reformer_cli.convert.model_card import LOAD, Licences, figures, model_card
from reformer_cli.runs.origin import FILE, Origin
from reformer_cli.runs.run import METRICS, Run
from reformer_cli.tokenizers.base import ByteTokenizer

LINES = [
    {"step": 10, "loss": 3.25},
    {"step": 10, "val_bits_per_byte": 2.5, "val_tokens": 1200},
    {"step": 20, "loss": 2.75},
    {"step": 20, "val_bits_per_byte": 2.6, "val_tokens": 1200},
]


def run_at(path: Path, corpus: tuple[str, ...] = (), lines: list[dict] | None = None) -> Run:
    config = RunConfig(
        model=ReformerConfig(vocab_size=257),
        data=DataConfig(corpus=corpus, context=64),
        corpus_digest="ab12" if corpus else "",
    )
    run = Run.create(path, config, ByteTokenizer())
    if lines:
        (path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30, "lo')
    return run


def card(run: Run, form: str = "safetensors", **options: str) -> str:
    return model_card(run, ByteTokenizer(), 1234, form, Licences(**options), ["a note"])


def test_data_figures_and_licences(tmp_path: Path) -> None:
    text = card(
        run_at(tmp_path / "novel", ("/home/someone/secret/novel.txt", "gutenberg:2554"), LINES),
        license="MIT",
        data="cc0-1.0",
    )
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "mit"
    assert front["library_name"] == "reformer"
    for part in (
        "novel.txt, gutenberg:2554, SHA-256 of the text ab12", "5% of each document was held out", "1,234",
        "Licence of the data: cc0-1.0", "| held-out bits/byte | 2.5000 (step 10) |", "| training steps | 20 |",
        "- a note", "| last training loss | 2.7500 nats/token |",
    ):  # fmt: skip
        assert part in text
    assert "/home" not in text
    assert "secret" not in text


def test_what_is_not_known_is_called_that(tmp_path: Path) -> None:
    text = card(run_at(tmp_path / "bare"))
    assert "Not known to this program." in text
    assert "No figures were kept" in text
    assert yaml.safe_load(text.split("---")[1])["license"] == "unknown"


def test_an_imported_model_says_where_from(tmp_path: Path) -> None:
    run = run_at(tmp_path / "run")
    Origin("transformers", "google/reformer-enwik8").write(run.path)
    assert "Not trained here: google/reformer-enwik8, imported from transformers' format." in card(run)
    Origin("transformers", "/home/someone/enwik8").write(run.path)
    assert "Not trained here: enwik8, imported" in card(run)
    tuned = run_at(tmp_path / "tuned", ("a.txt",))
    Origin("run", "runs/base").write(tuned.path)
    assert "Training began with runs/base, the weights of another run." in card(tuned)


@pytest.mark.parametrize("content", ["", "[]", '{"kind": 1}', "\x00"])
def test_an_origin_that_cannot_be_read_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    assert Origin.read(tmp_path) is None


@pytest.mark.parametrize("lines", ['{"step": "x"}\n[]\n3\nnull\n', "", '{"val_bits_per_byte": "low"}\n'])
def test_metrics_that_cannot_be_read_give_no_figures(lines: str, tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text(lines)
    assert figures(tmp_path) == {}


def test_a_licence_is_a_name() -> None:
    assert Licences("CC-BY-4.0", "GPL-3.0 or later").faults() == []
    assert len(Licences("x\nlicense: mit", "").faults()) == 2


@pytest.mark.parametrize("form", LOAD)
def test_every_format_says_how_to_load_it(form: str, tmp_path: Path) -> None:
    """The code of the card is run in tests/end_to_end/test_convert.py; here, that it is in the card."""
    assert LOAD[form] in card(run_at(tmp_path / "run"), form)
