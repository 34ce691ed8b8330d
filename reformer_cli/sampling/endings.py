"""Where a text may stop: at the end of a sentence, paragraph, scene or chapter, after so many words, after a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Unit = Literal["sentence", "paragraph", "scene", "chapter"]
ABBREVIATION = r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bNo)(?<!\bvs)(?<!\b[A-Z])"
SENTENCE = re.compile(rf"{ABBREVIATION}[.!?…]+[\"”’»')\]]*(?=\s+[\"“‘«'(\[]?[A-Z\d]|\s*\n\s*\n)|[。！？]+[」』”]*")
HEADING = r"\n\s*\n(?=[ \t]*(?:chapter|book|part|act|canto|prologue|epilogue|[ivxlc]{1,7}\.?[ \t]*\n)\b[^\n]{0,60}\n)"
BREAK = r"\n\s*\n(?=[ \t]*(?:\*[ *]*|#|⁂|[-–—_][-–—_ ]{2,})[ \t]*\n)"
UNITS = {
    "sentence": SENTENCE,
    "paragraph": re.compile(r"\n[ \t]*\n"),
    "scene": re.compile(f"{HEADING}|{BREAK}", re.IGNORECASE),
    "chapter": re.compile(HEADING, re.IGNORECASE),
}
# Most tokens that are made on the way to one, where --max-tokens does not say.
PATIENCE = {"sentence": 500, "paragraph": 1_000, "scene": 5_000, "chapter": 20_000}
TOKENS_A_WORD = 6  # as many at most, on the whole
EARLY, LATE = 0.9, 1.15  # of --max-words: from where on a sentence's end is taken, and where any word's is
BACK = 200  # characters that an ending or a heading may take
HELD = re.compile(r"\s+[\"“‘«'(\[]?\Z|\Z")  # what may belong to the next sentence
WORD = re.compile(r"\S+\s")


class Endings:
    """Of one text: looks at it as it grows. at: the unit; words: about how many; until: a text after which it stops."""

    def __init__(self, at: Unit | None = None, words: int = 0, until: Sequence[str] = ()) -> None:
        self.at, self.words, self.until = at, words, [text for text in until if text]
        self.text, self._counted, self._words = "", 0, 0

    def push(self, new: str) -> int | None:
        """Characters of the whole text after which it ends; None: not yet."""
        if not (self.at or self.words or self.until):  # nothing is looked for: to keep the text takes time
            return None
        start = max(0, len(self.text) - BACK)
        self.text += new
        found = [at + len(text) for text in self.until if (at := self.text.find(text, start)) >= 0]
        if self.at is not None:
            first = re.search(r"\w", self.text)  # what comes before any word ends nothing
            if first and (match := UNITS[self.at].search(self.text, max(start, first.start()))):
                found.append(match.end() if self.at == "sentence" else match.start())
        if self.words and (end := self._after_words()) is not None:
            found.append(end)
        return min(found, default=None)

    @property
    def certain(self) -> int:
        """Characters that no ending can take away: not the spaces, nor what may be a heading, at the end."""
        if self.at in ("scene", "chapter"):
            blank = self.text.rfind("\n\n")
            if blank >= len(self.text) - BACK and "\n" not in self.text[blank + 2 :].strip("\n"):
                return len(self.text[:blank].rstrip())
        if not self.at and not self.words:
            return len(self.text)
        found = HELD.search(self.text, max(0, len(self.text) - BACK))
        return found.start() if found else len(self.text)

    def _after_words(self) -> int | None:
        for match in WORD.finditer(self.text, self._counted):
            self._words, self._counted = self._words + 1, match.end()
            if self._words >= EARLY * self.words:
                here = self.text[: match.end()].rstrip()
                if re.search(r"[.!?…。！？][\"”’»')\]]*$", here[-9:]) or self._words >= LATE * self.words:
                    return len(here)
        return None
