"""`reformer evaluate perplexity` of a run of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from reformer_cli.data.batches import ValidationWindow
from reformer_cli.data.dataset import options_of
from reformer_cli.data.scan import reread, scanned
from reformer_cli.evaluation.likelihood import ScoreSums
from reformer_cli.evaluation.scorers import ContextRule
from reformer_cli.tokenizers.base import Ids
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.open_model import OpenModel


def scored_images(
    opened: OpenModel, files: Sequence[str], windows: Sequence[ValidationWindow], rule: ContextRule
) -> Iterator[tuple[str, ScoreSums]]:
    """Each file or folder, or all that was held out, with the sums over its images, read as for training."""
    data = opened.run.config.data
    if (rule.context or 0) > 2 * data.context:
        raise UserError(f"--context {rule.context:,} exceeds the {data.context:,} values of an image", "leave it out")
    for name in files:
        with scanned([name], options_of(data), data.num_workers, say) as found:
            found.check(data.errors)
            if found.replaced:
                say(f"warning: {found.replaced:,} images were converted; the first: {found.notes[0]}")
            images = (
                opened.tokenizer.encode("".join(pieces))
                for _, source, record in found.files()
                for *_, pieces in reread(source, record, found.options)
            )
            yield name, _sums(opened, images, found.documents, rule)
    if windows:
        held = (w.scored.numpy().astype("int32") for w in windows)
        yield f"{len(windows):,} images (held out)", _sums(opened, held, len(windows), rule)


def _sums(opened: OpenModel, images: Iterable[Ids], count: int, rule: ContextRule) -> ScoreSums:
    found = ScoreSums(images=True)
    with shown("scoring", count, say, lambda n: f"{n:,.0f} images") as advance:
        for ids in images:
            found.another()
            scorer = rule.scorer(opened.model, torch.tensor([opened.tokenizer.end]))
            facts = np.zeros((len(ids), 3))
            facts[:, 0] = 1  # a byte each, of no character or word
            for start in range(0, len(ids), scorer.at_once):
                here = slice(start, start + scorer.at_once)
                nats = scorer.score(torch.from_numpy(ids[here].astype(np.int64)))
                found.add(facts[here], nats.numpy())
            advance(1)
    return found
