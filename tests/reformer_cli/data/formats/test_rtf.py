"""Rich Text: the text without its codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.reading import faults, only

pytest.importorskip("striprtf")


def test_rtf(tmp_path: Path) -> None:
    codes = (
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Times;}}\f0 Hel\-lo \b bold\b0  w\'f6rld.\par Two \u1076?\u1072?\tab x}"
    )
    (tmp_path / "d.rtf").write_bytes(codes)
    assert only(tmp_path / "d.rtf") == "Hello bold wörld.\nTwo да\tx"


def test_half_a_character_does_not_come_out(tmp_path: Path) -> None:
    (tmp_path / "d.rtf").write_bytes(rb"{\rtf1 a\u-10179?b}")
    assert only(tmp_path / "d.rtf").startswith("a")


def test_what_is_no_rtf(tmp_path: Path) -> None:
    (tmp_path / "d.rtf").write_bytes(b"plain")
    assert "d.rtf is no RTF document" in faults(tmp_path)[0]
