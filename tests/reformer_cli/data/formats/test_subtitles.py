"""Subtitles: the words, no times, no styles, and none twice where captions roll."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.reading import faults, only

pytest.importorskip("pysubs2")


def test_srt(tmp_path: Path) -> None:
    (tmp_path / "s.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\n<i>I think that</i>\nwe {\\an8}should go.\n\n"
        "2\n00:00:03,000 --> 00:00:04,000\n- Who?\n- You & me.\n\n3\n00:00:05,000 --> 00:00:06,000\n- You & me.\n"
    )
    assert only(tmp_path / "s.srt") == "I think that we should go.\n- Who?\n- You & me.\n- You & me.\n"


def test_vtt_that_rolls(tmp_path: Path) -> None:
    """As YouTube writes it: each line comes first word by word, then alone, then above the next one."""
    (tmp_path / "s.vtt").write_text(
        "WEBVTT\nKind: captions\n\nNOTE no text\n\nSTYLE\n::cue{color:red}\n\n00:01.000 --> 00:02.000 align:start\n \n"
        "so<00:00:01.500><c> here</c> &amp; now\n\n00:02.000 --> 00:02.010\nso here &amp; now\n \n\n"
        "00:02.010 --> 00:03.000\nso here &amp; now\nit<00:00:02.500><c> begins</c>\n"
    )
    assert only(tmp_path / "s.vtt") == "so here & now\nit begins\n"


def test_what_has_no_times(tmp_path: Path) -> None:
    (tmp_path / "s.srt").write_text("plain words\n")
    assert "s.srt has no subtitles: no line with times" in faults(tmp_path)[0]
