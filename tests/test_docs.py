"""Documents say what the program does."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from builders.documents import PAGES, arguments, blocks, typed

from reformer_cli.app import app
from reformer_cli.config.load import load_config

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("write_reference", ROOT / "docs" / "write_reference.py")
assert spec is not None
assert spec.loader is not None
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


def leaves(command: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name as it is typed, command), groups too."""
    yield prefix.strip(), command
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, f"{prefix} {name}")


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_pages_are_current(name: str) -> None:
    assert (ROOT / name).read_text("utf-8") == generate.PAGES[name](), "run `make docs`"


def test_every_command_has_its_help_page() -> None:
    assert {name for name, _ in leaves(typer.main.get_command(app))} == set(generate.COMMANDS)


def test_every_module_says_in_a_sentence_what_it_is() -> None:
    for path in generate.modules():
        said = generate.first_sentence(path)
        assert said, path
        assert len(said) <= 200, (path, said)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_command_lines_are_understood(page: Path) -> None:
    """Guards against options and settings that a page still has by an old name. Nothing is run."""
    given: dict[str, Any] = {}
    program = typer.main.get_command(app)
    for _, command in leaves(program):
        if not hasattr(command, "commands"):
            command.callback = lambda **values: given.update(values)
    for words in typed(page):
        if (line := arguments(words)) is not None:
            given.clear()
            try:
                program.main(line, prog_name="reformer", standalone_mode=False)
                if {"set_", "config"} <= given.keys() and not given.get("resume"):
                    load_config(given["config"], given["set_"] or ())
            except Exception as error:
                pytest.fail(f"{page.name}: {' '.join(words)}\n{error}")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_python_compiles_and_links_lead_somewhere(page: Path) -> None:
    for code in blocks(page, "python"):
        ast.parse(code)
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
