"""Settings of training as a user gives them, each with its effect."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from builders.programs import TINY, Program
from safetensors.torch import load_file

from reformer_cli.runs.run import Run
from reformer_cli.training.gradients import Gradients, LoadedBatch
from reformer_cli.training.state import TrainState
from reformer_cli.training.trainer import Trainer


def records(run: str) -> list[dict]:
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def losses(run: str) -> list[float]:
    return [r["loss"] for r in records(run) if "loss" in r]


def checkpoint(run: str) -> dict[str, torch.Tensor]:
    return load_file(max(Path(run, "checkpoints").glob("step-*")) / "tensors.safetensors")


def sets(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def test_parts_of_a_batch_add_up(reformer: Program, text: Path) -> None:
    more = sets("batch_size=8", "precision=float32", "learning_rate=0.01", "dropout=0")
    for run, parts in (("whole", 1), ("parts", 4)):
        result = reformer("train", text, *TINY, *more, *sets(f"accumulation_steps={parts}"), "--steps", 8, "--run", run)
        assert result.status == 0, result.err
    assert losses("parts") == pytest.approx(losses("whole"), abs=2e-5)
    tokens = [r["tokens"] for r in records("parts") if "loss" in r]
    assert tokens == [256 * n for n in range(1, 9)]


def test_a_context_beyond_reach_is_said(reformer: Program, text: Path) -> None:
    """Found late: with 64 buckets a model of a long context had seen the last 4,096 tokens and no more."""
    said = reformer(
        "train", text, *TINY, *sets("lsh_window=4", "n_buckets=[4]", "far_buckets=0"), "--steps", 1, "--run", "few"
    ).err
    assert "look back about 16 tokens (buckets x lsh_window) of a context of 32" in said
    assert "--set far_buckets=8 reaches all of it" in said
    more = sets("lsh_window=2", "n_buckets=[4]", "far_buckets=8")
    said = reformer("train", text, *TINY, *more, "--steps", 1, "--run", "more").err
    assert "--set far_buckets=16 reaches all of it" in said
    more = sets("lsh_window=4", "n_buckets=[4]", "far_buckets=8")
    assert "look back" not in reformer("train", text, *TINY, *more, "--steps", 1, "--run", "enough").err


def test_a_model_is_told_how_full_lines_are(reformer: Program, text: Path) -> None:
    """Without the tokenizer's lengths every line would be unknown, and the table would learn nothing."""
    result = reformer("train", text, *TINY, "--steps", 2, "--run", "r")
    lines = sorted(map(len, text.read_text().splitlines()))
    found = re.search(r"model.line_positions = (\d+)", result.err)
    assert found, result.err
    assert lines[-15] <= int(found[1]) < lines[-1]  # of a few that are longer; of 128, none would have been learnt
    run = Run.open(Path("r"))
    columns, tokenizer = run.load_model().line_positions, run.tokenizer()
    assert columns is not None
    a, line = (int(tokenizer.encode(part)[-1]) for part in ("a", ".\n"))
    assert (columns.characters[a], columns.ends[a], columns.ends[line]) == (1, 0, 1)
    assert float(columns.weight.detach()[1:].abs().max()) > 0  # it learns, and not of unknown lines alone
    generated = reformer("generate", "--run", "r", "--prompt", "The cat\n", "--max-tokens", 5, "--seed", 1)
    assert generated.status == 0


def test_a_recipe_counts_columns_as_the_text_has_them(reformer: Program, text: Path) -> None:
    """Recipes said 128 for lines of 72: of counts that no line reaches nothing is learnt, and a long line goes on."""
    Path("tiny.yaml").write_text("model: {d_model: 32, n_layers: 1, d_head: 8}\ndata: {context: 32}\n")
    recipe = ("--config", "tiny.yaml", "--steps", 1)
    assert reformer("train", text, *recipe, "--run", "recipe").status == 0
    assert reformer("train", text, *TINY, "--steps", 1, "--run", "none").status == 0
    found, wanted = (Run.open(Path(run)).config.model.line_positions for run in ("recipe", "none"))
    assert found == wanted
    assert wanted is not None
    assert 20 < wanted < 128
    assert reformer("train", "copy:15:60", *recipe, "--run", "synthetic").status == 0
    assert Run.open(Path("synthetic")).load_model().line_positions is None  # positions would tell what is to be found


