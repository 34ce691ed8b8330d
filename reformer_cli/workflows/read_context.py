"""Texts that are read before a prompt and that the model was not trained on: what it then knows of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from reformer_cli.data.text_chunks import check_readable, read_pieces
from reformer_cli.evaluation.scorers import FullContextScorer
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.progress_bar import shown

MEASURED = 4096  # tokens at the end, at most, that are scored with and without what comes before them


def context_ids(tokenizer: Tokenizer, files: Sequence[str], join: bool) -> list[int]:
    """Tokens of texts one after the other, a blank line between them. Raises UserError for one that cannot be read, and
    for none at all."""
    for name in files:
        check_readable(name)
    found: list[int] = []
    for name in files:
        found += [token for text in read_pieces(name, join=join) for token in tokenizer.encode(text).tolist()]
        found += tokenizer.encode("\n\n").tolist()
    if files and len(found) < 4 + 2 * len(files):
        raise UserError(f"{', '.join(files)}: {len(found)} tokens are nothing to read", "name a text")
    return found


def read_context(sampler: Sampler, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """All texts of a sampler have read these, once for all of them, and one line says what that gains."""
    n = min(MEASURED, len(ids) // 2)
    before, last = torch.tensor([sampler.end, *ids[:-n]]), torch.tensor(ids[-n:])
    with shown("reading --context", len(before), say) as advance:
        scorer = FullContextScorer(sampler.model, before, advance)
        after = float(scorer.score(last).sum())
    alone = float(FullContextScorer(sampler.model, before[:1]).score(last).sum())
    size = float(tokenizer.byte_lengths()[ids[-n:]].sum()) * math.log(2)
    say(
        f"read {len(ids):,} tokens of --context: their last {n:,} take {after / size:.3f} bits/byte after the others, "
        f"{alone / size:.3f} without them"
    )
    assert scorer.state is not None
    samples = sampler.config.num_samples
    rows = torch.zeros(samples, dtype=torch.int64, device=sampler.pending.device)
    sampler.state = scorer.state.select(rows) if samples > 1 else scorer.state
    sampler.pending = scorer.last.expand(samples, 1).clone()
    for history in sampler.histories:
        history.extend([sampler.end, *ids])
