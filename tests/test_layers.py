"""The two packages stay apart, and the light commands stay light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules_after(statement: str) -> set[str]:
    """What is imported after a statement, in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_models_is_no_package() -> None:
    # As a package the core would be loaded twice, under two names, with two copies of every class.
    assert not (ROOT / "models" / "__init__.py").exists()


def test_core_loads_without_the_command_line() -> None:
    loaded = modules_after("from reformer import ReformerLM")
    assert "torch" in loaded
    assert not {"models", "models.reformer", "reformer_cli", "typer"} & loaded


def test_help_and_config_do_not_import_torch() -> None:
    for arguments in (["--help"], ["train", "--help"], ["config", "show"]):
        loaded = modules_after(f"from reformer_cli.__main__ import main; assert main({arguments!r}) == 0")
        assert "torch" not in loaded, arguments


def test_parts_import_downwards_only() -> None:
    # training, sampling and evaluation know neither each other nor the commands; commands put them together.
    for part in ("training", "sampling", "evaluation"):
        others = {"training", "sampling", "evaluation", "commands", "runs", "app"} - {part}
        for path in (ROOT / "reformer_cli" / part).glob("*.py"):
            text = path.read_text("utf-8")
            assert not [o for o in others if f"reformer_cli.{o}" in text], path
