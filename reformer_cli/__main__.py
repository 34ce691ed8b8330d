"""The entry point: runs a command and turns what goes wrong into one line on stderr and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError, is_disk_full, why_not_written

# click's base of usage errors, whether typer brings its own copy of click (0.26 and later) or not.
CLICK_ERROR: Any = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `reformer`; returns the exit status: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads that wait for each other spin for so many turns, not for milliseconds, as they do beside another busy
        # program, where one of them has no core (LOG.md, 2026-11-24). Read when torch is imported.
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    from reformer_cli.app import app

    try:
        status = app(
            args=list(arguments) if arguments is not None else None, prog_name="reformer", standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except CLICK_ERROR as error:
        return _fail(error, error.format_message(), hint=_help_hint(error))
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`); closing stdout again at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        return 2 if error.silent else _fail(error, str(error))
    except Exception as error:
        if is_disk_full(error):
            return _fail(error, f"{why_not_written(error)}; free some and run the same command again")
        if isinstance(error, OSError) and error.filename:
            return _fail(error, f"{error.filename}: {error.strerror}")
        raise


def _help_hint(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"; see `{context.command_path} --help`" if context is not None else ""


def _fail(error: BaseException, line: str, hint: str = "") -> int:
    if os.environ.get("REFORMER_DEBUG"):
        raise error
    say(f"error: {line.rstrip('.')}{hint}")
    return 2


if __name__ == "__main__":
    sys.exit(main())
