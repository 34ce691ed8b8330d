"""Text from a run: the same for the same seed, streamed, stopped where asked, and what is refused."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from builders.programs import TINY, Program

from reformer_cli.runs.run import Run


def test_the_prompt_then_its_continuation(reformer: Program, run: Path) -> None:
    result = reformer("generate", "--run", run, "--prompt", "The cat", "--max-tokens", 20, "--seed", 0)
    assert result.status == 0
    assert result.out.startswith("The cat")
    assert len(result.out) > 10
    assert "tokens/s" in result.err
    again = reformer("generate", "--run", run, "--prompt", "The cat", "--max-tokens", 20, "--seed", 0)
    assert again.out == result.out
    assert reformer("generate", "--run", run, "--prompt", "The cat", "--max-tokens", 20, "--seed", 1).out != result.out


def test_prompt_from_file_and_standard_input(
    reformer: Program, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.txt").write_text("Rain fell", "utf-8")
    greedy = ("generate", "--run", run, "--max-tokens", 9, "--temperature", 0)
    whole = reformer(*greedy, "--prompt", "Rain fell").out
    wanted = reformer(*greedy, "--prompt", "Rain fell", "--no-echo").out
    assert whole == "Rain fell" + wanted
    assert reformer(*greedy, "--prompt-file", "p.txt").out == wanted  # a chapter was printed again
    assert reformer(*greedy, "--prompt-file", "p.txt", "--echo").out == whole
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Rain fell")))
    assert reformer(*greedy, "-").out == wanted


def test_a_session_that_is_given_its_prompt_again(reformer: Program, run: Path) -> None:
    """It was glued in after what had been written: `Liges ofIt was a cold evening.`"""
    options = ["generate", "--run", run, "--prompt", "The cat", "--seed", 0, "--max-tokens", 5, "--session"]
    assert reformer(*options, "a").status == 0
    again = reformer(*options, "a", "--json")
    assert "the session began with this prompt" in again.err
    reformer(*options, "b")
    assert (
        json.loads(reformer(*options[:3], "--session", "b", "--max-tokens", 5, "--json").out)["text"]
        == (json.loads(again.out)["text"])
    )


def test_a_prompt_in_any_format(reformer: Program, run: Path, tmp_path: Path) -> None:
    """Once answered with `iconv`, or its tags gone on from."""
    (tmp_path / "p.html").write_text("<title>x</title><p>Rain <b>fell</b></p>", "utf-8")
    (tmp_path / "p.txt").write_bytes("Rain fell\r\n".encode("utf-16"))
    (tmp_path / "p.jsonl").write_text('{"text": "Rain"}\n{"text": "fell"}\n', "utf-8")
    for name, wanted in (("p.html", "Rain fell\n"), ("p.txt", "Rain fell\n"), ("p.jsonl", "Rain\n\nfell\n")):
        found = reformer("generate", "--run", run, "--prompt-file", name, "--echo", "--max-tokens", 1).out
        assert found.startswith(wanted)


def test_a_web_address_is_named_as_one(reformer: Program, run: Path) -> None:
    address = "https://example.com/story.html"
    found = reformer("generate", "--run", run, "--prompt-file", address)
    assert f"{address} is a web address; save it as a file first" in found.error
    found = reformer("generate", "--run", run, "--prompt", address, "--max-tokens", 1)
    assert "is a web address" in found.err
    assert found.status == 0


def test_greedy_needs_no_seed(reformer: Program, run: Path) -> None:
    a, b = (reformer("generate", "--run", run, "--temperature", 0, "--max-tokens", 12, "--seed", s).out for s in (1, 2))
    assert a == b


def test_several_samples_in_one_batch(reformer: Program, run: Path) -> None:
    out = reformer("generate", "--run", run, "--prompt", "A", "--num-samples", 3, "--max-tokens", 8).out
    assert out.count("===") == 6
    texts = [part.split("===\n")[1] for part in out.split("=== ")[1:]]
    assert len(set(texts)) > 1


def test_stop_text_is_not_shown(reformer: Program, run: Path) -> None:
    whole = reformer("generate", "--run", run, "--max-tokens", 60, "--seed", 0).out
    stop = whole[20:22]
    cut = reformer("generate", "--run", run, "--max-tokens", 60, "--seed", 0, "--stop", stop).out
    assert cut == whole[: whole.index(stop)] + "\n"


def test_output_file_and_none_on_stdout(reformer: Program, run: Path) -> None:
    result = reformer("generate", "--run", run, "--prompt", "The", "--output", "o.txt", "--max-tokens", 5)
    assert result.out == ""
    assert Path("o.txt").read_text("utf-8").startswith("The")
    assert Path("/dev/full").exists()
    assert "no space left" in reformer("generate", "--run", run, "--output", "/dev/full").error


def test_no_file_of_the_user_is_lost(reformer: Program, run: Path, text: Path) -> None:
    # `generate --output novel.txt` replaced the novel that the model had been trained on.
    novel, plan = text.read_bytes(), ["generate", "--run", run, "--max-tokens", 3, "--output"]
    assert "text.txt is there already" in reformer(*plan, text).error
    assert "text.txt is there already" in reformer(*plan, text, "--session", "s").error
    assert reformer(*plan, "o.txt", "--session", "s").status == 0
    before = Path("o.txt").read_bytes()
    assert "text.txt is there already" in reformer(*plan, text, "--session", "s").error  # which would add to it
    assert "o.txt is there already" in reformer(*plan, "o.txt").error
    assert "both s" in reformer(*plan, "s", "--session", "s").error
    assert text.read_bytes() == novel
    assert Path("o.txt").read_bytes() == before
    Path("o.txt").write_bytes(before := before * 100)
    assert reformer(*plan, "o.txt", "--overwrite").status == 0
    assert len(Path("o.txt").read_bytes()) < len(before)


def test_the_newest_run_is_the_default(reformer: Program, text: Path) -> None:
    assert "no run under ./runs; train one" in reformer("generate", "--prompt", "A").error
    for _ in range(2):
        assert reformer("train", text, *TINY, "--steps", 1).status == 0
    assert reformer("generate", "--max-tokens", 2).status == 0


def test_ctrl_c_keeps_what_there_is(reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one within a token, as the second is."""
    from reformer_cli.sampling.sampler import Sampler

    original, calls = Sampler.take, 0

    def take(*arguments):
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(Sampler, "take", take)
    result = reformer(
        "generate",
        "--run",
        run,
        "--prompt",
        "The",
        "--output",
        "o.txt",
        "--session",
        "s",
        "--seed",
        0,
    )
    assert result.status == 130
    assert len(Path("o.txt").read_bytes()) > 10
    assert not Path("s").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "a", "-"], "exclude each other"),
        (["hello"], "unexpected argument 'hello'; did you mean --prompt 'hello'?"),
        (["--prompt-file", "none.txt"], "no file or folder 'none.txt'"),
        (["--temperature", "-1"], "--temperature -1.0: should be greater than or equal to 0"),
        (["--top-p", "7", "--min-p", "9"], "--min-p 9.0"),
        (["--max-tokens", "x"], "x"),
        (["--no-such-option"], "No such option"),
        (
            ["--logit-bias", "cat", "--logit-bias", "=3", "--logit-bias", "a=nan"],
            "--logit-bias 'cat' is not TEXT=NUMBER with a number from -10",
        ),
        (["--num-beams", "2", "--num-samples", "3"], "--num-samples 3 exceeds --num-beams 2"),
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


