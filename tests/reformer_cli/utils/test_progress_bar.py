"""How far it is: a bar on a terminal, lines elsewhere; never a count that is wrong."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from reformer_cli.utils import progress_bar
from reformer_cli.utils.format import as_size


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "EVERY_SECONDS", 0.0)
    said: list[str] = []
    with progress_bar.shown("reading", 4 * 2**20, said.append, as_size) as advance:
        for _ in range(2):
            advance(2**20)
    assert [text.partition(",")[0] for text in said] == [
        "reading: 1.0 MiB of 4.0 MiB (25 %)",
        "reading: 2.0 MiB of 4.0 MiB (50 %)",
    ]
    assert all("/s, 0:00 left" in text for text in said)


def test_lines_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with progress_bar.shown("reading", 100, said.append) as advance:
        for _ in range(100):
            advance(1)
    assert not said


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out, said = io.StringIO(), list[str]()
    monkeypatch.setattr(progress_bar, "Console", lambda stderr: Console(file=out, force_terminal=True, width=100))
    with progress_bar.shown("tokenising", 4 * 2**20, said.append, as_size) as advance:
        advance(3 * 2**20)
    assert "3.0 MiB of 4.0 MiB" in out.getvalue()
    assert not said


def test_nothing_to_do() -> None:
    with progress_bar.shown("reading", 0, print) as advance:
        advance(0)
