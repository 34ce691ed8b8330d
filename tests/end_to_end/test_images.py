"""Images as a user sees them: train, complete, evaluate, and what is said of mistakes."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from builders.programs import Kept, Program
from PIL import Image

SMALL = ["--set", "d_model=16", "--set", "n_layers=1", "--set", "d_head=8", "--set", "batch_size=2"]
SMALL += ["--set", "image_size=[4, 6]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty images of 6 x 4 pixels."""
    found = tmp_path / "images"
    found.mkdir()
    draw = np.random.default_rng(0)
    for n in range(30):
        Image.fromarray(draw.integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(found / f"{n:02}.png")
    return found


@pytest.fixture
def run(reformer: Program, folder: Path, tmp_path: Path, kept: Kept) -> Path:
    """A run that was trained for three steps, with as many axial positions as an image has values and not one more."""

    def train() -> None:
        axial = ["--set", "positions=axial", "--set", "axial_shape=[4, 6, 3]", "--set", "axial_dims=[4, 8, 4]"]
        result = reformer("train", folder, *SMALL, *axial, "--steps", 3, "--run", tmp_path / "images-run")
        assert result.status == 0, result.err
        assert "bits/dim" in result.err
        assert "bits/byte" not in result.err
        assert "--image" in result.err

    return kept("images-run", train)


def read(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_given_rows_are_kept_and_the_rest_is_drawn(reformer: Program, run: Path, folder: Path) -> None:
    whole = read(folder / "03.png")
    asked = ["generate", "--run", run, "--image", folder / "03.png", "--keep-rows", 2, "--num-samples", 3]
    result = reformer(*asked, "--seed", 0, "--output", "whole.png")
    assert result.status == 0, result.err
    assert result.out == ""
    made = [read(name) for name in ("whole.png", "whole-2.png", "whole-3.png")]
    for image in made:
        assert image.shape == (4, 6, 3)
        assert np.array_equal(image[:2], whole[:2])
        assert not np.array_equal(image[2:], whole[2:])
    assert not np.array_equal(made[0], made[1])
    page = read("whole-sheet.png")
    assert page.shape[1] > 5 * 96  # given, three completed, original
    reformer(*asked, "--seed", 0, "--output", "again.png")
    assert np.array_equal(read("again-3.png"), made[2])
    assert reformer(*asked, "--seed", 1, "--output", "other.png").status == 0
    assert not np.array_equal(read("other.png"), made[0])


def test_a_part_is_completed_from_its_own_height(reformer: Program, run: Path, folder: Path) -> None:
    whole = read(folder / "04.png")
    Image.fromarray(whole[:3]).save("part.png")
    assert reformer("generate", "--run", run, "--image", "part.png", "--output", "a.webp").status == 0
    Image.fromarray(whole).resize((60, 40), Image.Resampling.NEAREST).save("large.png")
    result = reformer("generate", "--run", run, "--image", "part.png", "--output", "a.png", "--temperature", 0)
    assert result.status == 0
    assert np.array_equal(read("a.png")[:3], whole[:3])
    assert "has 4 rows" in reformer("generate", "--run", run, "--image", "large.png", "--output", "b.png").error


def test_images_of_its_own(reformer: Program, run: Path) -> None:
    assert reformer("generate", "--run", run, "--output", "own.png").status == 0
    assert read("own.png").shape == (4, 6, 3)


def test_bits_per_dim(reformer: Program, run: Path, folder: Path) -> None:
    found = json.loads(reformer("evaluate", "perplexity", "--run", run, folder, "--json").out)
    assert found["tokens"] == found["bytes"] == 30 * 72
    assert found["bits_per_dim"] == pytest.approx(found["nats_per_token"] / math.log(2))
    assert 7 < found["bits_per_dim"] < 9  # of noise after three steps
    assert found["word_perplexity"] is None
    for n in range(4, 30):
        (folder / f"{n:02}.png").unlink()
    names = [folder, *sorted(folder.iterdir())]
    some = [
        json.loads(reformer("evaluate", "perplexity", "--run", run, n, "--json").out)["bits_per_dim"] for n in names
    ]
    assert some[0] == pytest.approx(np.mean(some[1:]))
    shown = reformer("evaluate", "perplexity", "--run", run, folder / "00.png").out
    assert "bits/dim" in shown
    assert "word" not in shown
    assert "trained on images" in reformer("evaluate", "context", "--run", run).error


def test_held_out_images_by_default(reformer: Program, run: Path) -> None:
    result = reformer("evaluate", "perplexity", "--run", run, "--json")
    found = json.loads(result.out)
    assert found["tokens"] in (72, 144)  # a twentieth of thirty, whole ones
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = min(line["val_bits_per_byte"] for line in logged if "val_bits_per_byte" in line)
    assert found["bits_per_dim"] == pytest.approx(best, rel=1e-6)


def test_resume(reformer: Program, run: Path) -> None:
    assert reformer("train", "--resume", "--run", run, "--steps", 5).status == 0


def test_what_a_folder_holds(reformer: Program, folder: Path) -> None:
    Image.new("L", (9, 9)).save(folder / "grey.png")
    result = reformer("corpus", folder, "--set", "image_size=[4, 6]")
    assert result.status == 0, result.err
    assert "31  72 bytes each" in result.out
    assert "converted" in result.out
    (folder / "bad.jpg").write_text("x")
    assert "bad.jpg is no image" in reformer("corpus", folder, "--set", "image_size=[4, 6]").error


def test_sizes_are_chosen_where_no_recipe_is_named(reformer: Program, folder: Path, tmp_path: Path) -> None:
    result = reformer("train", folder, "--set", "image_size=[4,6]", "--steps", 1, "--run", tmp_path / "r")
    assert result.status == 0, result.err
    assert "data.context" not in result.err  # it is the image's to say


def test_recipes_plan(reformer: Program) -> None:
    for name, context in (("imagenet64", "12,288"), ("tiny-images", "768")):
        result = reformer("plan", "--config", name)
        assert result.status == 0, result.err
        assert f"context {context} x" in result.out
        assert "assumed" not in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say --output FILE.png"),
        (["--output", "a.txt"], "has no ending of an image"),
        (["--output", "none/a.png"], "there is no folder none"),
        (["--output", "a.png", "--image", "none.png"], "no file 'none.png'"),
        (["--output", "a.png", "--image", "."], "cannot read ."),
        (["--output", "a.png", "--image", "text.png"], "text.png is no image"),
        (["--output", "a.png", "--keep-rows", "2"], "--keep-rows 2 of what?"),
        (["--output", "a.png", "--image", "text.png", "--keep-rows", "4"], "--keep-rows 4 is not from 0 to 3"),
        (["--output", "a.png", "--prompt", "Once"], "--prompt cannot be used with a run of images"),
        (["--output", "a.png", "--num-beams", "2", "--json"], "--num-beams, --json cannot be used"),
    ],
)
def test_mistakes_get_one_line(reformer: Program, run: Path, arguments: list[str], message: str) -> None:
    Path("text.png").write_text("x")
    assert message in reformer("generate", "--run", run, *arguments).error
    assert not Path("a.png").exists()


