"""What is loaded when: the core alone without the command line, the command line's help without the core."""

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
    assert "torch._dynamo" not in loaded  # the compiler would add a second to every command


def test_help_and_config_do_not_import_torch() -> None:
    for arguments in (["--help"], ["train", "--help"], ["config", "show"]):
        loaded = modules_after(f"from reformer_cli.__main__ import main; assert main({arguments!r}) == 0")
        assert "torch" not in loaded, arguments
