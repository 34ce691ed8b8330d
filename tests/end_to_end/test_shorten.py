"""Models with layers on groups of tokens, as a user trains, continues, looks at and hands on one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.programs import TINY, Program
from PIL import Image
from reformer import ReformerLM

GROUPS = [*TINY, "--set", "shorten_factor=3", "--set", "n_layers=3", "--set", "tokenizer=bytes"]


@pytest.fixture
def grouped(reformer: Program, tmp_path: Path) -> Path:
    """A run of many short documents, so that contexts hold several, cut at no multiple of 3."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n}.txt").write_text(f"text {n} is {'very ' * (n % 5)}short.\n", "utf-8")
    result = reformer("train", folder, *GROUPS, "--steps", 4, "--run", tmp_path / "run")
    assert result.status == 0, result.err
    return tmp_path / "run"


def test_what_was_trained_goes_on_and_is_scored(reformer: Program, grouped: Path) -> None:
    assert reformer("train", "--resume", "--run", grouped, "--steps", 6).status == 0
    whole = reformer("generate", "--run", grouped, "--prompt", "text", "--max-tokens", 20, "--seed", 1).out
    asked = ["generate", "--run", grouped, "--prompt", "text", "--session", "s", "--seed", "1"]
    parts = reformer(*asked, "--max-tokens", 4).out
    for n in (1, 15):
        parts += reformer(*[a for a in asked if a not in ("--prompt", "text")], "--max-tokens", n).out
    assert parts.replace("\n", "") == whole.replace("\n", "")
    Path("other.txt").write_text("text 7 is short. " * 20, "utf-8")
    found = json.loads(reformer("evaluate", "perplexity", "other.txt", "--run", grouped, "--json").out)
    model, ids = ReformerLM.from_pretrained(grouped), np.frombuffer(Path("other.txt").read_bytes(), np.uint8)
    text = torch.cat([torch.tensor([256]), torch.from_numpy(ids.astype(np.int64))])[None]
    with torch.no_grad():
        assert abs(found["nats_per_token"] - float(model.loss(text[:, :-1], text[:, 1:]))) < 1e-5


def test_attention_on_groups_is_told_in_tokens(reformer: Program, grouped: Path) -> None:
    Path("other.txt").write_text("text 7 is short. " * 20, "utf-8")
    asked = ["evaluate", "attention", "other.txt", "--run", grouped, "--tokens", 100]
    report = reformer(*asked)
    assert "layer 1, groups of 3" in report.out
    found = json.loads(reformer(*asked, "--token", 50, "--json").out)
    among = [s for s in found["reached"] if s["layer"] == "layer 1, groups of 3"]
    assert among
    assert all(s["position"] % 3 == 2 and s["position"] < 48 for s in among)  # groups that were whole by then
    assert max(r["furthest"] for r in found["layers"]) < 100


def test_exports_and_new_beginnings(reformer: Program, grouped: Path, text: Path) -> None:
    assert reformer("export", grouped, "out", "--format", "safetensors").status == 0
    assert ReformerLM.from_pretrained("out").config.shorten_factor == 3
    assert "4 of them" not in Path("out/README.md").read_text("utf-8")
    assert "1 of them on groups of 3 tokens" in Path("out/README.md").read_text("utf-8")
    refused = reformer("export", grouped, "there", "--format", "transformers")
    assert refused.status == 2
    assert "shorten_factor 3: all its layers are on tokens" in refused.err
    again = reformer("train", text, "--from", grouped, "--set", "shorten_factor=2", "--steps", 1, "--run", "new")
    assert "groups.down.weight is [16, 48]" in again.err


def test_images_in_groups(reformer: Program, tmp_path: Path) -> None:
    folder, draw = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    for n in range(12):
        Image.fromarray(draw.integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    sets = ["image_size=[4, 6]", "positions=axial", "axial_shape=[4, 6, 3]", "axial_dims=[4, 8, 4]", "shorten_factor=5"]
    sets += ["d_model=16", "d_head=8", "n_layers=3", "batch_size=2"]  # 72 values: 14 groups, and 2 that fill none
    given = [x for s in sets for x in ("--set", s)]
    result = reformer("train", folder, *given, "--steps", 2, "--run", "run")
    assert result.status == 0, result.err
    made = reformer("generate", "--run", "run", "--image", folder / "3.png", "--keep-rows", 2, "--output", "whole.png")
    assert made.status == 0, made.err
    assert np.asarray(Image.open("whole.png")).shape == (4, 6, 3)


def test_mistakes(reformer: Program, text: Path) -> None:
    wrong = reformer("train", text, *TINY, "--set", "shorten_factor=3", "--steps", 1)
    assert wrong.status == 2
    assert "vanilla_layers [1, 1] leave none of n_layers 1 for groups of shorten_factor 3 tokens" in wrong.err
