"""Text from a run: the same for the same seed, streamed, stopped where asked, and what is refused."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from cli.conftest import TINY, Program

from reformer_cli.runs import Run


def test_the_prompt_then_its_continuation(reformer: Program, run: Path) -> None:
    result = reformer("generate", "--run", run, "--prompt", "The cat", "--max-tokens", 20)
    assert result.status == 0
    assert result.out.startswith("The cat")
    assert len(result.out) > 10
    assert "tokens/s" in result.err
    again = reformer("generate", "--run", run, "--prompt", "The cat", "--max-tokens", 20)
    assert again.out == result.out
    assert reformer("generate", "--run", run, "--prompt", "The cat", "--max-tokens", 20, "--seed", 1).out != result.out


def test_prompt_from_file_and_standard_input(
    reformer: Program, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.txt").write_text("Rain fell", "utf-8")
    wanted = reformer("generate", "--run", run, "--prompt", "Rain fell", "--max-tokens", 9).out
    assert reformer("generate", "--run", run, "--prompt-file", "p.txt", "--max-tokens", 9).out == wanted
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Rain fell")))
    assert reformer("generate", "--run", run, "-", "--max-tokens", 9).out == wanted


def test_greedy_needs_no_seed(reformer: Program, run: Path) -> None:
    a, b = (reformer("generate", "--run", run, "--temperature", 0, "--max-tokens", 12, "--seed", s).out for s in (1, 2))
    assert a == b


def test_several_samples_in_one_batch(reformer: Program, run: Path) -> None:
    out = reformer("generate", "--run", run, "--prompt", "A", "--samples", 3, "--max-tokens", 8).out
    assert out.count("===") == 6
    texts = [part.split("===\n")[1] for part in out.split("=== ")[1:]]
    assert len(set(texts)) > 1


def test_stop_text_is_not_shown(reformer: Program, run: Path) -> None:
    whole = reformer("generate", "--run", run, "--max-tokens", 60).out
    stop = whole[20:22]
    cut = reformer("generate", "--run", run, "--max-tokens", 60, "--stop", stop).out
    assert cut == whole[: whole.index(stop)] + "\n"


def test_output_file_and_none_on_stdout(reformer: Program, run: Path) -> None:
    result = reformer("generate", "--run", run, "--prompt", "The", "--output", "o.txt", "--max-tokens", 5)
    assert result.out == ""
    assert Path("o.txt").read_text("utf-8").startswith("The")
    assert Path("/dev/full").exists()
    assert "no space left" in reformer("generate", "--run", run, "--output", "/dev/full").error


def test_the_newest_run_is_the_default(reformer: Program, text: Path) -> None:
    assert "no run under ./runs; train one" in reformer("generate", "--prompt", "A").error
    for _ in range(2):
        assert reformer("train", text, *TINY, "--steps", 1).status == 0
    assert reformer("generate", "--max-tokens", 2).status == 0


def test_ctrl_c_keeps_what_there_is(reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reformer_cli.sampling import engine

    original, calls = engine.draw, 0

    def draw(*arguments):
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(engine, "draw", draw)
    result = reformer("generate", "--run", run, "--prompt", "The", "--output", "o.txt")
    assert result.status == 130
    assert len(Path("o.txt").read_text("utf-8")) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "a", "-"], "exclude each other"),
        (["hello"], "unexpected argument 'hello'; did you mean --prompt 'hello'?"),
        (["--prompt-file", "none.txt"], "no file 'none.txt'"),
        (["--temperature", "-1"], "--temperature -1.0: should be greater than or equal to 0"),
        (["--top-p", "7", "--min-p", "9"], "--min-p 9.0"),
        (["--max-tokens", "x"], "x"),
        (["--no-such-option"], "No such option"),
        (["--prompt", "\udcff"], "not UTF-8"),
    ],
)
def test_mistakes_get_one_line(reformer: Program, run: Path, arguments: list[str], message: str) -> None:
    assert message in reformer("generate", "--run", run, *arguments).error


def damage(run: Path, kind: str) -> str:
    """Spoil a run; returns what the message must say."""
    if kind == "truncated":
        path = run / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-50])
        return "model.safetensors is damaged"
    if kind == "newer":
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("version: 1", "version: 2"))
        return "made by a newer version (format 2, this program reads up to 1)"
    if kind == "no weights":
        (run / "model.safetensors").unlink()
        return "has no weights yet"
    if kind == "tokenizer":
        (run / "tokenizer.model").write_bytes(b"garbage")
        return "is not a sentencepiece model"
    if kind == "other sizes":
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("d_model: 16", "d_model: 32"))
        return "does not fit its config"
    (run / "config.yaml").write_text("- 1\n")
    return "is not a mapping"


@pytest.mark.parametrize("kind", ["truncated", "newer", "no weights", "tokenizer", "other sizes", "config"])
def test_a_damaged_run_is_named(reformer: Program, run: Path, kind: str) -> None:
    message = damage(run, kind)
    assert message in reformer("generate", "--run", run, "--prompt", "A").error


def test_a_prompt_longer_than_the_positions(reformer: Program, text: Path) -> None:
    axial = ["--set", "positions=axial", "--set", "axial_shape=[8, 8]", "--set", "axial_dims=[8, 8]"]
    assert reformer("train", text, *TINY, *axial, "--steps", 1, "--run", "r").status == 0
    error = reformer("generate", "--run", "r", "--prompt", "x" * 100, "--max-tokens", 1).error
    assert "a prompt of 101 tokens and 1 new ones exceed the model's 64 positions" in error


def test_a_prompt_longer_than_memory(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reformer("train", text, *TINY, "--set", "layers=[full]", "--steps", 1, "--run", "r").status == 0
    monkeypatch.setattr("reformer_cli.commands.generate.free_memory", lambda device: 10_000)
    error = reformer("generate", "--run", "r", "--prompt", "x" * 100, "--max-tokens", 1).error
    assert "needs" in error
    assert "9.8 KiB" in error


def test_a_run_opens_anywhere(run: Path, tmp_path: Path) -> None:
    moved = run.rename(tmp_path / "elsewhere")
    assert Run.open(moved).load_model().config.d_model == 16