@pytest.mark.parametrize("kind", ["truncated", "no weights", "tokenizer", "other sizes", "config"])
def test_a_damaged_run_is_named(reformer: Program, run: Path, kind: str) -> None:
    message = damage(run, kind)
    assert message in reformer("generate", "--run", run, "--prompt", "A").error


def test_a_prompt_longer_than_the_positions(reformer: Program, text: Path) -> None:
    settings = ("positions=axial", "axial_shape=[8, 8]", "axial_dims=[8, 8]", "tokenizer=bytes")
    axial = [part for setting in settings for part in ("--set", setting)]
    assert reformer("train", text, *TINY, *axial, "--steps", 1, "--run", "r").status == 0
    error = reformer("generate", "--run", "r", "--prompt", "x" * 100, "--max-tokens", 1).error
    assert "a prompt of 101 tokens and 1 new ones: 102 tokens exceed the 64 positions of this model" in error


def test_a_prompt_longer_than_memory(reformer: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reformer("train", text, *TINY, "--set", "attn_layers=[full]", "--steps", 1, "--run", "r").status == 0
    monkeypatch.setattr("reformer_cli.workflows.open_model.free_memory", lambda device: 10_000)
    error = reformer("generate", "--run", "r", "--prompt", "x" * 100, "--max-tokens", 1).error
    assert "needs" in error
    assert "9.8 KiB" in error


def test_a_run_opens_anywhere(run: Path, tmp_path: Path) -> None:
    moved = run.rename(tmp_path / "elsewhere")
    assert Run.open(moved).load_model().config.d_model == 16


def test_sampling_options_reach_the_text(reformer: Program, run: Path) -> None:
    def made(*options: object) -> str:
        asked = ("--prompt", "The cat", "--max-tokens", 60)
        return reformer("generate", "--run", run, *asked[: None if "--num-beams" not in options else 4], *options).out

    plain = made()
    pair = next(plain[i : i + 2] for i in range(8, len(plain)) if plain[i : i + 2].isascii() and plain[i] != "=")
    assert pair not in made("--logit-bias", f"{pair}=-1000")[len("The cat") :]
    greedy = ("--temperature", 0, "--repetition-penalty", 9)
    assert made(*greedy) != made(*greedy, "--repetition-window", 1)
    assert made("--no-repeat-ngram-size", 1) != plain
    assert made("--num-beams", 3) == made("--num-beams", 3, "--seed", 9)
    assert (
        reformer("generate", "--run", run, "--num-beams", 4, "--num-samples", 2, "--max-tokens", 9).out.count("===")
        == 4
    )


def test_json_says_everything_about_each_sample(reformer: Program, run: Path) -> None:
    options = ["--run", run, "--prompt", "A", "--num-samples", 2, "--seed", 0, "--max-tokens", 8]
    shown = reformer("generate", *options).out
    lines = [json.loads(line) for line in reformer("generate", *options, "--json").out.split("\n") if line]
    assert [line["sample"] for line in lines] == [1, 2]
    for line in lines:
        assert line["prompt"] + line["text"] in shown
        assert line["finish_reason"] in ("length", "end")
        assert len(line["tokens"]) == len(line["logprobs"]) <= 8
        assert all(x <= 0 for x in line["logprobs"])
        assert line["seconds"] > 0
    assert json.loads(reformer("generate", *options, "--json", "--num-beams", 2).out.splitlines()[0])["text"]


def test_progress_where_text_goes_to_a_file(reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reformer_cli.utils.progress_bar.EVERY_SECONDS", 0.0)
    err = reformer("generate", "--run", run, "--output", "o.txt", "--max-tokens", 30, "--prompt", "x " * 3000).err
    assert "reading the prompt: " in err
    assert "writing: " in err
    assert "tokens/s, 0:0" in err
    assert " left" in err
