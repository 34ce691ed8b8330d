"""Generated text as it is made: pieces of it, what is known of each when it is done. `generate` is the Python API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from reformer import ReformerLM

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.endings import Endings
from reformer_cli.sampling.history import TextBias
from reformer_cli.sampling.prompt import prepared
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.sampling.text_stream import TextStream
from reformer_cli.sampling.word_rules import WordRule
from reformer_cli.tokenizers.base import REMEMBERED, Prompt, Tokenizer

Describe = Callable[["Sample"], dict[str, Any]]


@dataclass
class Sample:
    """What one sample has so far. finish_reason: why there is no more: length, end (of the text) or stop (a string)."""

    stream: TextStream
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ranks: list[int] = field(
        default_factory=list
    )  # of each among all tokens, 1 the likeliest; as far as they are known
    parts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    before: int = 0  # tokens of an earlier session
    start: int = 0  # tokens of the whole text before it: a text that has ended is followed by what others still draw
    seed: int | None = None  # that draws it alone; None: nothing was drawn, or it goes on with an earlier session
    describe: Describe | None = None  # what else is told of it when it is done

    @property
    def text(self) -> str:
        """All of it that may be shown."""
        return "".join(self.parts)

    def follow(self, prompt: Prompt, tokens: Sequence[int]) -> None:
        """Begin after these tokens, which write all of a prompt's text or leave its end to what is drawn."""
        written, end = "".join(map(self.stream.decoder.push, tokens[-REMEMBERED:])), prompt.text[-REMEMBERED // 10 :]
        left = (n for n in range(len(end) + 1) if written.endswith(end[: len(end) - n]))
        self.stream.skip(next(left, 0) if prompt.spelt else 0)
        self.start = len(tokens)

    def push(self, token: int, logprob: float, end: int, rank: int | None = None) -> str:
        """One more token was drawn; the text that it makes certain."""
        if self.finish_reason is not None:
            return ""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.ranks += [rank] if rank is not None else []
        self.parts.append(self.stream.push(token))
        if token == end:
            self.finish_reason = "end"
        elif self.stream.ended:
            self.finish_reason = "stop"
        return self.parts[-1]

    def close(self) -> str:
        """No more tokens come; the rest of the text."""
        self.finish_reason = self.finish_reason or "length"
        self.parts.append(self.stream.finish())
        return self.parts[-1]

    def stand(self, before: Sequence[int], tokens: Sequence[int], shown: int, ended: bool) -> None:
        """Go on from an earlier session's tokens, of which so many characters were shown; before: of its prompt."""
        self.stream.decoder.follow(before)
        self.tokens, self.before, self.start = list(tokens), len(tokens), len(before)
        self.stream.resume(tokens, shown)
        self.finish_reason = "end" if ended else None


def new_samples(
    tokenizer: Tokenizer, config: SamplingConfig, stop: Sequence[str] = (), until: Sequence[str] = ()
) -> list[Sample]:
    """As many as config asks for, of which nothing is made yet."""
    return [
        Sample(TextStream(tokenizer.stream(), stop, Endings(config.stop_at, config.max_words, until)))
        for _ in range(config.num_samples)
    ]


def stream_samples(texts: Sampler, made: Sequence[Sample]) -> Iterator[list[str]]:
    """Up to config.max_tokens more tokens of each text: after each, the new pieces of text, which may be empty."""
    for _ in range(texts.config.max_tokens):
        if all(one.finish_reason is not None for one in made):
            return
        drawn = texts.draw()
        each = zip(made, drawn.tokens, drawn.logprobs, drawn.ranks, strict=True)
        yield [one.push(token, logprob, texts.end, rank) for one, token, logprob, rank in each]


def begin(
    model: ReformerLM, tokenizer: Tokenizer, prompt: str, config: SamplingConfig, stop: Sequence[str] = (),
    bias: Sequence[tuple[str, float]] = (), as_typed: bool = False, rules: Sequence[WordRule] = (),
) -> tuple[Sampler, list[Sample]]:  # fmt: skip
    """config.num_samples samples that have read a prompt. stop: texts to stop before; bias: pairs of a text and what is
    added to the logits of tokens that complete it; as_typed: see `prepared`; rules: for words. Raises
    ValueError for beams."""
    if config.num_beams != 1:
        raise ValueError("beams are searched by reformer_cli.sampling.beam_search")
    biased = TextBias(bias, tokenizer) if bias else None
    sampler = Sampler(model, config, tokenizer.end, biased, tokenizer, rules)
    _, known = prepared(tokenizer, prompt, as_typed=as_typed)
    sampler.read([tokenizer.end, *known.ids], spelt=known.spelt)
    samples = new_samples(tokenizer, config, stop)
    for one, history, generator in zip(samples, sampler.histories, sampler.generators, strict=True):
        one.follow(known, history.tokens)
        one.seed = generator.initial_seed()
    return sampler, samples


def generate(
    model: ReformerLM, tokenizer: Tokenizer, prompt: str = "", *, stop: Sequence[str] = (),
    bias: Sequence[tuple[str, float]] = (), as_typed: bool = False, rules: Sequence[WordRule] = (), **settings: Any,
) -> Iterator[str]:  # fmt: skip
    """Pieces of a continuation of `prompt`, as soon as each is certain; stop, bias, rules: see `begin`.

    settings: fields of SamplingConfig (max_tokens, temperature, seed, ...), for one sample. Raises pydantic's
    ValidationError for settings out of range.
    """
    config = SamplingConfig(**settings)
    if config.num_samples != 1:
        raise ValueError("a stream is of one text")
    sampler, (one,) = begin(model, tokenizer, prompt, config, stop, bias, as_typed, rules)
    for (piece,) in stream_samples(sampler, [one]):
        if piece:
            yield piece
    if rest := one.close():
        yield rest