def test_text_and_images_are_not_mixed_up(reformer: Program, folder: Path, text: Path, tmp_path: Path) -> None:
    assert "holds images and no text files: for images, --config" in reformer("train", folder).error.replace(";", ":")
    assert "is a text" in reformer("train", "python-reference", "--config", "tiny-images").error
    assert "is no image" in reformer("train", text, "--config", "tiny-images").error
    result = reformer("train", text, "--steps", 1, "--set", "d_model=16", "--set", "d_head=8", "--run", tmp_path / "t")
    assert result.status == 0, result.err
    asked = reformer("generate", "--run", tmp_path / "t", "--image", folder / "00.png", "--output", "a.png")
    assert "was trained on text" in asked.error


def test_it_is_not_exported_as_a_model_of_text(reformer: Program, run: Path, tmp_path: Path) -> None:
    made = reformer("export", run, tmp_path / "out", "--format", "transformers", "--license", "mit")
    assert made.status == 2
    assert reformer("tokenizer", "encode", "--run", run, "--text", "“").error.startswith("error: a tokenizer of images")


def test_another_runs_weights(reformer: Program, run: Path, folder: Path, text: Path, tmp_path: Path) -> None:
    asked = ["train", folder, "--set", "image_size=[4, 6]", "--steps", 1, "--from", run]
    result = reformer(*asked, "--run", tmp_path / "second")
    assert result.status == 0, result.err
    assert "say their size" in reformer("train", text, "--from", run, "--steps", 1).error
    (tmp_path / "bytes.model").write_text('{"kind": "bytes"}')
    asked = ["train", folder, *SMALL, "--steps", 1, "--tokenizer", tmp_path / "bytes.model"]
    assert "the tokenizer is for text" in reformer(*asked).error


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("context=100", "data.context 100 is not 72"),
        ("tokenizer=bpe", "data.tokenizer bpe is for text"),
        ("vocab_size=256", "data.vocab_size 256: images have"),
        ("eval.tests_every=5", "eval.tests_every is for text"),
        ("context_schedule=[[36, 0.5]]", "train.context_schedule is for text"),
        ("image_size=[0, 5]", "both from 1 to 4,096"),
        ("image_size=64", "data.image_size"),
    ],
)
def test_settings_that_do_not_go_together(reformer: Program, folder: Path, setting: str, message: str) -> None:
    result = reformer("train", folder, *SMALL, "--set", setting)
    assert result.status == 2
    assert message in result.err


