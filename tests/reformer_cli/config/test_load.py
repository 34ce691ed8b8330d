"""Recipes, settings, and every fault at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from builders.programs import Program

from reformer_cli.config.load import config_names, from_yaml, load_config, resolve, to_yaml
from reformer_cli.config.schema import RunConfig
from reformer_cli.utils.errors import UserError


def test_every_recipe_is_good_and_says_why(reformer: Program) -> None:
    names = config_names()
    assert {"demo", "novel", "million"} <= set(names)
    assert reformer("config", "validate", *names).status == 0
    listed = reformer("config", "list").out
    for name, path in names.items():
        assert name in listed
        for line in path.read_text("utf-8").splitlines():
            assert not line.startswith("  ") or "  # " in line, f"{path}: no reason given for {line!r}"


def test_show_prints_what_a_recipe_leads_to(reformer: Program) -> None:
    found = yaml.safe_load(reformer("config", "show", "novel", "--set", "batch_size=3").out)
    assert found["data"]["context"] == 524_288
    assert found["train"]["batch_size"] == 3
    assert found["model"]["block_style"] == "modern"  # a default is shown too


def test_validate_lists_every_fault(reformer: Program, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "model:\n  d_modell: 3\n  n_buckets: [5]\ntraining: {}\ndata:\n  context: long\ntrain:\n  d_model: 3\n"
    )
    result = reformer("config", "validate", "demo", "bad.yaml")
    assert result.status == 2
    for part in ("d_modell; did you mean model.d_model?", "must be even", "'training'; did you mean train",
                 "data.context", "belongs under `model:`"):  # fmt: skip
        assert part in result.err, part
    assert "demo: good" in result.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not YAML"),
        ("- a", "not a mapping"),
        ("model: 3", "expected a mapping"),
        ("model: {vocab_size: 9}", "follows from the tokenizer"),
        ("d_model: 3", "belongs under `model:`"),
        ("x: !!python/object/apply:os.system [ls]", "not YAML"),
        (
            "model: {positions: axial, d_model: 256}\ndata: {context: 600000}",
            "600,000 tokens exceed the 524,288 positions",
        ),
        ("train: {steps: 3, minutes: 4}", "exclude each other"),
        ("model: {seed: 1.5}", "model.seed"),
        ("model: {dropout: .nan}", "model.dropout"),
    ],
)
def test_bad_files(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / "c.yaml"))


def test_set_overrides_file_overrides_base(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: {d_model: 2, n_layers: 3}")
    found = load_config(str(tmp_path / "c.yaml"), ["n_layers=4"], {"model": {"d_model": 1, "n_heads": 8}})
    assert found["model"] == {"d_model": 2, "n_layers": 4, "n_heads": 8}


def test_a_name_without_its_section_means_what_a_user_sets() -> None:
    assert load_config(None, ["seed=3"])["model"] == {"seed": 3}
    assert load_config(None, ["vocab_size=320"])["data"] == {"vocab_size": 320}


def test_yaml_there_and_back() -> None:
    settings = load_config(None, ["n_buckets=[4, 6]", "steps=7", "corpus=[a.txt]"])
    config = resolve(settings, 99, "abc")
    again = from_yaml(to_yaml(config), "x")
    assert again == config
    assert isinstance(again, RunConfig)
    assert again.model.n_buckets == (4, 6)


def test_config_bombs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("# " + "x" * 2**21)
    with pytest.raises(UserError, match="more than 1,048,576 bytes"):
        load_config(str(tmp_path / "big.yaml"))
    bomb = "a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
        f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
        for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    )
    (tmp_path / "bomb.yaml").write_text(bomb)
    with pytest.raises(UserError, match="alias in line 2"):
        load_config(str(tmp_path / "bomb.yaml"))
