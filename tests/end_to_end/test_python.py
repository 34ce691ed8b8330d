"""docs/python.md: what it shows is what runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from builders import forked

import reformer_cli as rc

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
# Tests of recall of a few hundred tokens in place of thousands, and bfloat16 is not timed: twelve seconds less.
SHORTER = """
from reformer_cli.training import mixed_precision
from reformer_cli.workflows.evaluate_recall import evaluate_recall
mixed_precision._seconds = lambda dtype, times: 1.0
evaluate_recall.__kwdefaults__["max_distance"] = 256
"""
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)


def run(code: str, folder: Path) -> str:
    process = forked.start(forked.code, code, cwd=folder)
    assert process.wait(600) == 0, process.err
    return process.out.decode()


@pytest.mark.slow
def test_the_copy_task_is_learnt(tmp_path: Path) -> None:
    assert len(BLOCKS[1].splitlines()) <= 40
    printed = run(BLOCKS[1], tmp_path)
    share = re.search(r"copied right: (\d+) %", printed)
    assert share, printed
    assert int(share.group(1)) >= 90


@pytest.mark.slow
def test_the_other_pieces_run_after_it(tmp_path: Path) -> None:
    run("\n".join(BLOCKS[1:]), tmp_path)


def test_text_from_python_and_every_public_name(tmp_path: Path) -> None:
    shown = set(re.findall(r"\brc\.(\w+)", BLOCKS[0]))
    assert shown == set(rc.__all__)
    assert "bits/byte" in run(SHORTER + BLOCKS[0], tmp_path)


def test_the_readmes_piece_runs(tmp_path: Path) -> None:
    """With tokens and targets of some kind before it."""
    readme = (PAGE.parents[1] / "README.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", readme, re.S)[0]
    before = "import torch\ntokens = torch.randint(320, (1, 50))\ntargets, state = tokens, None\n"
    run(before + code, tmp_path)
