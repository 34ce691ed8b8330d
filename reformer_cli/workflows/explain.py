"""What a generated text was drawn from, token by token, for `generate --json --explain`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reformer_cli.evaluation.explain import explain
from reformer_cli.sampling.generate import Describe, Sample
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.workflows.evaluate_attention import around
from reformer_cli.workflows.result import VIEWED


def explained(sampler: Sampler, row: int, further: Describe | None, one: Sample) -> dict[str, Any]:
    """What else is told of it, and `explained`: of each of the last new tokens its text and the places that hashed
    heads read, each with how many tokens back, its share of the attention, and the text there, the token in
    brackets."""
    tokenizer = sampler.tokenizer
    assert tokenizer is not None
    whole = sampler.histories[row].tokens[: one.start + len(one.tokens)]
    ids = np.array(whole[-VIEWED:], np.int32)
    first = max(1, len(ids) - len(one.tokens) + one.before)
    found = explain(sampler.model, torch.from_numpy(ids).long(), first) if len(ids) > first else []
    told = [
        {
            "token": around(tokenizer, ids, first + n),
            "reads": [
                {"distance": r.distance, "weight": round(r.weight, 4), "passage": around(tokenizer, ids, r.position)}
                for r in reads
            ],
        }
        for n, reads in enumerate(found)
    ]
    return (further(one) if further is not None else {}) | {"explained": told}
