"""`reformer generate`: text after a prompt, shown as it is made."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from reformer_cli.commands.shared import (
    DeviceOption,
    RunOption,
    free_memory,
    load_model,
    option_faults,
    pick_device,
    read_text,
    say,
)
from reformer_cli.errors import UserError
from reformer_cli.files import as_size
from reformer_cli.sampling.config import SamplingConfig, help_of

if TYPE_CHECKING:
    from reformer import ReformerConfig, ReformerLM

    from reformer_cli.tokenization.tokenizer import Tokenizer

D = SamplingConfig()


def generate(
    prompt_: Annotated[
        str | None, typer.Argument(metavar="[-]", help="`-` reads the prompt from standard input.")
    ] = None,
    run: RunOption = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Text to go on from; none: a text of its own.")] = None,
    prompt_file: Annotated[str | None, typer.Option(metavar="FILE", help="Read the prompt from a UTF-8 file.")] = None,
    max_tokens: Annotated[int, typer.Option(help=help_of("max_tokens"))] = D.max_tokens,
    temperature: Annotated[float, typer.Option(help=help_of("temperature"))] = D.temperature,
    top_k: Annotated[int, typer.Option(help=help_of("top_k"))] = D.top_k,
    top_p: Annotated[float, typer.Option(help=help_of("top_p"))] = D.top_p,
    min_p: Annotated[float, typer.Option(help=help_of("min_p"))] = D.min_p,
    repetition_penalty: Annotated[float, typer.Option(help=help_of("repetition_penalty"))] = D.repetition_penalty,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Stop before this text appears; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help=help_of("seed"))] = D.seed,
    samples: Annotated[int, typer.Option(help=help_of("samples"))] = D.samples,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the text to a file, which grows as it is made.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Go on from a prompt. Text goes to standard output as it is made, everything else to standard error."""
    from pydantic import ValidationError

    try:
        config = SamplingConfig(
            max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, seed=seed, samples=samples,
        )  # fmt: skip
    except ValidationError as error:
        raise option_faults(error) from None
    text = _prompt(prompt_, prompt, prompt_file)
    from reformer_cli.runs import Run

    opened = Run.open(run)
    tokenizer = opened.tokenizer()
    ids = [tokenizer.end, *tokenizer.encode(text).tolist()]
    check_length(len(ids) + max_tokens, len(ids), opened.config.model.max_length)
    where = pick_device(device)
    check_memory(opened.config.model, len(ids) + max_tokens, samples, free_memory(where))
    model = load_model(opened, where)
    with _open(output) as file:
        _write(model, tokenizer, ids, text, config, stop or [], file)


def check_length(total: int, prompt: int, limit: int | None) -> None:
    """Refuse what the model's positions cannot number, before any work."""
    if limit is not None and total > limit:
        raise UserError(
            f"a prompt of {prompt:,} tokens and {total - prompt:,} new ones exceed the model's {limit:,} positions",
            "shorten the prompt, lower --max-tokens, or train with positions: rotary",
        )


def check_memory(config: ReformerConfig, tokens: int, samples: int, free: int) -> None:
    """Refuse a text whose decoding state would not fit: that of `full` layers grows with the text."""
    from reformer.state import largest_state

    if (needed := largest_state(config, tokens, samples)) > free:
        raise UserError(
            f"a text of {tokens:,} tokens needs {as_size(needed)} for {samples} samples, {as_size(free)} are free",
            "shorten the prompt, or lower --max-tokens or --samples",
        )


def _prompt(dash: str | None, text: str | None, file: str | None) -> str:
    given = [name for name, value in (("-", dash), ("--prompt", text), ("--prompt-file", file)) if value is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other", "give the prompt once")
    if dash is not None and dash != "-":
        raise UserError(f"unexpected argument {dash!r}", f"did you mean --prompt {dash!r}?")
    if text is not None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError("the prompt is not UTF-8", "use --prompt-file with a UTF-8 file") from None
        return text
    return read_text(dash or file or "") if dash or file else ""


@contextlib.contextmanager
def _open(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        file = open(output, "w", encoding="utf-8")  # noqa: SIM115  (closed below; only opening it is the user's mistake)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from None
    with file:
        yield file


def _write(
    model: ReformerLM,
    tokenizer: Tokenizer,
    ids: list[int],
    text: str,
    config: SamplingConfig,
    stops: list[str],
    out: TextIO,
) -> None:
    from reformer_cli.sampling.text import TextStream

    streams = [TextStream(tokenizer.stream(), stops) for _ in range(config.samples)]
    made: list[list[str]] = [[] for _ in streams]
    single = config.samples == 1
    if single:
        _put(out, text)
    n, began = 0, time.monotonic()
    try:
        for tokens in _tokens(model, ids, config, tokenizer.end):
            n += 1
            for stream, parts, token in zip(streams, made, tokens, strict=True):
                if token is not None and not stream.ended:
                    parts.append(stream.push(token))
                    if single:
                        _put(out, parts[-1])
            if all(stream.ended for stream in streams):
                break
    finally:  # at Ctrl-C too, what there is is kept
        for stream, parts in zip(streams, made, strict=True):
            parts.append(stream.finish())
        if single:
            _put(out, made[0][-1] + "\n")
        else:
            for number, parts in enumerate(made, 1):
                _put(out, f"=== {number} ===\n{text}{''.join(parts)}\n")
    seconds = max(time.monotonic() - began, 1e-9)
    say(f"{n * config.samples:,} tokens, {n * config.samples / seconds:,.0f} tokens/s")


def _tokens(model: ReformerLM, ids: list[int], config: SamplingConfig, end: int) -> Iterator[list[int | None]]:
    from reformer_cli.sampling.engine import PREFILL_AT_ONCE, generate

    def on_prefill(done: int, total: int) -> None:
        if total > PREFILL_AT_ONCE:
            say(f"reading the prompt: {done:,} of {total:,} tokens")

    return generate(model, ids, config, end=end, on_prefill=on_prefill)


def _put(out: TextIO, text: str) -> None:
    out.write(text)
    out.flush()
