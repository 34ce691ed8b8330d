"""`reformer generate`: text after a prompt, shown as it is made; or images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reformer_cli.commands.options import BucketsOption, DeviceOption, RunOption, load_model, option_faults
from reformer_cli.data.text_chunks import read_text
from reformer_cli.sampling.config import SamplingConfig, help_of
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import free_memory, pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import check_free
from reformer_cli.utils.format import as_size

if TYPE_CHECKING:
    from reformer import ReformerConfig, ReformerLM

    from reformer_cli.commands.output import Writer
    from reformer_cli.sampling.generate import Sample
    from reformer_cli.sampling.history import TextBias
    from reformer_cli.sampling.sampler import Sampler
    from reformer_cli.tokenizers.base import Tokenizer

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
    repetition_window: Annotated[int, typer.Option(help=help_of("repetition_window"))] = D.repetition_window,
    no_repeat_ngram_size: Annotated[
        int, typer.Option(metavar="N", help=help_of("no_repeat_ngram_size"))
    ] = D.no_repeat_ngram_size,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT=NUMBER",
            help="Add NUMBER to the score of tokens that would complete TEXT (-100: it never appears); repeatable.",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Stop before this text appears; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help=help_of("seed"))] = D.seed,
    num_samples: Annotated[int, typer.Option(help=help_of("num_samples"))] = D.num_samples,
    num_beams: Annotated[int, typer.Option(help=help_of("num_beams"))] = D.num_beams,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write to a file: text as it is made, or images, with a contact sheet."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --output where it is there already.")] = False,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", metavar="FILE", help="Of a run of images: the upper part of one, whose lower part is drawn."
        ),
    ] = None,
    keep_rows: Annotated[
        int | None,
        typer.Option(metavar="N", help="Take --image for a whole image, cropped as in training, and keep N rows."),
    ] = None,
    session: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep what is needed to go on in FILE; where it exists, go on from it as if never stopped.",
        ),
    ] = None,
    far_buckets: BucketsOption = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object a line and sample: text, tokens, log-probabilities, timing."),
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Go on from a prompt, or complete an image.

    Text goes to standard output as it is made, everything else to standard error.
    """
    from pydantic import ValidationError

    try:
        config = SamplingConfig(
            max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, repetition_window=repetition_window,
            no_repeat_ngram_size=no_repeat_ngram_size, seed=seed, num_samples=num_samples, num_beams=num_beams,
        )  # fmt: skip
    except ValidationError as error:
        raise option_faults(error) from None
    from reformer_cli.runs.run import Run

    opened = Run.open(run)
    if opened.config.data.image_size is not None:
        from reformer_cli.workflows.generate_images import check_options, draw

        texts = {
            "--prompt": prompt,
            "--prompt-file": prompt_file,
            "-": prompt_,
            "--logit-bias": logit_bias,
            "--stop": stop,
        }
        check_options(config, texts | {"--json": json, "--session": session, "--far-buckets": far_buckets})
        draw(opened, image, keep_rows, output, config, device, overwrite)
        return
    if image is not None or keep_rows is not None:
        raise UserError(f"{opened.path} was trained on text", "--image and --keep-rows are for runs of images")
    biases = _biases(logit_bias or [])
    _check_beams(config, session)
    text = _prompt(prompt_, prompt, prompt_file)
    if output is not None and session is not None and output.resolve() == session.resolve():
        raise UserError(f"--output and --session are both {output}", "give them different names")
    if output is not None and (session is None or not session.exists()):
        check_free(output, overwrite)
    from reformer_cli.commands.output import Writer

    tokenizer = opened.tokenizer()
    ids = tokenizer.prompt(text, first=session is None or not session.exists()).tolist()
    check_length(1 + len(ids) + max_tokens, 1 + len(ids), opened.config.model.max_length)
    where = pick_device(device)
    from reformer_cli.evaluation.rehash import far_buckets as far
    from reformer_cli.evaluation.rehash import with_buckets

    hashed = opened.config.model if far_buckets is None else far(opened.config.model, far_buckets)
    check_memory(hashed, 1 + len(ids) + max_tokens, max(num_samples, num_beams), free_memory(where))
    model = load_model(opened, where)
    if far_buckets is not None:
        model = with_buckets(model, far_buckets)
    say_rule(opened.config.model)
    from reformer_cli.sampling.history import TextBias

    by_text = TextBias(biases, tokenizer) if biases else None
    with Writer(output, json, text, stop or [], tokenizer, go_on=session is not None, overwrite=overwrite) as writer:
        if num_beams > 1:
            _search(model, tokenizer, ids, config, by_text, writer)
        else:
            _draw(model, tokenizer, ids, config, by_text, writer, session)


def check_length(total: int, prompt: int, limit: int | None) -> None:
    """Refuse what the model's positions cannot number, before any work."""
    if limit is not None and total > limit:
        raise UserError(
            f"a prompt of {prompt:,} tokens and {total - prompt:,} new ones exceed the model's {limit:,} positions",
            "shorten the prompt, lower --max-tokens, or train with positions: rotary",
        )