def test_ctrl_c_writes_what_there_is(reformer: Program, run: Path, folder: Path, monkeypatch) -> None:
    from reformer_cli.sampling import images

    real = images.complete

    def pressed(texts, values):
        for n, drawn in enumerate(real(texts, values), 1):
            if n == 9:
                os.kill(os.getpid(), signal.SIGINT)
            yield drawn

    monkeypatch.setattr(images, "complete", pressed)
    asked = ["generate", "--run", run, "--image", folder / "03.png", "--keep-rows", 2, "--output", "a.png"]
    assert reformer(*asked).status == 130
    made = read("a.png").reshape(-1)
    assert np.array_equal(made[:36], read(folder / "03.png").reshape(-1)[:36])
    assert set(made[45:]) <= set(images.MISSING)  # nine were drawn, then nothing
    assert Path("a-sheet.png").exists()


@pytest.mark.parametrize("kind", ["lsh", "chunked_lsh"])
def test_an_image_is_scored_as_it_is_trained_on(kind: str) -> None:
    import torch
    from reformer import ReformerConfig, ReformerLM

    from reformer_cli.evaluation.likelihood import nats
    from reformer_cli.evaluation.scorers import ContextRule

    # Positions for the values of an image and not one more: contexts of half an image would be another likelihood.
    config = ReformerConfig(
        vocab_size=257, d_model=16, n_layers=2, n_heads=2, d_head=8, attn_layers=(kind,),
        lsh_window=8, n_buckets=(4,), far_buckets=0, positions="axial", axial_shape=(4, 6, 3), axial_dims=(4, 8, 4),
    )  # fmt: skip
    model = ReformerLM(config).eval()
    whole = torch.cat([torch.tensor([256]), torch.randint(256, (72,), generator=torch.Generator().manual_seed(0))])
    wanted = 72 * model.loss(whole[None, :-1], whole[None, 1:]).item()
    assert nats(model, whole[:1], whole[1:], ContextRule.for_images(config, 72)) == pytest.approx(wanted, rel=1e-5)
