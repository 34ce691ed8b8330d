"""Writes docs/help.md (every command's --help) and configs/README.md (every setting): `make docs`.

tests/test_docs.py fails when either is not what the program says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
NOTE = "<!-- Made by `make docs`; do not edit. -->"


def help_page() -> str:
    """Every command's help as Markdown."""
    width = {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"}
    parts = ["# What `reformer --help` says", NOTE]
    for command in COMMANDS:
        line = [sys.executable, "-m", "reformer_cli", *command.split(), "--help"]
        done = subprocess.run(line, env=os.environ | width, capture_output=True, text=True, check=True, cwd=ROOT)
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


PAGES = {"docs/help.md": help_page, "configs/README.md": settings_page}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (ROOT / name).write_text(make(), "utf-8")
