"""`reformer evaluate`: how well a trained model predicts text."""

from __future__ import annotations

import json as json_
from typing import TYPE_CHECKING, Annotated

import typer

from reformer_cli.commands.shared import (
    DeviceOption,
    RunOption,
    keep_freed_memory,
    load_model,
    pick_device,
    read_text,
    say,
)
from reformer_cli.errors import UserError

if TYPE_CHECKING:
    import torch
    from reformer import ReformerLM

    from reformer_cli.evaluation.likelihood import Score
    from reformer_cli.runs import Run
    from reformer_cli.tokenization.tokenizer import Tokenizer

app = typer.Typer(help="Measure a trained model.", rich_markup_mode=None)


@app.callback()
def evaluate() -> None:
    """Measure a trained model."""


@app.command("perplexity")
def perplexity(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="UTF-8 texts, - for standard input; images or folders of them for a run of images; "
            "none: what the run held out.",
        ),
    ] = None,
    run: RunOption = None,
    context: Annotated[
        int | None,
        typer.Option(min=2, help="Let each token see at most so many before it, at least half; default: all of them."),
    ] = None,
    parallel: Annotated[
        bool,
        typer.Option(
            "--parallel",
            help="Models of pattern published: score in whole passes, as training and transformers do, where later "
            "text decides what earlier text sees; default: token after token, as generation does.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Score texts or images: each token once, given everything before it, the first one given the end-of-text token."""
    from reformer_cli.runs import Run
    from reformer_cli.tokenization.foreign import losses

    keep_freed_memory()
    opened = Run.open(run)
    if parallel and (pattern := opened.config.model.pattern) != "published":
        raise UserError(f"--parallel is for pattern published; with {pattern} both are the same", "leave it out")
    tokenizer = opened.tokenizer()
    images = opened.config.data.image_size is not None
    texts = [(name, read_text(name)) for name in files or () if not images]
    for name, text in texts:
        if not text:
            raise UserError(f"{name} is empty", "there is nothing to score")
    for name, text in texts:
        if not tokenizer.lossless and (lost := losses(tokenizer, text)):
            say(f"note: the tokenizer loses of {name} {lost}; what is lost is not predicted, and counts as bytes")
    model = load_model(opened, pick_device(device))
    if files and images:
        scores = {name: score_images(opened, model, tokenizer, name, context, parallel) for name in files}
    elif files:
        scores = {name: score_text(model, tokenizer, text, context, parallel) for name, text in texts}
    else:
        scores = _held_out(opened, model, tokenizer, context, parallel)
    total = sum(list(scores.values())[1:], next(iter(scores.values())))
    if json:
        each = {name: score.as_dict(images) for name, score in scores.items()}
        typer.echo(json_.dumps(total.as_dict(images) | {"context": context, "parallel": parallel, "files": each}))
        return
    for name, score in [*scores.items(), *([("total", total)] if len(scores) > 1 else [])]:
        typer.echo(table(name, score, images))


def table(name: str, score: Score, images: bool = False) -> str:
    """The figures of one text, or of images, for people."""
    rows = [
        ("tokens", f"{score.tokens:,}"),
        ("bytes", f"{round(score.bytes):,}"),
        ("nats/token", f"{score.nats_per_token:.4f}"),
        ("perplexity", f"{score.perplexity:.2f}"),
        ("bits/byte", f"{score.bits_per_byte:.4f}"),
        ("bits/character", f"{score.bits_per_character:.4f}"),
        ("word perplexity", f"{score.word_perplexity:,.1f}"),
    ]
    if images:
        rows = [*rows[2:4], ("bits/dim", f"{score.bits_per_dim:.4f}")]
        rows = [("values", f"{score.tokens:,}"), ("nats/value", rows[0][1]), *rows[1:]]
    return "\n".join([name, *(f"  {label:16}{value:>12}" for label, value in rows)])


def score_text(
    model: ReformerLM, tokenizer: Tokenizer, text: str, context: int | None, parallel: bool = False
) -> Score:
    """A whole text after the end-of-text token. parallel: see `likelihood.nats`."""
    import torch

    from reformer_cli.evaluation.likelihood import Score
    from reformer_cli.tokenization.shards import WORD

    scored = torch.from_numpy(tokenizer.encode(text)).long()
    nats = _nats(model, torch.tensor([tokenizer.end]), scored, context, parallel)
    words = sum(1 for _ in WORD.finditer(text))
    return Score(len(scored), len(text.encode()), len(text), words, nats)


def score_images(
    run: Run, model: ReformerLM, tokenizer: Tokenizer, spec: str, context: int | None, parallel: bool
) -> Score:
    """A file, or all images of a folder, read as for training; each after the token that begins an image."""
    from reformer_cli.evaluation.likelihood import Score
    from reformer_cli.progress import shown
    from reformer_cli.tokenization.scan import reread, scanned
    from reformer_cli.tokenization.shards import options_of

    data, total = run.config.data, Score(0, 0, 0, 0, 0.0)
    with scanned([spec], options_of(data), data.processes, say) as found:
        found.check(data.faulty)
        if found.replaced:
            say(f"warning: {found.replaced:,} images were converted; the first: {found.notes[0]}")
        with shown("scoring", found.documents, say, lambda n: f"{n:,.0f} images") as advance:
            for _, source, record in found.files():
                for *_, pieces in reread(source, record, found.options):
                    total += _score_image(model, tokenizer, "".join(pieces), context, parallel)
                    advance(1)
    return total


def _score_image(model: ReformerLM, tokenizer: Tokenizer, image: str, context: int | None, parallel: bool) -> Score:
    import torch

    from reformer_cli.evaluation.likelihood import Score

    scored = torch.from_numpy(tokenizer.encode(image)).long()
    return Score(len(scored), len(scored), 0, 0, _nats(model, torch.tensor([tokenizer.end]), scored, context, parallel))


def _nats(model: ReformerLM, prefix: torch.Tensor, scored: torch.Tensor, context: int | None, parallel: bool) -> float:
    from reformer_cli.evaluation.likelihood import nats

    limit = model.config.max_length
    read = len(prefix) + len(scored) - 1  # nothing comes after the last
    if limit is not None and (context or read) > limit:
        raise UserError(
            f"{read:,} tokens exceed the {limit:,} positions of this model",
            f"use --context {limit}",
        )
    return nats(model, prefix, scored, context, parallel=parallel)


def _held_out(
    run: Run, model: ReformerLM, tokenizer: Tokenizer, context: int | None, parallel: bool
) -> dict[str, Score]:
    """What the run never trained on, each part after as much of its document as a training step reads."""
    from reformer_cli.evaluation.likelihood import Score
    from reformer_cli.tokenization.batches import held_out_windows
    from reformer_cli.tokenization.shards import load_or_prepare

    prepared = load_or_prepare(run.config.data, say, tokenizer, run.config.corpus_digest)
    if run.config.corpus_digest and prepared.digest != run.config.corpus_digest:
        raise UserError(
            f"the corpus {', '.join(run.config.data.corpus)} has changed since the run trained on it",
            "name the files to score",
        )
    windows = held_out_windows(prepared.tokens, context or run.config.data.context)
    if not windows:
        raise UserError("the run held nothing out (data.held_out is 0)", "name the files to score")
    images = run.config.data.image_size is not None
    what = f"{len(windows):,} images" if images else f"the held-out last part of {len(windows):,} texts"
    say(f"scoring {what.removesuffix('s') if len(windows) == 1 else what}")
    found = {}
    for w in windows:
        nats = _nats(model, w.prefix, w.scored, context, parallel)
        score = Score(len(w.scored), w.text.bytes, w.text.characters, w.text.words, nats)
        found[f"{w.name} (held out)"] = score
    if images:  # of which each by itself says little
        return {f"{len(windows):,} images (held out)": sum(found.values(), Score(0, 0, 0, 0, 0.0))}
    return found
