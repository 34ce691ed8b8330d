"""Where generated text goes: standard output or a file, as it is made; and what the user sees of the work meanwhile."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.progress_bar import Advance, shown
from reformer_cli.utils.signals import interruptible

if TYPE_CHECKING:
    from reformer_cli.sampling.generate import Sample


class Writer:
    """Writes one sample as it is made, several one after the other when they are done, or JSON lines.

    echo: whether a prompt is written before what follows it. go_on: whether the text may be gone on with in the same
    file: then no line end is added to it.
    """

    def __init__(self, output: Path | None, as_json: bool, samples: int, echo: bool, go_on: bool) -> None:
        self.output, self.as_json, self.echo, self.go_on = output, as_json, echo, go_on
        self.prompt = ""
        self.single = samples == 1 and not as_json
        self.out: TextIO = sys.stdout

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.out is not sys.stdout:
            self.out.close()

    def begin(self, append: bool, prompt: str) -> None:
        """Open the file: nothing of an older one is lost before all that can be refused was. The prompt comes first."""
        if self.output is not None:
            try:
                self.out = open(self.output, "a" if append else "w", encoding="utf-8")  # noqa: SIM115  (see __exit__)
            except OSError as error:
                raise UserError(f"cannot write {self.output}: {error.strerror}") from None
        self.prompt = prompt
        if self.single and self.echo:
            self._put(self.prompt)

    @contextlib.contextmanager
    def writing(self, tokens: int, wait: bool = False) -> Iterator[tuple[Advance, Callable[[], bool]]]:
        """Shows how far the work is where the text itself does not, and says whether Ctrl-C was pressed.

        Between two tokens the state is whole; a second Ctrl-C does not wait for that. wait: nothing is shown before
        the end.
        """
        visible = self.output is None and self.single and not wait
        with interruptible([signal.SIGINT]) as interrupted:
            if visible:
                yield (lambda n: None), interrupted.is_set
                return
            with shown("writing", tokens, say) as advance:
                yield advance, interrupted.is_set

    def pieces(self, new: Sequence[str]) -> None:
        """What each sample's newest token made certain."""
        if self.single:
            self._put(new[0])

    def finish(self, samples: Sequence[Sample], seconds: float) -> None:
        """What is left of each sample; all of it where it was not shown before."""
        rest = [one.close() for one in samples]
        new = sum(len(one.tokens) - one.before for one in samples)
        if self.single:
            ended = self.go_on and self.output is not None
            self._put(rest[0] + ("" if ended else "\n"))
        for number, one in enumerate(samples, 1):
            if self.as_json:
                self._put(json.dumps(self._described(number, one, seconds), ensure_ascii=False) + "\n")
            elif not self.single:
                self._put(f"=== {number} ===\n{self.prompt if self.echo else ''}{one.text}\n")
        say(f"{new:,} tokens, {new / max(seconds, 1e-9):,.0f} tokens/s")

    def _described(self, number: int, one: Sample, seconds: float) -> dict[str, Any]:
        new = one.tokens[one.before :]
        return {
            "sample": number, "prompt": self.prompt, "text": one.text, "tokens": new,
            "logprobs": one.logprobs, "ranks": one.ranks, "finish_reason": one.finish_reason, "seed": one.seed,
            "seconds": round(seconds, 4), "tokens_per_second": round(len(new) / max(seconds, 1e-9), 1),
            **(one.describe(one) if one.describe is not None else {}),
        }  # fmt: skip

    def _put(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()
