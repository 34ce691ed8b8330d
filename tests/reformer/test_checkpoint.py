"""Matrices in int8: a quarter of the file, nearly the same model; and files that lie about them, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.models import small, tokens
from reformer import ReformerLM
from reformer.checkpoint import SCALE, WEIGHTS, in_int8
from safetensors.torch import load_file, save_file

WIDE = {"vocab_size": 50, "d_model": 128, "d_head": 32}
MATRIX = "layers.0.0.output.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small(**WIDE).save_pretrained(tmp_path, int8=True)
    return tmp_path


def test_int8_is_small_and_nearly_the_same(folder: Path, tmp_path: Path) -> None:
    model = small(**WIDE)
    read = ReformerLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "wide")
    assert (folder / WEIGHTS).stat().st_size < 0.35 * (tmp_path / "wide" / WEIGHTS).stat().st_size
    text = tokens(60)
    difference = (model(text) - read(text)).abs().max()
    assert 0 < difference < 0.2
    for name, t in model.state_dict().items():  # no number is further off than half a step of its row
        step = t.abs().amax(-1, keepdim=True) / 127 if t.ndim == 2 and t.numel() >= 4096 else torch.zeros(1)
        assert read.state_dict()[name].dtype == torch.float32
        assert ((read.state_dict()[name] - t).abs() <= step * 0.501).all(), name


def test_a_row_of_zeros_stays_one() -> None:
    # Divided by its scale, 0, it would be NaN, and the model with it.
    written = in_int8({"w": torch.zeros(64, 64)})
    assert written["w"].dtype == torch.int8
    assert not written["w"].any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(MATRIX + SCALE), f"{MATRIX}.scale is missing"),
        (lambda t: t.update({MATRIX + SCALE: torch.ones(3)}), r"output.weight.scale is \[3\], the config makes it"),
        (lambda t: t[MATRIX + SCALE].fill_(float("nan")), "not finite"),
        (lambda t: t[MATRIX + SCALE].fill_(3e38), "not finite"),
        (lambda t: t.update({MATRIX + SCALE: torch.ones(128, dtype=torch.int32)}), "not finite"),
        (lambda t: t.update({MATRIX: t[MATRIX][:5]}), r"output.weight is \[5, 96\]"),
        (lambda t: t.update({MATRIX: torch.ones(128, 96)}), f"{MATRIX}.scale is unknown"),
        # Only matrices have rows with a scale each: a vector of integers was made for another reader.
        (lambda t: t.update({"layers.0.1.rotations": t["layers.0.1.rotations"].to(torch.int8)}), "scale is missing"),
    ],
)  # fmt: skip
def test_files_that_lie_are_named(folder: Path, change, said: str) -> None:
    held = load_file(folder / WEIGHTS)
    change(held)
    save_file({name: t.contiguous() for name, t in held.items()}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=said):
        ReformerLM.from_pretrained(folder)


def test_integers_that_are_no_matrix_are_refused(folder: Path) -> None:
    held = load_file(folder / WEIGHTS)
    rotations = held["layers.0.1.rotations"]
    held |= {"layers.0.1.rotations": rotations.to(torch.int8), "layers.0.1.rotations.scale": torch.ones(len(rotations))}
    save_file(held, folder / WEIGHTS)
    with pytest.raises(ValueError, match="rotations"):
        ReformerLM.from_pretrained(folder)
