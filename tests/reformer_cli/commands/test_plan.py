"""`reformer plan`: the forecast is the measurement, and what it names fits."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from builders.programs import Program
from PIL import Image
from reformer import ReformerConfig, ReformerLM

from reformer_cli.config.load import load_config, resolve
from reformer_cli.training.cost import ONE_CORE
from reformer_cli.training.fit_memory import memory_hints, reduce_memory
from reformer_cli.training.memory import Step, count_parameters, forecast, largest_context, largest_depth

SIZES = ["--set", "vocab_size=320", "--set", "d_model=64", "--set", "n_layers=2", "--set", "d_head=16"]


def test_items_add_up_and_the_verdict_follows(reformer: Program) -> None:
    result = reformer(
        "plan", *SIZES, "--set", "context=4096", "--set", "batch_size=1", "--memory", "16GiB", "--device", "cpu"
    )
    assert result.status == 0, result.err
    assert "fits in 16.0 GiB" in result.out
    assert "largest context" in result.out
    tight = reformer("plan", *SIZES, "--set", "context=1048576", "--memory", "300 MB", "--device", "cpu")
    assert "does not fit" in tight.out


def step(**changes: object) -> Step:
    model = ReformerConfig(vocab_size=320, d_model=256, n_layers=6, n_heads=2, d_head=64, d_ff=512, n_hashes=1)
    given: dict = {"model": model, "batch": 1, "context": 65536, "precision": "float32", "program": 0, "native": True}
    return Step(**(given | changes))


def test_the_largest_fit_and_one_more_does_not() -> None:
    memory, one = 2**30, step()
    context, depth = largest_context(one, memory), largest_depth(one, memory)
    assert step(context=context).total <= memory < step(context=context + 1024).total
    layers = [replace(one.model, n_layers=n) for n in (depth, depth + 1)]
    assert step(model=layers[0]).total <= memory < step(model=layers[1]).total
    assert largest_context(one, 1000) == largest_depth(one, 1000) == 0


def test_parameters_of_deep_models_are_counted_from_shallow_ones() -> None:
    for layers, n in ((("mixed",), 5), (("local", "lsh", "lsh"), 8), (("local", "lsh", "lsh"), 2)):
        config = ReformerConfig(vocab_size=50, d_model=16, d_head=8, n_layers=n, attn_layers=layers)
        assert count_parameters(config) == sum(p.numel() for p in ReformerLM(config).parameters())


def test_groups_take_their_share() -> None:
    """Two more streams of a fraction of the length, whatever the depth, and the matrices between the levels."""
    plain = replace(step().model, n_layers=8)
    model = replace(plain, shorten_factor=4, vanilla_layers=(2, 1))
    assert count_parameters(model) == sum(p.numel() for p in ReformerLM(model).parameters())
    named = {i.name: i.size for i in forecast(step(model=model))}
    assert named["groups"] == named["streams"] // 4
    assert step(model=plain).total < step(model=model).total < 1.2 * step(model=plain).total
    layers = largest_depth(step(model=model), 2**30)
    assert step(model=replace(model, n_layers=layers)).total <= 2**30
    assert largest_depth(step(model=model), 1000) == 0


def test_streams_do_not_grow_with_depth() -> None:
    names = [
        {i.name: i.size for i in forecast(step(model=ReformerConfig(vocab_size=320, n_layers=n)))} for n in (2, 24)
    ]
    assert names[0]["streams"] == names[1]["streams"]
    assert names[0]["attention"] == names[1]["attention"]
    assert names[0]["parameters"] < names[1]["parameters"]


@pytest.mark.parametrize("memory", ["much", "16 XB", "-3GiB", "", "nanGiB"])
def test_sizes_that_are_none(reformer: Program, memory: str) -> None:
    assert "is not a size" in reformer("plan", "--memory", memory).error


def test_a_plan_for_a_card_that_is_not_here(reformer: Program, text: Path) -> None:
    """Somebody without the card plans for it: what `train` would choose there, and what it comes to."""
    result = reformer("plan", text, "--as", "h200", "--minutes", 60)
    assert result.status == 0, result.err
    for told in ("data.vocab_size = ", "train.optimizer = muon", "fits in 129.5 GiB", "H200: about", "bits/byte"):
        assert told in result.out
    found = json.loads(reformer("plan", "--as", "t4", *SIZES, "--set", "context=4096", "--json").out)
    assert found["tokens_per_second"] > 0
    assert found["total_bytes"] == sum(item["bytes"] for item in found["items"])
    assert (found["machine"], found["fits"], found["limit_bytes"]) == ("T4", True, 16 * 10**9)
    assert "no machine 'abacus'; one of h200, h100, a100" in reformer("plan", "--as", "abacus").error
    assert "leave one of them out" in reformer("plan", "--as", "t4", "--measure").error


def test_a_plan_for_this_machine_has_its_speed(reformer: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reformer_cli.training.throughput.machine", lambda *_: ONE_CORE)
    found = json.loads(reformer("plan", *SIZES, "--device", "cpu", "--json").out)
    assert 0 < found["tokens_per_second"] < 10**5
    assert found["tokens"] == pytest.approx(600 * found["tokens_per_second"], rel=1e-3)
    assert "tokens/s" not in reformer("plan", *SIZES, "--device", "cpu").out  # nothing asked for it


@pytest.mark.parametrize("begin", ["starter", "none"])
def test_what_is_planned_is_what_is_trained(reformer: Program, text: Path, starter: Path, begin, monkeypatch) -> None:
    """`plan novel.txt` told of a new model, 128 wide, where `train novel.txt` went on with the starter."""
    monkeypatch.setattr("reformer_cli.training.throughput.machine", lambda *_: ONE_CORE)
    monkeypatch.setattr("reformer_cli.training.throughput.step_seconds", ONE_CORE.seconds)
    monkeypatch.setattr("reformer_cli.workflows.choose_start.GAIN", 99.0 if begin == "starter" else 0.0)
    told = reformer("plan", text, "--minutes", 0.01, "--device", "cpu", "--json")
    assert told.status == 0, told.err
    found = json.loads(told.out)
    assert found["from"] == (begin if begin == "starter" else None)
    assert 0 < found["bits_per_byte"] < (found["untrained_bits_per_byte"] or 9)
    assert f"--from = {begin}" in told.err
    result = reformer("train", text, "--minutes", 0.01, "--device", "cpu", "--run", "r")
    assert result.status == 0, result.err
    config = yaml.safe_load(Path("r/config.yaml").read_text())
    for key, value in found["chosen"].items():
        section, name = key.split(".")
        if key != "data.vocab_size":  # which the run's tokenizer has
            assert config[section][name] == value, key
    assert ("data.vocab_size" in found["chosen"]) == (begin == "none")


def test_a_few_pages_are_planned_as_bytes(reformer: Program, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("reformer_cli.training.throughput.machine", lambda *_: ONE_CORE)
    for lines, chosen in ((300, None), (600, 256)):  # 5,700 and 11,400 characters
        (tmp_path / "page.txt").write_text("One page of words.\n" * lines)
        told = json.loads(reformer("plan", "page.txt", "--minutes", 1, "--from", "none", "--json").out)
        assert told["chosen"].get("data.vocab_size") == chosen


def test_images_are_planned(reformer: Program, tmp_path: Path, monkeypatch) -> None:
    """`plan` told that data.context, which it had chosen itself, is not the values of an image."""
    monkeypatch.setattr("reformer_cli.training.throughput.machine", lambda *_: ONE_CORE)
    (tmp_path / "images").mkdir()
    for n in range(9):
        Image.new("RGB", (8, 8), (n, 20 * n, 0)).save(tmp_path / "images" / f"{n}.png")
    result = reformer("plan", "images", "--set", "image_size=[8,8]", "--minutes", 1, "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    assert found["bits_per_byte"] is None  # the law is that of prose
    assert "data.context" not in found["chosen"]


def test_measured_step(reformer: Program) -> None:
    """In this process other tests have left their memory: only that it runs and says a ratio."""
    out = reformer("plan", *SIZES, "--set", "context=2048", "--set", "batch_size=1", "--device", "cpu", "--measure").out
    assert re.search(r"measured .* \d\.\d\d x the forecast", out)


def test_train_warns_of_what_will_not_fit(reformer: Program, text, monkeypatch: pytest.MonkeyPatch) -> None:
    from reformer_cli.workflows import choose_settings

    monkeypatch.setattr(choose_settings, "free_memory", lambda device: 1000)
    result = reformer("train", text, "--steps", 1, "--set", "context=64", "--set", "d_model=16", "--run", "r")
    assert result.status == 0
    assert "warning: a step needs about" in result.err
    assert "lower data.context 64" in result.err


def test_train_works_on_less_at_once_where_that_makes_it_fit(reformer: Program, text, monkeypatch) -> None:
    from reformer_cli.workflows import choose_settings

    sets = ["context=4096", "batch_size=1", "d_model=64", "n_heads=16", "d_head=32", "n_layers=1", "precision=float32"]
    sets.append("tokenizer=bytes")
    whole = choose_settings.step_of(resolve(load_config(None, sets), 257), "cpu")
    whole = dataclasses.replace(whole, copied=False)
    monkeypatch.setattr(choose_settings, "free_memory", lambda device: whole.total - whole.program - 1000)
    result = reformer("train", text, "--steps", 1, *(x for s in sets for x in ("--set", s)), "--run", "r")
    assert result.status == 0, result.err
    assert "model.chunk_heads = 4" in result.err
    assert "chunk_heads: 4" in Path("r/config.yaml").read_text()


def test_remedies_fit() -> None:
    whole = step(context=262144)
    memory = whole.total - 2**27
    assert reduce_memory(whole, memory, set()) == []  # one head a branch: nothing to split
    named = memory_hints(whole, memory)
    assert named[0].startswith("gradient_dtype=bfloat16 (")
    context = int(named[-1].split("=")[1].split()[0])
    assert step(context=context).total <= memory < step(context=context + 1024).total
