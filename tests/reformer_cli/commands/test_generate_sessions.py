"""Texts that are gone on with another day, as a user asks for them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from builders.programs import TINY, Program

from reformer_cli.runs.run import Run


@pytest.mark.parametrize("samples", [1, 3])
def test_a_session_goes_on_as_if_never_stopped(reformer: Program, run: Path, samples: int) -> None:
    options = [
        "--run",
        run,
        "--num-samples",
        samples,
        "--no-repeat-ngram-size",
        4,
        "--repetition-penalty",
        1.2,
        "--seed",
        0,
        "--json",
    ]

    def made(*more: object) -> list[dict[str, object]]:
        result = reformer("generate", *options, *more)
        assert result.status == 0, result.err
        return [json.loads(line) for line in result.out.splitlines()]

    whole = made("--prompt", "The ca", "--max-tokens", 40)  # a token is to go across the prompt's end
    parts = [made("--session", "s", "--prompt", "The ca", "--max-tokens", 0)]
    parts += [made("--session", "s", "--max-tokens", n) for n in (7, 1, 0, 32)]
    for n, one in enumerate(whole):
        assert [t for p in parts for t in p[n]["tokens"]] == one["tokens"]  # type: ignore[attr-defined]
        assert "".join(str(p[n]["text"]) for p in parts) == one["text"]


def test_a_session_takes_another_prompt_and_grows_its_file(reformer: Program, run: Path) -> None:
    def made(*more: object) -> None:
        assert reformer("generate", "--run", run, "--session", "s", "--output", "o.txt", *more).status == 0

    made("--prompt", "The cat", "--max-tokens", 9)
    first = Path("o.txt").read_text("utf-8")
    made("--prompt", " Then the mat", "--max-tokens", 9)
    second = Path("o.txt").read_text("utf-8")
    assert second.startswith(first + " Then the mat")
    tokenizer = Run.open(run).tokenizer()
    wanted = reformer(
        "generate", "--run", run, "--prompt", first + " Then the mat", "--max-tokens", 9, "--temperature", 0
    )
    assert len(tokenizer.encode(second)) > len(tokenizer.encode(first)) + 4
    assert wanted.status == 0


def test_sessions_that_do_not_fit_are_refused(reformer: Program, run: Path, text: Path) -> None:
    options = ["--prompt", "A", "--max-tokens", 3, "--session", "s"]
    assert reformer("generate", "--run", run, *options).status == 0
    kept = Path("s").read_bytes()
    assert reformer("train", text, *TINY, "--steps", 2, "--run", "other").status == 0
    assert "another model's session" in reformer("generate", "--run", "other", *options).error
    assert (
        "--far-buckets that it was made with" in reformer("generate", "--run", run, *options, "--far-buckets", 0).error
    )
    assert (
        "the session has 1 texts, --num-samples is 2"
        in reformer("generate", "--run", run, *options, "--num-samples", 2).error
    )
    assert "exclude each other" in reformer("generate", "--run", run, *options, "--num-beams", 2).error
    Path("s").write_bytes(kept[:-9])
    assert "not a session, or damaged" in reformer("generate", "--run", run, *options).error
    Path("s").write_text("hello")
    assert "not a session, or damaged" in reformer("generate", "--run", run, *options).error
    assert Path("s").read_text() == "hello"
    assert "cannot write" in reformer("generate", "--run", run, "--max-tokens", 2, "--session", "none/s").error


def test_a_session_is_kept_at_ctrl_c(reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Ctrl-C waits for the token under way: half a token would leave layers at different positions."""
    from reformer_cli.sampling.sampler import Sampler

    original, calls = Sampler.draw, 0

    def draw(self: Sampler):
        nonlocal calls
        calls += 1
        if calls == 15:
            signal.raise_signal(signal.SIGINT)
        return original(self)

    options = ["--run", run, "--prompt", "The", "--json", "--seed", 0]
    whole = json.loads(reformer("generate", *options, "--max-tokens", 40).out)
    monkeypatch.setattr(Sampler, "draw", draw)
    result = reformer("generate", *options, "--session", "s")
    assert result.status == 130
    first = json.loads(result.out)
    assert first["finish_reason"] == "interrupted"
    assert first["tokens"] == whole["tokens"][:15]
    rest = json.loads(reformer("generate", "--run", run, "--json", "--session", "s", "--max-tokens", 25).out)
    assert first["tokens"] + rest["tokens"] == whole["tokens"]
