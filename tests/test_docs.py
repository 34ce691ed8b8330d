"""Documents say what the program does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
assert spec is not None
assert spec.loader is not None
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_pages_are_current(name: str) -> None:
    assert (ROOT / name).read_text("utf-8") == generate.PAGES[name](), "run `make docs`"


def test_every_command_has_its_help_page() -> None:
    import typer

    from reformer_cli.app import app

    def names(group, prefix: str = "") -> set[str]:
        found = {prefix.strip()}
        for name, command in getattr(group, "commands", {}).items():
            found |= names(command, f"{prefix} {name}")
        return found

    assert names(typer.main.get_command(app)) == set(generate.COMMANDS)


def test_the_readme_names_both_commands_and_every_file() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert "make run" in text
    assert "make test" in text
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [Path(f) for f in listed.stdout.split() if not f.startswith("tests/") and Path(f).name != "__init__.py"]
    assert files
    missing = [str(f) for f in files if not re.search(rf"(?<![\w/]){re.escape(f.name)}\b", text)]
    assert not missing, "the README's tree has no line for these"
