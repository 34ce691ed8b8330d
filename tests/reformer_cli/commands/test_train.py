"""Training as a user runs it: what it leaves, going on, and what it refuses."""

from __future__ import annotations

import errno
import functools
import gzip
import json
import os
from pathlib import Path

import pytest
import torch
from builders.faults import tensors
from builders.programs import TINY, Program
from safetensors.torch import load_file

from reformer_cli.runs import checkpoints
from reformer_cli.training import trainer
from reformer_cli.training.cost import ONE_CORE
from reformer_cli.training.gradients import Gradients, LoadedBatch
from reformer_cli.training.state import TrainState

STEPS = 6  # of the fixture `run`


def test_a_run_is_self_contained(run: Path) -> None:
    found = sorted(p.name for p in run.iterdir())
    assert found == [".lock", "checkpoints", "config.yaml", "metrics.jsonl", "model.safetensors", "tokenizer.model"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [r for r in records if "loss" in r]
    assert [r["step"] for r in steps] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "bits_per_byte", "learning_rate", "gradient_norm", "tokens_per_second"} <= set(steps[0])
    assert any("val_bits_per_byte" in r for r in records)


def test_loss_falls(reformer: Program, text: Path) -> None:
    assert reformer("train", text, *TINY, "--steps", 60, "--set", "learning_rate=0.01", "--run", "r").status == 0
    losses = [json.loads(line).get("loss") for line in Path("r/metrics.jsonl").read_text().splitlines()]
    losses = [x for x in losses if x is not None]
    assert sum(losses[-5:]) / 5 < losses[0] - 1.5


def test_float16_trains_once_the_loss_scale_has_come_down(
    reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps whose gradients overflow are left out and do not count towards giving up; the scale is part of the run."""
    monkeypatch.setattr(trainer, "TrainState", functools.partial(trainer.TrainState, scale=2.0**40))
    how = [*TINY, "--set", "learning_rate=0.01", "--set", "precision=float16"]
    assert reformer("train", text, *how, "--steps", 70, "--run", "r").status == 0
    records = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    steps = [r for r in records if "loss" in r]
    left_out = sum(r["gradient_norm"] is None for r in steps)
    assert trainer.BAD_STEPS < left_out < 35
    assert sum(r["loss"] for r in steps[-5:]) / 5 < steps[0]["loss"] - 1.0
    newest = max(Path("r/checkpoints").glob("step-*"))
    assert any('"scale"' in path.read_text() for path in newest.glob("*.json"))


def test_a_run_ends_when_the_text_was_read_so_often(reformer: Program, text: Path) -> None:
    """It ends as one does whose steps are used up, the step size fallen; and goes on if the text may be read again."""
    text.write_text(text.read_text()[:6000])
    how = (*TINY, "--set", "batch_size=8", "--steps", 5000, "--set", "max_epochs=2", "--run", "r")
    made = reformer("train", text, *how)
    assert made.status == 0, made.err
    assert "read 2 times" in made.err
    records = map(json.loads, Path("r/metrics.jsonl").read_text().splitlines())
    rates = [r["learning_rate"] for r in records if "loss" in r]
    assert 2 < len(rates) < 1000
    assert rates[-1] < max(rates) / 2
    more = reformer("train", "--resume", "--run", "r", "--set", "max_epochs=3")
    assert more.status == 0, more.err
    assert "read 3 times" in more.err


def test_second_run_reads_the_cache(reformer: Program, text: Path) -> None:
    first = reformer("train", text, *TINY, "--steps", 1, "--run", "a")
    second = reformer("train", text, *TINY, "--steps", 1, "--run", "b")
    assert "tokenising" in first.err
    assert "tokenising" not in second.err
    text.write_text(text.read_text().replace("cat", "dog"))
    assert "tokenising" in reformer("train", text, *TINY, "--steps", 1, "--run", "c").err


def test_sizes_are_chosen_with_reasons(reformer: Program, text: Path) -> None:
    result = reformer("train", text, "--steps", 1)
    assert result.status == 0
    assert "model.d_model = " in result.err
    assert "data.context = " in result.err
    assert list(Path("runs").glob("text-*/model.safetensors"))


def test_sizes_go_by_how_fast_the_machine_is(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, a slow machine was given the regularisation of a text that it would not read often enough."""
    for speed in (0.01, 100.0):
        card = ONE_CORE.scaled(speed)
        monkeypatch.setattr("reformer_cli.training.throughput.machine", lambda *_, card=card: card)
        monkeypatch.setattr("reformer_cli.training.throughput.step_seconds", card.seconds)
        result = reformer("train", text, *TINY[2:4], *TINY[6:], "--minutes", 0.01, "--run", f"r{speed}")
        assert result.status == 0
        assert "forecast: about" in result.err
        assert ("train.max_epochs" in result.err) == ("model.dropout" in result.err) == (speed == 100)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_decay_is_chosen_for_the_optimiser_it_was_measured_with(reformer: Program, text: Path, optimizer: str) -> None:
    """Adafactor, whose step sizes are ten times larger, would be left with nothing."""
    wide = ("--set", "d_model=80", "--set", "d_head=8")  # large for so short a text, which is what decay is for
    result = reformer("train", text, *TINY, *wide, "--steps", 70, "--set", f"optimizer={optimizer}")
    assert result.status == 0
    assert "model.dropout = " in result.err
    assert ("train.weight_decay = " in result.err) == (optimizer == "adamw")


def test_ten_words_are_refused_before_anything_is_chosen(reformer: Program) -> None:
    """A dozen settings and their reasons hid the one line that counts."""
    Path("t.txt").write_text("ten words are too few to learn a language from", "utf-8")
    found = reformer("train", "t.txt", "--steps", 5)
    assert "training tokens, shorter than one context of 64; give more text" in found.error
    assert "model." not in found.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (None, ["nothing.txt"], "nothing.txt'; the built-in text is called"),
        (None, ["https://example.com/novel.txt"], "is a web address; save it as a file first"),
        (b"text", ["C.TXT"], "C.TXT'; did you mean c.txt?"),
        (b"text", ["c,txt"], "did you mean c.txt?"),
        (b"", ["c.txt"], "is empty"),
        (b"  \n\n", ["c.txt"], "is empty"),
        (b"abc\0def" * 100, ["c.txt"], "looks binary: a zero byte at 3"),
        (b"one\ntwo caf\xe9\n" + b"one\n" * 9, ["c.txt"], "byte 11 (line 2) is 0xe9; if it is windows-1252 (50% sure)"),
        (b"abc", ["c.txt", "--encoding", "klingon"], "unknown encoding 'klingon'"),
        (b"short text", ["c.txt", "--set", "context=64"], "shorter than one context of 64"),
        (b"x" * 99, ["c.txt", "--set", "d_modell=3"], "unknown key d_modell; did you mean d_model?"),
        (b"x" * 99, ["c.txt", "--set", "d_model=many"], "model.d_model"),
        (b"x" * 99, ["c.txt", "--set", "context"], "expected key=value"),
        (b"x" * 99, ["c.txt", "--config", "nosuch"], "no config 'nosuch'"),
        (b"x" * 99, ["c.txt", "--steps", "3", "--minutes", "2"], "exclude each other"),
        (b"x" * 99, ["c.txt", "--steps", "none"], "'--steps': Input should be a valid integer"),
        (b"x" * 99, ["c.txt", "--device", "tpu"], "device 'tpu'"),
        (b"x" * 99, ["c.txt", "--device", "cuda:77"], "torch sees"),
        (b"x" * 99, [], "no corpus given"),
        (b"x" * 99, ["--resume", "--run", "nowhere"], "nowhere is not a run directory"),
        (b"x" * 99, ["--resume"], "no run under"),
        (b"x" * 99, ["gutenberg:../../etc"], "not a book's number"),
    ],
)
def test_mistakes_get_one_line(
    reformer: Program, tmp_path: Path, make: bytes | None, arguments: list[str], message: str
) -> None:
    if make is not None:
        (tmp_path / "c.txt").write_bytes(make)
    assert message in reformer("train", *arguments).error
    assert not (tmp_path / "runs").exists()  # nothing was begun


