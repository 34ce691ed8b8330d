"""Text after a prompt: what can be refused is refused before any work, and what is made goes to a sink meanwhile."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from reformer import ReformerConfig, ReformerLM
from reformer.rehash import far_config

from reformer_cli.novelty.index import TextIndex
from reformer_cli.runs.run import Run
from reformer_cli.sampling.beam_search import search
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.generate import Sample, new_samples, stream_samples
from reformer_cli.sampling.history import TextBias
from reformer_cli.sampling.presets import PRESETS
from reformer_cli.sampling.prompt import prepared
from reformer_cli.sampling.sampler import Sampler, fresh_seed
from reformer_cli.sampling.session import load, save
from reformer_cli.tokenizers.base import Prompt, Tokenizer, is_foreign
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import backend_reason, keep_freed_memory, pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import check_free
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.candidates import MIDDLES, Between, KeepsBest, likelihood, newness
from reformer_cli.workflows.explain import explained
from reformer_cli.workflows.novelty import compared, index_of
from reformer_cli.workflows.open_model import check_length, check_memory, decoding_note, refused, rehashed
from reformer_cli.workflows.read_context import context_ids, read_context
from reformer_cli.workflows.request import Request, Sink
from reformer_cli.workflows.words import rules_of

LONG = 4096  # tokens of a prompt from which its reading is shown


@contextmanager
def reading(tokens: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a long prompt is read."""
    if tokens < LONG:
        yield lambda n: None
        return
    with shown("reading the prompt", tokens, say) as advance:
        yield advance


def generate(run: Run, config: SamplingConfig, request: Request, sink: Sink, device: str = "auto") -> list[Sample]:
    """Go on from a prompt as the request asks. Raises UserError for what cannot be, KeyboardInterrupt when the sink
    asked to stop, after what there is has been written and kept."""
    request.check(config)
    model_config, tokenizer = run.config.model, run.tokenizer()
    before = context_ids(tokenizer, request.context, run.config.data.unwrap == "join")
    first = not request.goes_on and not before
    text, prompt = prepared(tokenizer, request.prompt, first=first, as_typed=request.as_typed)
    if request.candidates or request.after is not None:
        config = dataclasses.replace(config, num_samples=request.candidates or MIDDLES)
    request = dataclasses.replace(request, prompt=text)
    if is_foreign(tokenizer, request.prompt):
        say("note: the model's vocabulary does not know the script of the prompt, and spells its characters out")
    length = 1 + len(before) + len(tokenizer.encode(request.prompt))
    check_room(model_config, length, config.max_tokens)
    keep_freed_memory()
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
    index = index_of(run, request.against) if request.novelty or request.by == "novelty" else None
    if index is not None and request.novelty:
        request = dataclasses.replace(request, describe=partial(_novelty, index))
    rules = rules_of(run, config, request.against) if config.num_beams == 1 else []
    config = _introduced(run, config, request)
    bias = TextBias(request.logit_bias, tokenizer) if request.logit_bias else None
    if config.num_beams > 1:
        samples = _search(model, tokenizer, prompt, config, bias, request, sink)
    else:
        sampler = Sampler(model, config, tokenizer.end, bias, tokenizer, rules)
        keeps = _keeping(sampler, request, index, sink)
        samples = _draw(sampler, tokenizer, prompt, before, request, keeps or sink)
        samples = keeps.kept if keeps is not None else samples
    for n, one in enumerate(samples, 1):
        if index is not None and request.novelty:
            say(compared(index, one.text, f"sample {n}").line())
    return samples


def _keeping(sampler: Sampler, request: Request, index: TextIndex | None, sink: Sink) -> KeepsBest | None:
    """What chooses among candidates; None: all texts are shown."""
    if request.after is not None:
        assert sampler.tokenizer is not None
        judge = Between(sampler.model, sampler.tokenizer, request.prompt, request.after)
        return KeepsBest(sink, judge, "nats/token of the text after, log-probability")
    if not request.candidates:
        return None
    if request.by == "novelty" and index is not None:
        return KeepsBest(sink, newness(index), "of the words in no copy of five words")
    return KeepsBest(sink, likelihood, "nats/token, log-probability")


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


def _draw(
    sampler: Sampler, tokenizer: Tokenizer, prompt: Prompt, before: Sequence[int], request: Request, sink: Sink
) -> list[Sample]:
    """Draw texts, after tokens of other texts; with a session, go on from it and keep it."""
    samples = _started(sampler, tokenizer, prompt, before, request, sink)
    if request.explain:
        for row, one in enumerate(samples):
            one.describe = partial(explained, sampler, row, one.describe)
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


def _started(
    sampler: Sampler, tokenizer: Tokenizer, prompt: Prompt, before: Sequence[int], request: Request, sink: Sink
) -> list[Sample]:
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
    if before:
        read_context(sampler, tokenizer, before)
    new = prompt.ids if goes_on or before else [sampler.end, *prompt.ids]
    check_room(sampler.model.config, len(sampler.histories[0].tokens) + len(new), sampler.config.max_tokens)
    sink.begin(goes_on, request.prompt)
    if new or prompt.spelt or before:
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
