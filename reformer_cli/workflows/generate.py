"""Text after a prompt: what can be refused is refused before any work, and what is made goes to a sink meanwhile."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from reformer import ReformerConfig, ReformerLM
from reformer.rehash import far_config

from reformer_cli.novelty.index import TextIndex
from reformer_cli.runs.run import Run
from reformer_cli.sampling.beam_search import search
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import Describe, Sample, new_samples, stream_samples
from reformer_cli.sampling.history import TextBias
from reformer_cli.sampling.presets import PRESETS
from reformer_cli.sampling.prompt import prepared
from reformer_cli.sampling.sampler import Sampler, fresh_seed
from reformer_cli.sampling.session import load, save
from reformer_cli.tokenizers.base import Prompt, Tokenizer, is_foreign
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import backend_reason, pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import check_free
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.novelty import compared, index_of
from reformer_cli.workflows.open_model import check_length, check_memory, decoding_note, refused, rehashed
from reformer_cli.workflows.words import rules_of

LONG = 4096  # tokens of a prompt from which its reading is shown


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


@contextmanager
def reading(tokens: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a long prompt is read."""
    if tokens < LONG:
        yield lambda n: None
        return
    with shown("reading the prompt", tokens, say) as advance:
        yield advance


@dataclass(frozen=True)
class Request:
    """What is asked for beside SamplingConfig. session: a file to go on from and to keep; output: the file that the
    sink writes to, which must not hold what somebody else has put there."""

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


def generate(run: Run, config: SamplingConfig, request: Request, sink: Sink, device: str = "auto") -> list[Sample]:
    """Go on from a prompt as the request asks. Raises UserError for what cannot be, KeyboardInterrupt when the sink
    asked to stop, after what there is has been written and kept."""
    request.check(config)
    model_config, tokenizer = run.config.model, run.tokenizer()
    text, prompt = prepared(tokenizer, request.prompt, first=not request.goes_on, as_typed=request.as_typed)
    request = dataclasses.replace(request, prompt=text)
    if is_foreign(tokenizer, request.prompt):
        say("note: the model's vocabulary does not know the script of the prompt, and spells its characters out")
    length = 1 + len(tokenizer.encode(request.prompt))
    check_room(model_config, length, config.max_tokens)
    where = pick_device(device)
    hashed = model_config
    if request.far_buckets is not None:
        with refused("--far-buckets"):
            hashed = far_config(model_config, request.far_buckets)
    check_memory(hashed, length + config.max_tokens, max(config.num_samples, config.num_beams), where)
    backend_reason(model_config, where)
    model = rehashed(run.load_model(where), None, request.far_buckets)
    if note := decoding_note(model_config):
        say(note)
    index = index_of(run, request.against) if request.novelty else None
    if index is not None:
        request = dataclasses.replace(request, describe=partial(_novelty, index))
    rules = rules_of(run, config, request.against) if config.num_beams == 1 else []
    config = _introduced(run, config, request)
    bias = TextBias(request.logit_bias, tokenizer) if request.logit_bias else None
    if config.num_beams > 1:
        samples = _search(model, tokenizer, prompt, config, bias, request, sink)
    else:
        sampler = Sampler(model, config, tokenizer.end, bias, tokenizer, rules)
        samples = _draw(sampler, tokenizer, prompt, request, sink)
    for n, one in enumerate(samples, 1):
        if index is not None:
            say(compared(index, one.text, f"sample {n}").line())
    return samples


def _novelty(index: TextIndex, one: Sample) -> dict[str, Any]:
    return {"novelty": compared(index, one.text, "the text").as_dict()}


def _fresh(tokenizer: Tokenizer, config: SamplingConfig, request: Request) -> list[Sample]:
    """As many texts as are asked for, of which nothing is made yet."""
    samples = new_samples(tokenizer, config, request.stop, request.until)
    for one in samples:
        one.describe = request.describe
    return samples


def _introduced(run: Run, config: SamplingConfig, request: Request) -> SamplingConfig:
    """Say which run writes, by which numbers, and how to have the same text again; a seed is drawn if none is given."""
    if config.num_beams > 1 or request.goes_on:  # nothing is drawn, or it goes on by the session's own numbers
        say(f"writing with {run.summary()}")
        return config
    if config.preset != "plain":
        numbers = ", ".join(f"{name} {getattr(config, name)}" for name in PRESETS[config.preset])
        say(f"preset {config.preset}: {numbers}")
    if config.seed is None and config.temperature > 0:
        config = dataclasses.replace(config, seed=fresh_seed())
        say(f"writing with {run.summary()}; again the same: --seed {config.seed}")
    else:
        say(f"writing with {run.summary()}")
    return config


