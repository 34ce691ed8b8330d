"""What is asked for beside how tokens are drawn, and where the text goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import Describe, Sample
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import check_free

By = Literal["likelihood", "novelty"]


class Sink(Protocol):
    """Where text goes."""

    def begin(self, append: bool, prompt: str) -> None:
        """Text comes now, before or after what is there; the prompt, as the model was shown it, comes first."""

    def writing(
        self, tokens: int, wait: bool = False
    ) -> AbstractContextManager[tuple[Callable[[int], None], Callable[[], bool]]]:
        """Text is made (wait: nothing is shown before the end); to be told of tokens done, and says whether to stop."""

    def pieces(self, new: Sequence[str]) -> None:
        """What each sample's newest token made certain."""

    def finish(self, samples: Sequence[Sample], seconds: float) -> None:
        """No more comes."""


@dataclass(frozen=True)
class Request:
    """What is asked for beside SamplingConfig. session: a file to go on from and to keep; output: the file that the
    sink writes to, which must not hold what somebody else has put there. candidates: of so many texts the best is kept,
    by a measure; 0: all that config asks for; after: a text that goes on where the new one ends; context: files that
    are read before the prompt; explain: tell what each token's hashed heads have read."""

    prompt: str = ""
    stop: Sequence[str] = ()
    logit_bias: Sequence[tuple[str, float]] = ()
    session: Path | None = None
    far_buckets: int | None = None
    output: Path | None = None
    overwrite: bool = False
    as_typed: bool = False
    until: Sequence[str] = ()
    novelty: bool = False
    against: Sequence[str] = ()
    candidates: int = 0
    by: By = "likelihood"
    after: str | None = None
    context: Sequence[str] = ()
    explain: bool = False
    describe: Describe | None = None  # see Sample

    @property
    def goes_on(self) -> bool:
        return self.session is not None and self.session.exists()

    def check(self, config: SamplingConfig) -> None:
        """Raises UserError for options that exclude each other, and for a file that would be lost."""
        if config.num_beams > 1 and config.num_samples > config.num_beams:
            numbers = f"--num-samples {config.num_samples} exceeds --num-beams {config.num_beams}"
            raise UserError(numbers, "the search keeps no more texts")
        if config.num_beams > 1 and (idle := config.idle_in_a_search):
            raise UserError(
                f"--num-beams searches and draws nothing: {', '.join(idle)} would do nothing", "leave it out"
            )
        self._check_choice(config)
        if config.num_beams > 1 and self.session is not None:
            raise UserError("--session and --num-beams exclude each other", "a session goes on from a drawn text")
        if self.against and not self.novelty and config.max_copy is None:
            raise UserError("--against is what --novelty and --max-copy compare with", "add one of them")
        if self.output is None:
            return
        if self.session is not None and self.output.resolve() == self.session.resolve():
            raise UserError(f"--output and --session are both {self.output}", "give them different names")
        if not self.goes_on:
            check_free(self.output, self.overwrite)

    def _check_choice(self, config: SamplingConfig) -> None:
        """Of candidates, and of what is read before."""
        option = "--infill" if self.after is not None else "--candidates" if self.candidates else ""
        others = {"--num-samples": config.num_samples > 1, "--num-beams": config.num_beams > 1}
        others |= {"--session": self.session is not None}
        if option and (wrong := [name for name, given in others.items() if given]):
            raise UserError(
                f"{option} keeps one text of several: {wrong[0]} does not go with it", "leave one of them out"
            )
        if self.after is not None and not (self.after.strip() and self.prompt.strip()):
            raise UserError("--infill needs a text before and one after", "--prompt goes on from a text alone")
        if self.context and (config.num_beams > 1 or self.goes_on):
            what = f"the session {self.session} has begun" if self.goes_on else "--num-beams reads a prompt alone"
            raise UserError(f"--context is read before a new text: {what}", "leave --context out")
