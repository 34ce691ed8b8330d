"""Token after token from a model's state: the prompt is read once, and each new token costs the same."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from reformer import DecodingState, ReformerLM
from reformer.sampling import pick
from torch import Tensor

from reformer_cli.sampling.characters import characters_of
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.drawing import draw_rows
from reformer_cli.sampling.filters import random_numbers
from reformer_cli.sampling.history import History, TextBias
from reformer_cli.sampling.repeats import Repeats, breakers
from reformer_cli.sampling.word_rules import WordRule, WordWatch
from reformer_cli.tokenizers.base import Spelling, Tokenizer

PREFILL_AT_ONCE = 4096  # prompt tokens read at a time on a CPU


@dataclass
class NextTokens:
    """One more token of every text. logprobs: nats, by the model itself, before temperature and filters; ranks: 1 is
    the likeliest, empty where nobody counted."""

    tokens: list[int]
    logprobs: list[float]
    ranks: list[int] = field(default_factory=list)


@dataclass
class Sampler:
    """Several texts being made, as many as config.num_samples: where the model is, and what it is about to be told.

    tokenizer: of texts; None: tokens are drawn whatever they spell. rules: for their words. pending: int64
    [samples, n], tokens of the texts that the model has not read yet. generators: of sample k that of seed + k, so that
    it is the same text alone.
    """

    model: ReformerLM
    config: SamplingConfig
    end: int
    bias: TextBias | None = None
    tokenizer: Tokenizer | None = None
    rules: Sequence[WordRule] = ()
    state: DecodingState | None = None
    pending: Tensor = field(init=False)
    histories: list[History] = field(init=False)
    generators: list[torch.Generator] = field(init=False)

    def __post_init__(self) -> None:
        c, device = self.config, self.model.embedding.device
        self.pending = torch.empty(c.num_samples, 0, dtype=torch.int64, device=device)
        known = characters_of(self.tokenizer) if self.tokenizer is not None else None
        dry = self.tokenizer is not None and "dry" in c.switched_on
        repeats = Repeats(breakers(self.tokenizer, c.breakers), c.dry_allowed_length) if dry else None
        words = WordWatch(self.tokenizer, self.rules) if self.tokenizer is not None and self.rules else None
        one = History(
            ngram=c.no_repeat_ngram_size, end=self.end, bias=self.bias, repeats=repeats, characters=known, words=words
        )
        self.histories = [one.copy() for _ in range(c.num_samples)]
        first = c.seed if c.seed is not None else fresh_seed()
        self.generators = [torch.Generator(device).manual_seed((first + n) % 2**63) for n in range(c.num_samples)]

    def read(
        self, tokens: Sequence[int], on_read: Callable[[int], None] | None = None, spelt: Sequence[Spelling] = ()
    ) -> None:
        """The texts go on with these, the same for all, and then with one of the spellings. All tokens but the last are
        read; on_read(n) after each slice of n."""
        new = torch.as_tensor(list(tokens), dtype=torch.int64, device=self.pending.device)
        self.pending = torch.cat([self.pending, new.expand(self.config.num_samples, -1)], 1)
        for history in self.histories:
            history.extend(tokens)
        whole, self.pending = self.pending[:, :-1], self.pending[:, -1:]
        on_cpu, samples = whole.device.type == "cpu", len(whole)
        at_once = PREFILL_AT_ONCE if on_cpu else self.model.tokens_at_once(samples)
        for part in whole.split(at_once, 1) if whole.shape[1] else ():
            self._extend(part)
            if on_read is not None:
                on_read(part.shape[1])
        if spelt:
            self.spell(spelt)

    def spell(self, ways: Sequence[Spelling]) -> None:
        """Choose how each text spells the end of the prompt, as likely as each way is, and read that."""
        with torch.inference_mode():
            scores = self._scores(ways) if len(ways) > 1 else torch.zeros(1, 1)
        rows = scores.T.expand(self.config.num_samples, -1).float().cpu()
        drawn = pick(rows.softmax(1), random_numbers(self._aside())[:, 0])
        chosen = (rows.argmax(1) if self.config.temperature == 0 else drawn).tolist()
        known = [[int(before), *ways[n].tokens] for before, n in zip(self.pending[:, -1], chosen, strict=True)]
        counts = torch.tensor([len(row) - 1 for row in known], device=self.pending.device)
        if (longest := int(counts.max())) > 0:
            padded = torch.tensor([row[:-1] + [0] * (longest - len(row) + 1) for row in known])
            with torch.inference_mode():
                padded = padded.to(self.pending.device)
                _, self.state = self.model.extend(padded, self.state, last_only=True, counts=counts)
        self.pending = torch.tensor([row[-1:] for row in known], device=self.pending.device)
        for history, row, n in zip(self.histories, known, chosen, strict=True):
            history.extend(row[1:])
            history.after = ways[n].after

    def _scores(self, ways: Sequence[Spelling]) -> Tensor:
        """How likely each spelling is, of each text: nats, float [spellings, samples]. The state is left as it is."""
        if self.state is None:
            return torch.stack([self._score(way, self.model.new_state(len(self.pending))) for way in ways])
        found = []
        self.model.mark(self.state, max(len(way.tokens) for way in ways) + self.pending.shape[1])
        for way in ways:
            found.append(self._score(way, self.state))
            self.state.rewind()
        self.state.unmark()
        return torch.stack(found)

    def _score(self, way: Spelling, state: DecodingState) -> Tensor:
        known = torch.tensor(way.tokens, dtype=torch.int64, device=self.pending.device)
        tokens = torch.cat([self.pending, known.expand(self.config.num_samples, -1)], 1)
        logprob = self.model.extend(tokens, state)[0].float().log_softmax(-1)
        score = logprob[:, :-1].gather(2, tokens[:, 1:, None])[..., 0].sum(1)
        return score + logprob[:, -1, way.after].logsumexp(-1) if way.after else score

    def _aside(self) -> list[torch.Generator]:
        """Random numbers of each text for the end of its prompt, which leave those for what is drawn as they are."""
        return [torch.Generator().manual_seed(g.initial_seed()) for g in self.generators]

    def draw(self) -> NextTokens:
        """One more token of each. `read` must have been given at least one."""
        return self.take(self.logits())

    def take(self, logits: Tensor) -> NextTokens:
        """One more token of each, by the logits of them all."""
        (found,) = draw_each([self], logits)
        if isinstance(found, Exception):
            raise found
        with torch.inference_mode():
            found.ranks = (1 + (logits > logits.gather(1, self.pending)).sum(1)).tolist()
        return found

    def logits(self) -> Tensor:
        """Of the next token of each text, float [samples, vocab_size]."""
        return self._extend(self.pending)

    def branch(self, rows: list[int], tokens: list[int]) -> None:
        """Text n becomes what text rows[n] was, and goes on with tokens[n]."""
        device = self.pending.device
        assert self.state is not None
        if rows != list(range(self.state.batch)):  # copies what the state holds
            self.state = self.state.select(torch.tensor(rows, device=device))
        used = set[int]()
        histories = []
        for row in rows:
            histories.append(self.histories[row].copy() if row in used else self.histories[row])
            used.add(row)
        for history, token in zip(histories, tokens, strict=True):
            history.extend([token])
        self.histories, self.pending = histories, torch.tensor(tokens, device=device)[:, None]

    def _extend(self, tokens: Tensor) -> Tensor:
        """Logits after the last of these, float [samples, vocab_size]."""
        with torch.inference_mode():
            logits, self.state = self.model.extend(tokens, self.state, last_only=True)
            return logits[:, -1].float()


def draw_each(samplers: Sequence[Sampler], logits: Tensor) -> list[NextTokens | Exception]:
    """As `take` of each, by its rows of logits [texts of all, vocab_size], or what went wrong with it; no ranks."""
    configs = [one.config for one in samplers for _ in one.histories]
    histories = [history for one in samplers for history in one.histories]
    drawn = draw_rows(logits, configs, histories, [generator for one in samplers for generator in one.generators])
    tokens = torch.tensor([t if isinstance(t, int) else 0 for t in drawn], device=logits.device)[:, None]
    with torch.inference_mode():
        logprobs = logits.log_softmax(1).gather(1, tokens)[:, 0].tolist()
    found, at = list[NextTokens | Exception](), 0
    for one, pending in zip(samplers, tokens.split([len(one.histories) for one in samplers]), strict=True):
        mine = slice(at, at := at + len(pending))
        try:
            for token, history in zip(drawn[mine], one.histories, strict=True):
                if isinstance(token, Exception):
                    raise token
                history.extend([token], drawn=True)
            one.pending = pending
            found.append(NextTokens(pending[:, 0].tolist(), logprobs[mine]))
        except Exception as error:
            found.append(error)
    return found


def fresh_seed() -> int:
    """One that nobody has to remember, short enough to type."""
    return secrets.randbelow(2**31)
