"""The words of subtitles (.srt, .vtt), by pysubs2, without times and styles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

from reformer_cli.data.formats.base import AGAIN, Document, not_whole, whole_text
from reformer_cli.data.text_decoding import OpenFile, UnreadableText
from reformer_cli.utils.extras import missing_package

TAG = re.compile(r"</?[a-zA-Z\d][^<>]{0,200}>")
SPEAKERS = re.compile(r"\v(?=[-–—])")  # between lines of different people in one cue


def read_subtitles(file: OpenFile) -> Iterator[Document]:
    """A cue a line; where captions roll, each line once."""
    yield Document(file.name, _cues(file))


def _cues(file: OpenFile) -> Iterator[str]:
    try:
        import pysubs2
    except ImportError:
        raise missing_package("pysubs2", file.name) from None
    text = whole_text(file)
    kind = "vtt" if text.lstrip().startswith("WEBVTT") else "srt"
    try:
        cues = pysubs2.SSAFile.from_string(text, format_=kind)
    except Exception as error:  # of many kinds
        raise not_whole(file, "file of subtitles", error) from None
    if not cues.events and text.strip():
        raise UnreadableText(f"{file.name} has no subtitles: no line with times", AGAIN)
    before: list[str] = []
    for cue in cues:
        shown = [line for part in unescape(TAG.sub("", cue.plaintext)).split("\n") if (line := " ".join(part.split()))]
        new = [line for line in shown if kind == "srt" or line not in before]
        before = shown or before
        if new:
            yield SPEAKERS.sub("\n", "\v".join(new)).replace("\v", " ") + "\n"
