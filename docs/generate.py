"""Writes docs/help.md (every command's --help), configs/README.md (every setting) and the tree of docs/architecture.md.

`make docs`; tests/test_docs.py fails when one of them is not what the program says.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from typer.testing import CliRunner

from reformer_cli.app import app
from reformer_cli.config.load import config_names, describe
from reformer_cli.config.schema import SECTIONS

ROOT = Path(__file__).parents[1]
COMMANDS = ["", "train", "generate", "evaluate", "evaluate perplexity", "evaluate context", "evaluate recall"]
COMMANDS += ["evaluate attention", "evaluate harness"]
COMMANDS += ["report", "plan", "corpus", "config", "config list", "config show", "config validate"]
COMMANDS += [
    "tokenizer",
    "tokenizer encode",
    "tokenizer decode",
    "tokenizer train",
    "tokenizer inspect",
    "tokenizer import",
]
COMMANDS += ["import", "export"]
TREE = ["models", "reformer_cli", "benchmarks"]
NOTE = "<!-- Made by `make docs`; do not edit. -->"


def help_page() -> str:
    """Every command's help as Markdown."""
    parts, runner = ["# What `reformer --help` says", NOTE], CliRunner()
    for command in COMMANDS:
        asked = [*command.split(), "--help"]
        done = runner.invoke(app, asked, prog_name="reformer", terminal_width=78, catch_exceptions=False)
        text = "\n".join(row.rstrip() for row in done.stdout.strip().splitlines())
        parts.append(f"## {' '.join(['reformer', *command.split()])}\n\n```\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Every recipe and every setting as Markdown."""
    rows = [
        f"- `{name}`: {path.read_text('utf-8').splitlines()[0].lstrip('# ')}" for name, path in config_names().items()
    ]
    parts = ["# Recipes and settings", NOTE, "\n".join(rows)]
    parts.append(
        "A recipe is a YAML file of deltas from the defaults below: `reformer train TEXT --config NAME|FILE`. "
        "One setting changes with `--set data.context=4096`, or `--set context=4096` where one section only has it."
    )
    for section, kind in SECTIONS.items():
        lines = [f"## {section}", (kind.__doc__ or "").split("\n")[0], "| setting | default | meaning |\n|---|---|---|"]
        for name, default, description in describe(section):
            plain = list(default) if isinstance(default, tuple) else "null" if default is None else default
            lines[-1] += f"\n| `{name}` | `{plain}` | {description.replace('|', chr(92) + '|')} |"
        parts.append("\n\n".join(lines))
    return "\n\n".join(parts) + "\n"


def modules() -> list[Path]:
    """The files of code that the tree has a line for, the packages of the picture from below to above."""
    found = [p for folder in TREE for end in ("py", "c", "h") for p in (ROOT / folder).rglob(f"*.{end}")]
    return [path for path in found if path.name != "__init__.py" or first_sentence(path)]


def first_sentence(path: Path) -> str:
    """Of a module's docstring, or of the comment that a C file begins with, without its full stop."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        said = ast.get_docstring(ast.parse(text)) or ""
    else:
        said = " ".join(line.strip("/* ") for line in text.split("*/")[0].splitlines())
    said = " ".join(said.split("\n\n")[0].split())
    return re.split(r"\.(?:\s+(?=\W*[A-Z]|[\w/]+\.py|`)|$)", said)[0]


def tree() -> str:
    """Every module with its first sentence, folder by folder."""
    lines: list[str] = []
    folder = None
    for path in sorted(modules(), key=lambda p: (TREE.index(p.relative_to(ROOT).parts[0]), p.parent, p.name)):
        if path.parent != folder:
            folder = path.parent
            lines.append(f"{folder.relative_to(ROOT).as_posix()}/")
        lines.append(f"  {path.name:24} {first_sentence(path)}")
    return "\n".join(lines)


def architecture_page() -> str:
    """The page as it stands, with the tree of now."""
    written = (ROOT / "docs" / "architecture.md").read_text("utf-8").split(NOTE)[0]
    return f"{written}{NOTE}\n\n```\n{tree()}\n```\n"


PAGES = {
    "docs/help.md": help_page, "configs/README.md": settings_page, "docs/architecture.md": architecture_page
}  # fmt: skip

if __name__ == "__main__":
    for name, make in PAGES.items():
        (ROOT / name).write_text(make(), "utf-8")
