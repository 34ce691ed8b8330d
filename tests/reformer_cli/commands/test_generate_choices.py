"""Candidates, what comes between two texts, what is read before a prompt, and what is told of each token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from builders.programs import Program

from reformer_cli.evaluation.explain import explain
from reformer_cli.runs.run import Run

ASKED = ("--prompt", "The cat sat", "--max-tokens", 12, "--seed", 5)


def test_the_likeliest_candidate_is_kept(reformer: Program, run: Path) -> None:
    drawn = [
        json.loads(one)
        for one in reformer("generate", "--run", run, *ASKED, "--num-samples", 3, "--json").out.splitlines()
    ]
    best = max(drawn, key=lambda one: sum(one["logprobs"]) / len(one["logprobs"]))
    result = reformer("generate", "--run", run, *ASKED, "--candidates", 3)
    assert result.out == f"The cat sat{best['text']}\n"
    assert f"kept candidate {best['sample']} of 3" in result.err
    (kept,) = reformer("generate", "--run", run, *ASKED, "--candidates", 3, "--json").out.splitlines()
    assert json.loads(kept)["seed"] == best["seed"]
    newest = reformer("generate", "--run", run, *ASKED, "--candidates", 3, "--keep", "novelty")
    assert "in no copy" in newest.err


def test_a_text_between_two(reformer: Program, run: Path) -> None:
    between = ("--infill", "The cat sat on a mat.", "The rain fell.", "--max-tokens", 20, "--seed", 1)
    result = reformer("generate", "--run", run, *between, "--candidates", 4)
    assert result.status == 0
    assert "of the text after" in result.err
    assert "The rain fell" not in result.out
    assert reformer("generate", "--run", run, *between, "--candidates", 4).out == result.out


def test_a_text_read_before_the_prompt(reformer: Program, run: Path, text: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.txt"
    part.write_text(text.read_text("utf-8")[:2000], "utf-8")
    asked = ("generate", "--run", run, *ASKED, "--context", part)
    result = reformer(*asked, "--session", "s.state")
    assert "their last" in result.err
    assert result.out.startswith("The cat sat")
    assert reformer(*asked).out == result.out  # it is not printed, and the same again
    assert reformer(*asked, "--num-samples", 2).out.split("=== 2 ===")[0].endswith(result.out)
    assert reformer("generate", "--run", run, "--session", "s.state", "--prompt", " and", "--max-tokens", 5).status == 0
    whole = tmp_path / "whole.txt"
    whole.write_text(part.read_text("utf-8") + "\n\nThe cat sat", "utf-8")
    greedy = ("generate", "--run", run, "--max-tokens", 12, "--temperature", 0, "--no-echo")
    read = reformer(*greedy, "--prompt", "The cat sat", "--context", part)
    assert read.out == reformer(*greedy, "--prompt-file", whole).out
    assert "has begun" in reformer(*asked, "--session", "s.state").error


def test_each_token_is_explained(reformer: Program, run: Path) -> None:
    (line,) = reformer("generate", "--run", run, *ASKED, "--json", "--explain").out.splitlines()
    found = json.loads(line)
    assert len(found["explained"]) == len(found["ranks"]) == len(found["tokens"])
    reads = [read for one in found["explained"] for read in one["reads"]]
    assert reads
    assert all(0 < read["distance"] <= 30 and 0 < read["weight"] <= 1 and "[" in read["passage"] for read in reads)
    for rank, logprob in zip(found["ranks"], found["logprobs"], strict=True):
        assert 1 <= rank <= 257
        assert rank * 2.718281828**logprob <= 1.001  # as many tokens are at least as likely


def test_places_lie_before_the_token(run: Path) -> None:
    model, ids = Run.open(run).load_model(), torch.randint(0, 200, (40,), generator=torch.Generator().manual_seed(0))
    found = explain(model, ids, 5)
    assert len(found) == 35
    for n, reads in enumerate(found, 5):
        assert all(r.position + r.distance == n and r.distance >= 1 for r in reads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--explain"], "add --json"),
        (["--infill", "a", " "], "needs a text before and one after"),
        (["--infill", "a", "b", "--prompt", "c"], "leave the other prompt out"),
        (["--candidates", 3, "--num-samples", 2], "--num-samples does not go with it"),
        (["--candidates", 3, "--keep", "best"], "--keep 'best' is not known"),
        (["--context", "none.txt"], "no file or folder 'none.txt'"),
        (["--context", "text.txt", "--num-beams", 2], "--num-beams reads a prompt alone"),
    ],
)
def test_what_does_not_go_together(reformer: Program, run: Path, options: list[object], message: str) -> None:
    assert message in reformer("generate", "--run", run, *options, "--max-tokens", 2).error