def check_memory(config: ReformerConfig, tokens: int, samples: int, free: int) -> None:
    """Refuse a text whose decoding state would not fit: that of `full` layers grows with the text."""
    from reformer.memory import largest_state

    if (needed := largest_state(config, tokens, samples)) > free:
        raise UserError(
            f"a text of {tokens:,} tokens needs {as_size(needed)} for {samples} samples, {as_size(free)} are free",
            "shorten the prompt, or lower --max-tokens, --num-samples or --num-beams",
        )


def say_rule(config: ReformerConfig) -> None:
    """Where decoding is not what was trained, that it is so."""
    if config.pattern == "published":
        say("pattern published: its chunks depend on later text, so it is decoded by the ring rule (docs/decoding.md)")


def _biases(given: list[str]) -> list[tuple[str, float]]:
    """TEXT=NUMBER; the text may contain `=` too. All faults at once."""
    found, faults = [], []
    for one in given:
        text, _, number = one.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not text or not abs(value) <= 1e4:
            faults.append(f"--logit-bias {one!r} is not TEXT=NUMBER with a number from -10000 to 10000")
        found.append((text, value))
    if faults:
        raise UserError("; ".join(faults), "for example --logit-bias 'cat=-100'")
    return found


def _check_beams(config: SamplingConfig, session: Path | None) -> None:
    if config.num_beams == 1:
        return
    if config.num_samples > config.num_beams:
        raise UserError(
            f"--num-samples {config.num_samples} exceeds --num-beams {config.num_beams}",
            "the search keeps no more texts",
        )
    if session is not None:
        raise UserError("--session and --num-beams exclude each other", "a session goes on from a text that was drawn")


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


def _draw(
    model: ReformerLM,
    tokenizer: Tokenizer,
    ids: list[int],
    config: SamplingConfig,
    bias: TextBias | None,
    writer: Writer,
    session: Path | None,
) -> None:
    """Draw texts and write them; with a session, go on from it and keep it."""
    from reformer_cli.sampling.generate import stream_samples
    from reformer_cli.sampling.sampler import Sampler
    from reformer_cli.sampling.session import save

    texts = Sampler(model, config, tokenizer.end, bias)
    made = _started(texts, tokenizer, ids, writer, session)
    began, pressed, stands = time.monotonic(), False, False
    try:
        with writer.working(config.max_tokens) as (advance, interrupted):
            for pieces in stream_samples(texts, made):
                writer.pieces(pieces)
                advance(1)
                if pressed := interrupted():
                    break
            stands = True
    finally:  # at Ctrl-C too, what there is is kept
        for one in made:
            if (pressed or not stands) and one.finish_reason is None:
                one.finish_reason = "interrupted"
        writer.finish(made, time.monotonic() - began)
    if session is not None:  # not where a second Ctrl-C fell within a token: its state is of no use
        try:
            save(session, texts, made, writer.output)
        except OSError as error:
            raise UserError(f"cannot write {session}: {error.strerror}", "the text itself was written") from None
    if pressed:
        raise KeyboardInterrupt


def _started(
    texts: Sampler, tokenizer: Tokenizer, ids: list[int], writer: Writer, session: Path | None
) -> list[Sample]:
    """Texts that have read the prompt, or gone on from a session."""
    from reformer_cli.commands.output import reading
    from reformer_cli.sampling.session import load

    goes_on = session is not None and session.exists()
    made = writer.start(texts.config.num_samples)
    if goes_on:
        assert session is not None
        written = load(session, texts, made)
        if writer.output is not None and (written is None or writer.output.resolve() != written):
            check_free(writer.output, writer.overwrite)
        if ids:
            made = writer.start(texts.config.num_samples)
        elif all(one.finish_reason == "end" for one in made):
            raise UserError(f"the text in {session} has ended", "give a --prompt that another begins with")
    new = ids if goes_on else [texts.end, *ids]
    limit = texts.model.config.max_length
    check_length(len(texts.histories[0].tokens) + len(new) + texts.config.max_tokens, len(new), limit)
    writer.begin(goes_on)
    if new:
        with reading(len(new)) as advance:
            texts.read(new, advance)
        for one, history in zip(made, texts.histories, strict=True):
            one.stream.decoder.follow(history.tokens)
    return made


def _search(
    model: ReformerLM,
    tokenizer: Tokenizer,
    ids: list[int],
    config: SamplingConfig,
    bias: TextBias | None,
    writer: Writer,
) -> None:
    """Look for the likeliest texts and write them."""
    from reformer_cli.commands.output import reading
    from reformer_cli.sampling.beam_search import search

    prompt = [tokenizer.end, *ids]
    made, began = writer.start(config.num_samples), time.monotonic()
    for one in made:
        one.stream.decoder.follow(prompt)
    writer.begin(False)
    with reading(len(prompt)) as on_read, writer.working(config.max_tokens, wait=True) as (on_token, _):
        found = search(model, prompt, config, end=tokenizer.end, bias=bias, on_read=on_read, on_token=on_token)
    for one, best in zip(made, found, strict=False):
        for token, logprob in zip(best.tokens, best.logprobs, strict=True):
            one.push(token, logprob, tokenizer.end)
    made = made[: len(found)]
    writer.pieces([one.text for one in made])
    writer.finish(made, time.monotonic() - began)