def test_a_run_that_counted_no_columns_can_begin_to(reformer: Program, text: Path) -> None:
    old = sets("line_positions=0", "unwrap=join", "ruby=keep", "dropout=0.2")
    assert reformer("train", text, *TINY, *old, "--steps", 1, "--run", "old").status == 0
    assert Run.open(Path("old")).load_model().line_positions is None
    assert reformer("train", text, "--from", "old", *sets("context=32"), "--steps", 1, "--run", "still").status == 0
    assert Run.open(Path("still")).load_model().line_positions is None
    more = sets("line_positions=40", "context=32", "ruby=drop")
    begun = reformer("train", text, "--from", "old", *more, "--steps", 1, "--run", "begun")
    assert "data.unwrap is join, as old read its text" in begun.err  # and so it is read; it was not before
    data = Run.open(Path("begun")).config.data
    assert (data.unwrap, data.ruby) == ("join", "drop")
    assert Run.open(Path("begun")).config.model.dropout == 0  # which was for how often the old text was read
    columns = Run.open(Path("begun")).load_model().line_positions
    assert columns is not None
    assert float(columns.ends.sum()) >= 2  # a line's end, and a document's


@pytest.mark.parametrize(("optimizer", "schedule"), [("muon", "wsd"), ("adafactor", "rsqrt")])
def test_resume_with_other_optimisers(reformer: Program, text: Path, optimizer: str, schedule: str) -> None:
    """Bit for bit, also where the state is another."""
    more = sets(f"optimizer={optimizer}", f"schedule={schedule}", "learning_rate=0.02", "patience=99")
    assert reformer("train", text, *TINY, *more, "--steps", 8, "--run", "whole").status == 0
    original = Trainer._ending
    Trainer._ending = lambda self, asked: original(self, asked or self.progress.step == 5)
    try:
        assert "stopped after 5 steps" in reformer("train", text, *TINY, *more, "--steps", 8, "--run", "cut").err
    finally:
        Trainer._ending = original
    assert reformer("train", "--resume", "--run", "cut").status == 0
    whole, cut = checkpoint("whole"), checkpoint("cut")
    assert whole.keys() == cut.keys()
    assert any(name.startswith("optimizer.layers") for name in whole)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_muon_moves_matrices_of_layers_and_adamw_the_rest(reformer: Program, text: Path) -> None:
    assert reformer("train", text, *TINY, *sets("optimizer=muon"), "--steps", 2, "--run", "r").status == 0
    state = {name.removeprefix("optimizer.") for name in checkpoint("r") if name.startswith("optimizer.")}
    muon = {name for name in state if name.endswith("/momentum_buffer")}
    assert muon
    assert all(name.startswith("layers.") for name in muon)
    assert "embedding/exp_avg" in state
    assert "head.weight/exp_avg" in state


