"""The README's lines as a reader types them: in its order, in an empty folder with a novel of their own.

Guards against lines that could not work as they stood (a picture that wants a package which nothing names, a model
exported in a format that cannot hold it) and against the one that wrote over the very novel of the first line.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from builders import forked
from builders.documents import arguments, blocks, typed
from builders.programs import Program, Result

README = Path(__file__).parents[2] / "README.md"
LINES = typed(README, "## What to type next")
SIZES = [
    "d_model=16",
    "n_layers=1",
    "d_head=8",
    "context=64",
    "n_buckets=[16]",
    "far_buckets=0",
]  # where the reader's have the machine choose
# A budget of minutes as a few steps, a few tokens for many; otherwise the words are the page's.
STEPS = {"5": "3", "10": "6", "20": "12"}


def quick(words: list[str]) -> list[str]:
    line = "\x00".join(words)
    line = re.sub("--minutes\x00(\\d+)", lambda m: f"--steps\x00{STEPS[m[1]]}", line)
    line = re.sub("--max-tokens\x00\\d+", "--max-tokens\x0020", line)
    if "--session" in line:  # a model of six steps draws the end of its text once in a while
        line += "\x00--seed\x001"
    line = line.replace("evaluate\x00recall", "evaluate\x00recall\x00--max-distance\x004096")
    found = line.split("\x00")
    if "train" in found and not {"--resume", "--from"} & set(found):
        sized = [f"--set\x00{size}" for size in SIZES if f"{size.split('=')[0]}=" not in line]
        found += "\x00".join(sized).split("\x00")
    return found


def novel(folder: Path) -> Path:
    """The first 150,000 characters of English prose at hand: the text that ships with Python."""
    path = folder / "novel.txt"
    path.write_text("\n\n".join(topics.values())[:150_000], "utf-8")
    return path


def state(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def type_line(words: list[str], reformer: Program) -> Result:
    """In this process, which spares twenty starts of torch; under torchrun as it stands."""
    given = arguments(words)
    assert given is not None, words
    if words[0] != "torchrun":
        result = reformer(*given)
        if ">" in words:
            Path(words[-1]).write_text(result.out, "utf-8")
        return result
    launcher = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    done = subprocess.run(launcher, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_every_line_works_in_its_order(reformer: Program, tmp_path: Path) -> None:
    novel(tmp_path)
    (tmp_path / "notes.md").write_text("of the reader's own\n", "utf-8")
    before = state(tmp_path)
    for words in LINES:
        result = type_line(quick(words), reformer)
        assert result.status == 0, (words, result.err)
        assert state(tmp_path).items() >= before.items(), words
    for name in ("runs/novel", "weights", "book.txt", "more.txt", "ids.txt", "context.png", "runs/novel/report.html"):
        assert (tmp_path / name).exists(), name


def test_the_first_lines_work_and_change_nothing(reformer: Program, tmp_path: Path) -> None:
    """The quick part: look, train, write; then the README's book, a second time too."""
    novel(tmp_path)
    before = state(tmp_path)
    book = next(words for words in LINES if "--session" in words)
    for words in [*LINES[:3], book, book]:
        result = type_line(quick(words), reformer)
        assert result.status == 0, (words, result.err)
        assert state(tmp_path).items() >= before.items(), words


def test_no_line_writes_where_a_reader_keeps_a_text() -> None:
    read = {word for words in LINES for word in words if word == "novel.txt"}
    written = [
        words[n + 1] for words in LINES for n, word in enumerate(words[:-1]) if word in (">", "--output", "--plot")
    ]
    assert read == {"novel.txt"}
    assert len(written) == len(set(written))
    assert "novel.txt" not in written


def test_what_needs_more_than_the_installation_says_so() -> None:
    (block,) = blocks(README, "sh", "## What to type next")
    for line in block.splitlines():
        if "--plot" in line or "--image" in line:
            assert "reformer-cli[" in line, line


def test_python_runs(tmp_path: Path) -> None:
    for code in blocks(README, "python"):
        if "reformer_cli" not in code:
            process = forked.start(forked.code, code, cwd=tmp_path)
            assert process.wait() == 0, process.err


def test_both_commands_are_there() -> None:
    assert ["make", "run"] in typed(README)
    assert ["make", "test"] in typed(README)
