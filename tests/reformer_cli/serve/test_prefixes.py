"""States that the texts of a server give to each other."""

from __future__ import annotations

import torch
from builders.models import small, tokens

from reformer_cli.serve.prefixes import Prefixes


def test_what_nobody_uses_any_more_is_the_next_texts_memory() -> None:
    """It had to be asked for page by page while somebody waited."""
    prefixes = Prefixes(small(), most_bytes=1)
    ids = tokens(65, 1)
    _, begun = prefixes.take(ids[0].tolist())
    prefixes.model.extend(ids[:, :64], begun.state)
    prefixes.mark(begun, 64, b"", 10)
    prefixes.give(begun, 0)
    again = prefixes.fresh()
    assert again is begun.state
    assert again.position == 0


def test_a_state_is_ready_before_it_is_asked_for() -> None:
    prefixes, ids = Prefixes(small(lsh_window=4096)), tokens(40, 1)
    assert prefixes.get_ready()  # there is memory to be touched
    while prefixes.get_ready():
        pass
    ready = prefixes.fresh()
    assert torch.equal(prefixes.model.extend(ids, ready)[0], prefixes.model.extend(ids)[0])