def test_training_stops_when_validation_no_longer_improves(
    reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reformer_cli.workflows.training_run import TrainingRun

    found = iter([2.0, 1.0, 1.5, float("nan"), 1.2, 0.1])
    monkeypatch.setattr(TrainingRun, "_validate", lambda self, tokens: next(found))
    more = sets("patience=3", "eval.every=2")
    result = reformer("train", text, *TINY, *more, "--steps", 50, "--run", "r")
    assert result.status == 0, result.err
    assert "stopped after 10 steps" in result.err
    assert "3 validations without a better one than 1.000 bits/byte at step 4" in result.err
    kept = {p.name: load_file(p / "tensors.safetensors") for p in Path("r/checkpoints").glob("step-*")}
    assert "step-00000004" in kept  # the best stays
    result = load_file("r/model.safetensors")
    assert all(torch.equal(t, kept["step-00000004"][f"model.{name}"]) for name, t in result.items())
    assert "stopped after 10 steps" in reformer("train", "--resume", "--run", "r").err  # and stays stopped


def test_short_contexts_first(reformer: Program, text: Path) -> None:
    more = sets("context_schedule=[[8, 0.25], [16, 0.5]]")
    assert reformer("train", text, *TINY, *more, "--steps", 8, "--run", "r").status == 0
    steps = [r for r in records("r") if "loss" in r]
    assert [r["context"] for r in steps] == [8, 8, 16, 16, 16, 16, 32, 32]
    assert [r["tokens"] for r in steps] == [64 * n for n in range(1, 9)]
    assert "[8, 0.25]" in reformer("config", "show", *more).out


def test_spikes_are_told_and_recorded(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Gradients._in_parts

    def jumps(self: Gradients, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        loss, norm, problem = original(self, read, progress)
        return loss + (90 if progress.step == 69 else 0), norm, problem

    monkeypatch.setattr(Gradients, "_in_parts", jumps)
    result = reformer("train", text, *TINY, "--steps", 75, "--run", "r")
    assert "warning: step 70: loss 9" in result.err
    assert [r["step"] for r in records("r") if r.get("spike")] == [70]


def test_steps_left_out_are_counted_and_recorded(
    reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a bad forward pass did to the running means of the hash is undone: NaNs there would stay."""
    original = Gradients._in_parts

    def bad(self: Gradients, read: LoadedBatch, progress: TrainState) -> tuple[float, float, str]:
        found = original(self, read, progress)
        if progress.step in (2, 3, 5):
            for hash_mean in self.hash_means:
                hash_mean.fill_(torch.nan)
            return float("nan"), float("nan"), "loss nan"
        return found

    monkeypatch.setattr(Gradients, "_in_parts", bad)
    result = reformer("train", text, *TINY, "--steps", 8, "--run", "r")
    assert result.status == 0, result.err
    assert "3 of the steps left out" in result.err
    assert [r["step"] for r in records("r") if "skipped" in r] == [3, 4, 6]
    assert all(bool(t.isfinite().all()) for t in checkpoint("r").values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["batch_size=8", "accumulation_steps=3"],
            "train.batch_size 8 cannot be cut into train.accumulation_steps 3 parts",
        ),
        (["schedule=wsd", "warmup=0.85"], "train.warmup 0.85 leaves less than the 0.2"),
        (["context_schedule=[[24, 0.5]]"], "24 must be below data.context 32 and divide it"),
        (["context_schedule=[[64, 0.5]]"], "64 must be below data.context 32"),
        (["context_schedule=[[16, 0.5], [8, 0.1]]"], "contexts [16, 8] must grow"),
        (["context_schedule=[[8, 0.5], [16, 0.5]]"], "shares add up to 1"),
        (["context_schedule=[[8]]"], "train.context_schedule"),
        (["context_schedule=8"], "train.context_schedule"),
        (["optimizer=sgd"], "train.optimizer"),
    ],
)
def test_combinations_that_cannot_be(reformer: Program, text: Path, settings: list[str], message: str) -> None:
    assert message in reformer("train", text, *TINY, *sets(*settings), "--steps", 1).error


@pytest.mark.parametrize("setting", ["batch_size=4", "optimizer=muon", "context_schedule=[[8, 0.5]]"])
def test_what_a_resumed_run_keeps(reformer: Program, run: Path, setting: str) -> None:
    """Another batch would go on at other text; another optimiser has no state."""
    name = setting.split("=")[0].removeprefix("train.")
    error = reformer("train", "--resume", "--run", run, "--steps", 9, "--set", setting).error
    assert "--resume cannot change what" in error
    assert f": train.{name} is " in error
    kept = [*sets("batch_size=2", "accumulation_steps=2", "optimizer=adamw"), "--steps", 9]
    assert reformer("train", "--resume", "--run", run, *kept).status == 0


def test_tensorboard(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reformer_cli.workflows.training_run.SAMPLE_TOKENS", 4)
    more = [*TINY, *sets("tensorboard=true", "eval.every=2"), "--steps", 4, "--run", "r"]
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        assert "pip install 'reformer-cli[tensorboard]'" in reformer("train", text, *more).error
        return
    assert reformer("train", text, *more).status == 0
    events = EventAccumulator("r/tensorboard")
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4]
    assert [e.step for e in events.Scalars("val_bits_per_byte")] == [2, 4]
    assert "sample/text_summary" in events.Tags()["tensors"]


def test_samples_are_written_with_and_without_held_out_text(
    reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reformer_cli.workflows.training_run.SAMPLE_TOKENS", 6)
    for run, share in (("some", 0.05), ("none", 0)):
        more = sets("eval.every=2", f"val_fraction={share}")
        assert reformer("train", text, *TINY, *more, "--steps", 4, "--run", run).status == 0
        assert [r["step"] for r in records(run) if "sample" in r] == [2, 4]


def test_vocabularies_have_case_markers_unless_transformers_is_to_read_them(reformer: Program, text: Path) -> None:
    """A published run whose tokenizer cannot be exported would be found out after it was trained."""
    small = [*TINY, *sets("vocab_size=100"), "--steps", 1]
    published = sets("attn_layers=[chunked_lsh]", "positions=none")
    for name, more, marked in (("a", [], True), ("b", published, False)):
        made = reformer("train", text, *small, *more, "--run", name)
        assert made.status == 0, made.err
        assert Run.open(Path(name)).tokenizer().has_case_markers is marked
        assert Run.open(Path(name)).tokenizer().kind == "bpe"
    # Of the same text and size: not the one that was kept for the runs before.
    assert reformer("train", text, *small, *sets("tokenizer=unigram"), "--run", "e").status == 0
    assert Run.open(Path("e")).tokenizer().kind == "unigram"
