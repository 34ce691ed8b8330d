"""What the documents tell a reader to type: command lines and pieces of Python."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "help.md")]
TORCHRUN = ["-m", "--", "reformer_cli"]


def blocks(page: Path, language: str, heading: str = "") -> list[str]:
    """The fenced blocks of one language, below a heading (of all, without)."""
    text = page.read_text("utf-8")
    if heading:
        text = text.split(f"\n{heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def typed(page: Path, heading: str = "") -> list[list[str]]:
    """The commands of the page's shell blocks, split into words as a shell does, without comments; `>` is a word."""
    found = []
    for block in blocks(page, "sh", heading):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            ends = [n for n, word in enumerate(words) if word.endswith(";")]
            for start, end in zip([0, *(n + 1 for n in ends)], [*ends, len(words)], strict=True):
                part = [word.removesuffix(";") for word in words[start : end + 1]]
                found += [part] if part else []
    return found


def arguments(words: list[str]) -> list[str] | None:
    """What `reformer` is given in a typed line, alone or under torchrun; None for another program's line."""
    if words[0] == "torchrun":
        start = next(n for n in range(len(words)) if words[n : n + len(TORCHRUN)] == TORCHRUN)
        words = ["reformer", *words[start + len(TORCHRUN) :]]
    if words[0] != "reformer":
        return None
    return words[1 : words.index(">")] if ">" in words else words[1:]
