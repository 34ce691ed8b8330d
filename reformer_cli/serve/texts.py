"""A text that is being made for somebody: what was asked for, where it stands, and what it tells its reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import torch
from reformer import DecodingState
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import Sample, new_samples
from reformer_cli.sampling.history import History, TextBias
from reformer_cli.sampling.repeats import LONGEST, WINDOW
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.sampling.word_rules import WordRule
from reformer_cli.serve.library import Loaded
from reformer_cli.serve.prefixes import PIECE, SLICE, Begun, cuts, digests
from reformer_cli.tokenizers.base import REMEMBERED, Prompt
from reformer_cli.utils.errors import UserError

ASIDE = threading.Lock()  # rules are made one after another: a second text finds what the first has made
AROUND = 64  # tokens that may come beside those of a prompt and those that are made: of a word's spellings


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
        self.leader: Text | None = None  # that reads the same prompt
        self.followers: list[Text] = []
        self.copies: list[tuple[DecodingState, History]] = []  # for these
        self.begun: Begun | None = None
        self.has_read = self.has_left = False

    @property
    def lives(self) -> bool:
        """Whether more of it may come."""
        return not (self.cancelled or self.has_left)

    def leave(self) -> None:
        """No more comes: what others can use of it is given back."""
        self.has_left, self.copies = True, []
        begun, self.begun = self.begun, None
        if self.ask.session is not None:  # which has the state from now on
            while begun is not None and begun.marks:
                begun.marks.pop()
                begun.state.unmark()
            return
        if (
            self.loaded is not None
        ):  # its reader and it know each other: what is as large as a state does not wait for gc
            self.sampler.state = None
        if begun is not None and begun.marks and self.loaded is not None:
            self.loaded.prefixes.give(begun, begun.state.position - begun.marks[-1][0])

    def cancel(self) -> None:
        """It is not wanted any more."""
        self.cancelled = True

    def _rules(self, loaded: Loaded) -> Generator[bool, None, Sequence[WordRule]]:
        """Those for words, made aside: to index a training text takes seconds."""
        known = Future[Sequence[WordRule]]()

        def make() -> None:
            try:
                with ASIDE:
                    known.set_result(loaded.rules(loaded.run, self.ask.config))
            except Exception as error:
                known.set_exception(error)

        if self.ask.config.lexicon == "any" and self.ask.config.max_copy is None:
            return ()
        threading.Thread(target=make, name="rules", daemon=True).start()
        wait([known], timeout=0.005)  # mostly they are known, and a turn of the engine would be longer
        while not known.done():
            yield True
        return known.result()

    def prepare(self, loaded: Loaded, rules: Sequence[WordRule] = ()) -> Prompt:
        """Tokenise the prompt, and be ready to read it."""
        config = self.ask.config
        bias = TextBias(self.ask.bias, loaded.tokenizer) if self.ask.bias else None
        self.sampler = Sampler(loaded.model, config, loaded.tokenizer.end, bias, loaded.tokenizer, rules)
        (self.sample,) = new_samples(loaded.tokenizer, config, self.ask.stop, self.ask.until)
        self.sample.seed = self.sampler.generators[0].initial_seed()
        if wrong := [token for token in self.ask.token_bias if token >= loaded.tokenizer.vocab_size]:
            raise UserError(f"logit_bias names token {wrong[0]}", f"this model has {loaded.tokenizer.vocab_size:,}")
        later = self._goes_on is not None and self._goes_on(self)
        if self.ask.token_bias:
            added = torch.zeros(loaded.tokenizer.vocab_size, device=self.sampler.pending.device)
            added[list(self.ask.token_bias)] = added.new_tensor(list(self.ask.token_bias.values()))
            self.sampler.histories[0].added = added
        prompt = self.ask.prompt(loaded, not later)
        self.loaded, self.ids = loaded, [*([] if later else [loaded.tokenizer.end]), *prompt.ids]
        return prompt

    def reading(self, loaded: Loaded) -> Generator[bool, None, None]:
        """Read the prompt, all but its last token, a slice at a time. Gives True where there was only to wait."""
        prompt = self.prepare(loaded, (yield from self._rules(loaded)))
        sampler = self.sampler
        if sampler.state is not None:  # a session
            yield from self._reading_on(prompt)
            return
        yield from self._begun_by_leader()
        if self.begun is None:
            at, self.begun = loaded.prefixes.take(self.ids[:-1])
            keys, room = digests(self.ids[:-1]), self.ask.config.max_tokens + AROUND
            ends = {(len(self.ids) - 1) // n * n for n in (SLICE, PIECE)}  # of the last slice and the last piece
            yield False
            for start, stop in cuts(len(self.ids) - 1, at):
                with torch.inference_mode():
                    part = torch.tensor([self.ids[start:stop]], device=sampler.pending.device)
                    loaded.model.extend(part, self.begun.state, last_only=True)
                if stop in ends:
                    loaded.prefixes.mark(self.begun, stop, keys[stop], len(self.ids) - stop + room)
                yield False
            # A filter looks back no further than this; reading a book's tokens into a history would take a second.
            needs_all = self.ask.config.no_repeat_ngram_size or self.ask.session is not None  # which is saved
            known = self.ids if needs_all else self.ids[-self._looks_back() :]
            sampler.histories[0].extend(known)
            followers = [one for one in self.followers if one.lives]
            self.copies = [(self.begun.state.clone(), sampler.histories[0].copy()) for _ in followers]
        self.has_read = True
        sampler.state, sampler.pending = self.begun.state, sampler.pending.new_tensor([self.ids[-1:]])
        self.before = len(self.ids) - len(sampler.histories[0].tokens)
        if prompt.spelt:
            sampler.spell(prompt.spelt)
        self.sample.follow(prompt, [*self.ids[: max(0, self.before)], *sampler.histories[0].tokens])

    def _begun_by_leader(self) -> Generator[bool, None, None]:
        """Wait while another text reads the same prompt, and take a copy of what it has."""
        leader = self.leader
        while leader is not None and leader.lives and not leader.has_read:
            yield True
        if leader is not None and leader.copies:
            state, self.sampler.histories[0] = leader.copies.pop()
            self.begun = Begun(state, [])

    def _reading_on(self, prompt: Prompt) -> Generator[bool, None, None]:
        """Read what a session is given beside what it has, all but the last token."""
        for start, stop in cuts(len(self.ids)):
            self.sampler.read(self.ids[start:stop])
            yield False
        if prompt.spelt:
            self.sampler.spell(prompt.spelt)
        self.sample.follow(prompt, self.sampler.histories[0].tokens)

    def _looks_back(self) -> int:
        return max(self.ask.config.repetition_window, WINDOW + LONGEST, REMEMBERED)

    def push(self, token: int, logprob: float, row: Tensor) -> None:
        """This token was drawn by these logits."""
        self.made += 1
        self.first = self.first or time.monotonic()
        top: list[tuple[int, float]] = []
        if self.ask.logprobs:
            best = row.log_softmax(-1).topk(self.ask.logprobs)
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