def check_room(config: ReformerConfig, prompt: int, new: int) -> None:
    """Refuse what the model's positions cannot number, before any work."""
    hint = "shorten the prompt, lower --max-tokens, or train with positions: rotary"
    check_length(config, prompt + new, f"a prompt of {prompt:,} tokens and {new:,} new ones", hint)


def _draw(sampler: Sampler, tokenizer: Tokenizer, prompt: Prompt, request: Request, sink: Sink) -> list[Sample]:
    """Draw texts; with a session, go on from it and keep it."""
    samples = _started(sampler, tokenizer, prompt, request, sink)
    for one, generator in zip(samples, sampler.generators, strict=True):
        one.seed = generator.initial_seed() if not request.goes_on else None
    began, pressed, stands = time.monotonic(), False, False
    try:
        with sink.writing(sampler.config.max_tokens) as (advance, stopped):
            for pieces in stream_samples(sampler, samples):
                sink.pieces(pieces)
                advance(1)
                if pressed := stopped():
                    break
            stands = True
    finally:  # at Ctrl-C too, what there is is kept
        for one in samples:
            if (pressed or not stands) and one.finish_reason is None:
                one.finish_reason = "interrupted"
        sink.finish(samples, time.monotonic() - began)
    if request.session is not None:  # not where a second Ctrl-C fell within a token: its state is of no use
        try:
            save(request.session, sampler, samples, request.output)
        except OSError as error:
            raise UserError(
                f"cannot write {request.session}: {error.strerror}", "the text itself was written"
            ) from None
    if pressed:
        raise KeyboardInterrupt
    return samples


def _started(sampler: Sampler, tokenizer: Tokenizer, prompt: Prompt, request: Request, sink: Sink) -> list[Sample]:
    """Samples that have read the prompt, or gone on from a session."""
    goes_on = request.goes_on
    samples = _fresh(tokenizer, sampler.config, request)
    if goes_on:
        assert request.session is not None
        written = load(request.session, sampler, samples)
        if request.output is not None and (written is None or request.output.resolve() != written):
            check_free(request.output, request.overwrite)
        whole = tokenizer.decode(np.array(sampler.histories[0].tokens, np.int32)) if request.prompt else ""
        if request.prompt and whole.lstrip().startswith(request.prompt.lstrip()):
            say("note: the session began with this prompt, and goes on from where it stands")
            request, prompt = dataclasses.replace(request, prompt=""), Prompt("", [])
        if request.prompt:
            samples = _fresh(tokenizer, sampler.config, request)
        elif all(one.finish_reason == "end" for one in samples):
            raise UserError(f"the text in {request.session} has ended", "give a --prompt that another begins with")
    new = prompt.ids if goes_on else [sampler.end, *prompt.ids]
    check_room(sampler.model.config, len(sampler.histories[0].tokens) + len(new), sampler.config.max_tokens)
    sink.begin(goes_on, request.prompt)
    if new or prompt.spelt:
        with reading(len(new)) as advance:
            sampler.read(new, advance, prompt.spelt)
        for one, history in zip(samples, sampler.histories, strict=True):
            one.follow(prompt, history.tokens)
    return samples


def _search(
    model: ReformerLM, tokenizer: Tokenizer, prompt: Prompt, config: SamplingConfig, bias: TextBias | None,
    request: Request, sink: Sink,
) -> list[Sample]:  # fmt: skip
    """Look for the likeliest texts."""
    samples, began = _fresh(tokenizer, config, request), time.monotonic()
    known = [tokenizer.end, *prompt.ids]
    sink.begin(False, request.prompt)
    with reading(len(known)) as on_read, sink.writing(config.max_tokens, wait=True) as (on_token, _):
        found = search(
            model, known, config, end=tokenizer.end, bias=bias, tokenizer=tokenizer, spelt=prompt.spelt,
            on_read=on_read, on_token=on_token,
        )  # fmt: skip
    for one, best in zip(samples, found, strict=False):
        one.follow(prompt, [*known, *best.spelt])
        for token, logprob in zip(best.tokens, best.logprobs, strict=True):
            one.push(token, logprob, tokenizer.end)
    samples = samples[: len(found)]
    sink.pieces([one.text for one in samples])
    sink.finish(samples, time.monotonic() - began)
    return samples
