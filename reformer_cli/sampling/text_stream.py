"""From tokens to text that may be shown: incomplete UTF-8 and what could become a stop string are held back."""

from __future__ import annotations

from collections.abc import Sequence

from reformer_cli.sampling.endings import Endings
from reformer_cli.tokenizers.base import StreamDecoder


class TextStream:
    """The text of one sample. `ended` turns true when a stop string is met; neither it nor what follows is shown; or
    where `endings` say so.

    shown: characters that were given out.
    """

    def __init__(self, decoder: StreamDecoder, stops: Sequence[str] = (), endings: Endings | None = None) -> None:
        self.decoder, self.stops, self.endings = decoder, [s for s in stops if s], endings or Endings()
        self.held, self.ended = "", False
        self.shown = 0
        self._before = 0  # of the characters to come, how many were given out in an earlier life

    def skip(self, characters: int) -> None:
        """The text begins with so many that are shown already: of the prompt's last word."""
        self.shown = self._before = characters

    def resume(self, tokens: Sequence[int], shown: int) -> None:
        """Stand where another stream stood that was given these tokens and gave out so many characters."""
        text = "".join(self.decoder.push(token) for token in tokens)
        self.shown, self._before = shown, max(0, shown - len(text))
        self.held = text[shown:]

    def push(self, token: int) -> str:
        """Text that is certain after this token."""
        return self._release(self.decoder.push(token))

    def finish(self) -> str:
        """The rest, when no more tokens come. A character of which bytes are missing is not shown at all."""
        text, self.held = self.held, ""
        self.shown += len(text)
        return text

    def _release(self, text: str) -> str:
        if self.ended:
            return ""
        text, self._before = text[self._before :], max(0, self._before - len(text))
        self.held += text
        end = self.endings.push(text)
        seen = len(self.endings.text)
        places = [at for stop in self.stops if (at := self.held.find(stop)) >= 0]
        places += [max(0, len(self.held) - (seen - end))] if end is not None else []
        if places:
            cut, self.ended = min(places), True
        else:  # The longest end of the text that a stop string could begin with, or that may not be wanted.
            begun = (n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n]))
            cut = max(0, len(self.held) - max(max(begun, default=0), seen - self.endings.certain))
        out, self.held = self.held[:cut], "" if self.ended else self.held[cut:]
        self.shown += len(out)
        return out
