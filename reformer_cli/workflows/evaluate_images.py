"""`reformer evaluate perplexity` of a run of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.progress_bar import shown

if TYPE_CHECKING:
    from reformer import ReformerLM

    from reformer_cli.data.batches import ValidationWindow
    from reformer_cli.evaluation.likelihood import ScoreSums
    from reformer_cli.evaluation.scorers import ContextRule
    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Ids, Tokenizer


def scored_images(
    run: Run,
    model: ReformerLM,
    tokenizer: Tokenizer,
    files: list[str],
    windows: Sequence[ValidationWindow],
    reading: ContextRule,
) -> Iterator[tuple[str, ScoreSums]]:
    """Each file or folder, or all that was held out, with the sums over its images, read as for training."""
    from reformer_cli.data.dataset import options_of
    from reformer_cli.data.scan import reread, scanned

    data = run.config.data
    if (reading.context or 0) > 2 * data.context:
        raise UserError(
            f"--context {reading.context:,} exceeds the {data.context:,} values of an image", "leave it out"
        )
    for name in files:
        with scanned([name], options_of(data), data.num_workers, say) as found:
            found.check(data.errors)
            if found.replaced:
                say(f"warning: {found.replaced:,} images were converted; the first: {found.notes[0]}")
            images = (
                tokenizer.encode("".join(pieces))
                for _, source, record in found.files()
                for *_, pieces in reread(source, record, found.options)
            )
            yield name, _tally(model, tokenizer, images, found.documents, reading)
    if windows:
        held = (w.scored.numpy().astype("int32") for w in windows)
        yield f"{len(windows):,} images (held out)", _tally(model, tokenizer, held, len(windows), reading)


def _tally(
    model: ReformerLM, tokenizer: Tokenizer, images: Iterable[Ids], count: int, reading: ContextRule
) -> ScoreSums:
    import numpy as np
    import torch

    from reformer_cli.evaluation.likelihood import ScoreSums

    tally = ScoreSums(images=True)
    with shown("scoring", count, say, lambda n: f"{n:,.0f} images") as advance:
        for ids in images:
            tally.another()
            reader = reading.scorer(model, torch.tensor([tokenizer.end]))
            facts = np.zeros((len(ids), 3))
            facts[:, 0] = 1  # a byte each, of no character or word
            for start in range(0, len(ids), reader.at_once):
                here = slice(start, start + reader.at_once)
                nats = reader.score(torch.from_numpy(ids[here].astype(np.int64)))
                tally.add(facts[here], nats.numpy())
            advance(1)
    return tally