def test_all_faults_at_once(reformer: Program, text: Path) -> None:
    sets = ["--set", "d_modl=2", "--set", "batch_size=0", "--set", "n_buckets=[3]", "--set", "warmup=x"]
    result = reformer("train", text, *sets)
    assert result.status == 2
    for part in ("4 faults", "unknown key d_modl", "train.batch", "n_buckets factors must be even", "train.warmup"):
        assert part in result.err


def test_a_full_disk_loses_nothing(reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tensors(run)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    monkeypatch.setattr(checkpoints, "write_folder", full)
    error = reformer("train", "--resume", "--run", run, "--steps", 7).error
    assert "no space left on the device while writing somewhere" in error
    monkeypatch.undo()
    monkeypatch.chdir(run.parent)
    assert all(torch.equal(before[name], t) for name, t in tensors(run).items())


def test_divergence_stops_with_the_last_good_weights(
    reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaNs must overwrite neither the best weights nor the last checkpoint."""
    before = tensors(run)
    monkeypatch.setattr(Gradients, "_in_parts", lambda self, read, progress: (float("nan"), 1.0, "loss nan"))
    error = reformer("train", "--resume", "--run", run, "--steps", 40).error
    assert f"training diverged at step {STEPS + 5} (loss nan" in error
    assert f"the last good checkpoint is {run / 'checkpoints' / 'step-00000006'}" in error
    assert "lower train.learning_rate" in error
    assert all(torch.equal(before[name], t) for name, t in tensors(run).items())


def test_one_bad_step_is_left_out(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = Gradients._in_parts

    def second_is_infinite(self: Gradients, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        loss, norm, problem = gradients(self, read, progress)
        if progress.step == 1:
            for parameter in self.model.parameters():
                parameter.grad = torch.full_like(parameter, torch.inf)
            return loss, float("inf"), "gradient norm inf"
        return loss, norm, problem

    monkeypatch.setattr(Gradients, "_in_parts", second_is_infinite)
    assert reformer("train", text, *TINY, "--steps", 4, "--run", "r").status == 0
    assert all(bool(t.isfinite().all()) for t in load_file("r/model.safetensors").values())


def test_minutes_win_over_the_steps_of_a_recipe(reformer: Program, text: Path) -> None:
    assert reformer("train", text, "--config", "demo", *TINY, "--minutes", 0.02, "--run", "r").status == 0
    assert "minutes: 0.02" in Path("r/config.yaml").read_text()


def test_an_existing_run_is_not_overwritten(reformer: Program, run: Path, text: Path) -> None:
    assert "is a run already" in reformer("train", text, *TINY, "--steps", 1, "--run", run).error
    (run.parent / "full").mkdir()
    (run.parent / "full" / "thing").touch()
    assert "not empty" in reformer("train", text, *TINY, "--steps", 1, "--run", run.parent / "full").error


def test_folders_and_gzip(reformer: Program, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "books"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt.gz").write_bytes(gzip.compress(text.read_bytes()))
    (folder / "b.md").write_bytes(text.read_bytes())
    (folder / ".hidden.txt").write_bytes(b"\xff\0")
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    result = reformer("train", folder, *TINY, "--steps", 1, "--run", "r")
    assert result.status == 0, result.err
    assert "2 texts" in reformer("evaluate", "perplexity", "--run", "r").err
