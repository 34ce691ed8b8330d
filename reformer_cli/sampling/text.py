"""From tokens to text that may be shown: incomplete UTF-8 and what could become a stop string are held back."""

from __future__ import annotations

from collections.abc import Sequence

from reformer_cli.tokenization.tokenizer import StreamDecoder


class TextStream:
    """The text of one sample. `ended` turns true when a stop string is met; neither it nor what follows is shown."""

    def __init__(self, decoder: StreamDecoder, stops: Sequence[str] = ()) -> None:
        self.decoder, self.stops = decoder, [s for s in stops if s]
        self.held, self.ended = "", False

    def push(self, token: int) -> str:
        """Text that is certain after this token."""
        return self._release(self.decoder.push(token))

    def finish(self) -> str:
        """The rest, when no more tokens come."""
        text = self._release(self.decoder.finish()) + self.held
        self.held = ""
        return "" if self.ended and not text else text

    def _release(self, text: str) -> str:
        if self.ended:
            return ""
        self.held += text
        places = [at for stop in self.stops if (at := self.held.find(stop)) >= 0]
        if places:
            shown, self.held, self.ended = self.held[: min(places)], "", True
            return shown
        # The longest end of the text that a stop string could begin with.
        keep = max((n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0)
        cut = len(self.held) - keep
        shown, self.held = self.held[:cut], self.held[cut:]
        return shown
