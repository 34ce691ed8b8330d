"""A text that is being made for somebody: what was asked for, where it stands, and what it tells its reader."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import Sample, new_samples
from reformer_cli.sampling.history import TextBias
from reformer_cli.sampling.repeats import LONGEST, WINDOW
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.serve.library import Loaded
from reformer_cli.serve.prefixes import PIECE, SLICE, cuts
from reformer_cli.tokenizers.base import REMEMBERED, Prompt


@dataclass(frozen=True)
class Event:
    """What one more token made certain. text: what can be shown; token, logprob, top: the token, and the likeliest ones
    with theirs, where a token was drawn; finish_reason: why no more comes; error: what went wrong instead."""

    text: str = ""
    token: int | None = None
    logprob: float = 0.0
    top: Sequence[tuple[int, float]] = ()
    finish_reason: str | None = None
    error: Exception | None = None


@dataclass
class Ask:
    """What is wanted of a run (its name). prompt: what gives the prompt's tokens, of the model and of whether nothing
    comes before; config.num_samples is 1. token_bias: token -> what is added to its logit; logprobs: how many of the
    likeliest tokens are told; session: a name under which it goes on (sessions.py)."""

    run: str
    prompt: Callable[[Loaded, bool], Prompt]
    config: SamplingConfig
    stop: Sequence[str] = ()
    until: Sequence[str] = ()
    bias: Sequence[tuple[str, float]] = ()
    token_bias: dict[int, float] = field(default_factory=dict)
    logprobs: int = 0
    session: str | None = None


class Text:
    """One text. Its reader is told through `tell`, from the engine's thread; whoever does not want it any more says
    `cancel`, from any."""

    def __init__(self, ask: Ask, tell: Callable[[Event], None], goes_on: Callable[[Text], bool] | None = None) -> None:
        self.ask, self.tell, self._goes_on = ask, tell, goes_on
        self.cancelled = False
        self.began = time.monotonic()
        self.first: float | None = None  # when its first token came
        self.loaded: Loaded | None = None
        self.ids: list[int] = []
        self.sampler: Sampler
        self.sample: Sample
        self.made = 0

    def cancel(self) -> None:
        """It is not wanted any more."""
        self.cancelled = True

    def prepare(self, loaded: Loaded) -> Prompt:
        """Tokenise the prompt, and be ready to read it."""
        config = self.ask.config
        bias = TextBias(self.ask.bias, loaded.tokenizer) if self.ask.bias else None
        self.sampler = Sampler(loaded.model, config, loaded.tokenizer.end, bias, loaded.tokenizer)
        (self.sample,) = new_samples(loaded.tokenizer, config, self.ask.stop, self.ask.until)
        self.sample.seed = self.sampler.generators[0].initial_seed()
        later = self._goes_on is not None and self._goes_on(self)
        prompt = self.ask.prompt(loaded, not later)
        self.loaded, self.ids = loaded, [*([] if later else [loaded.tokenizer.end]), *prompt.ids]
        return prompt

    def reading(self, loaded: Loaded) -> Iterator[None]:
        """Read the prompt, all but its last token, a slice at a time."""
        prompt, sampler = self.prepare(loaded), self.sampler
        if sampler.state is not None:  # a session
            yield from self._reading_on(prompt)
            return
        at, state = loaded.prefixes.find(self.ids[:-1])
        yield
        state = state if state is not None else loaded.model.new_state(1)
        for start, stop in cuts(len(self.ids) - 1, at):
            with torch.inference_mode():
                loaded.model.extend(torch.tensor([self.ids[start:stop]]).to(sampler.pending.device), state, True)
            if stop == len(self.ids) - 1 >= PIECE or self._worth(stop):
                loaded.prefixes.keep(self.ids, stop, state)
            yield
        sampler.state, sampler.pending = state, sampler.pending.new_tensor([self.ids[-1:]])
        # A filter looks back no further than this; reading a book's tokens into a history would take a second.
        known = self.ids if self.ask.config.no_repeat_ngram_size else self.ids[-self._looks_back() :]
        sampler.histories[0].extend(known)
        if prompt.spelt:
            sampler.spell(prompt.spelt)
        self.sample.follow(prompt, [*self.ids, *sampler.histories[0].tokens[len(known) :]])

    def _reading_on(self, prompt: Prompt) -> Iterator[None]:
        """Read what a session is given beside what it has, all but the last token."""
        for start, stop in cuts(len(self.ids)):
            self.sampler.read(self.ids[start:stop])
            yield
        if prompt.spelt:
            self.sampler.spell(prompt.spelt)
        self.sample.follow(prompt, self.sampler.histories[0].tokens)

    def _looks_back(self) -> int:
        return max(self.ask.config.repetition_window, WINDOW + LONGEST, REMEMBERED)

    def _worth(self, at: int) -> bool:
        """Whether a state in the middle is kept: near the end, and each time half as often further from it."""
        left = -(-(len(self.ids) - 1 - at) // SLICE)
        return at % SLICE == 0 and left & (left - 1) == 0

    def biased(self, row: Tensor) -> Tensor:
        """Logits [1, vocab_size] as the text draws by them."""
        if self.ask.token_bias:
            row = row.clone()
            for token, value in self.ask.token_bias.items():
                row[0, token] += value
        return row

    def push(self, token: int, logprob: float, row: Tensor) -> None:
        """This token was drawn by these logits."""
        self.made += 1
        self.first = self.first or time.monotonic()
        top: list[tuple[int, float]] = []
        if self.ask.logprobs:
            best = row[0].log_softmax(-1).topk(self.ask.logprobs)
            top = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        text = self.sample.push(token, logprob, self.sampler.end)
        if self.made >= self.ask.config.max_tokens:
            self.sample.finish_reason = self.sample.finish_reason or "length"
        self.tell(Event(text, token, logprob, top))

    @property
    def ended(self) -> bool:
        return self.sample.finish_reason is not None

    def close(self, reason: str | None = None) -> None:
        """No more comes; the rest of the text is told."""
        self.sample.finish_reason = self.sample.finish_reason or reason
        rest = self.sample.close()
        self.tell(Event(rest, finish_reason=self.sample.finish_reason))


def several(ask: Ask, n: int, seed: int) -> list[Ask]:
    """The same n times, each drawn by a seed of its own: that of the first, and one more each time."""
    return [dataclasses.replace(ask, config=dataclasses.replace(ask.config, seed=(seed + k) % 2**63)) for k in range(n)]
