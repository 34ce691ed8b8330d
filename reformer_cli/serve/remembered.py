"""What a model looked back at: of the token at a place, the earlier passages that its hashed heads read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch

from reformer_cli.evaluation.hash_view import LayerView, look
from reformer_cli.serve.library import Loaded

LOOKED_BACK = 1024  # tokens: the view is dense
MOST_PLACES = 12
OF_A_HEAD = 8


@dataclass(frozen=True)
class Place:
    """Characters [start, end) of the text; weight: of the attention of all hashed heads; distance: tokens back."""

    start: int
    end: int
    weight: float
    distance: int


def remembered(text: str, position: int) -> Callable[[Loaded], Generator[None, None, list[Place] | str]]:
    """Places by weight, or why there are none."""

    def work(loaded: Loaded) -> Generator[None, None, list[Place] | str]:
        ids = loaded.tokenizer.encode(text).tolist()
        ends, at = [], 0
        stream = loaded.tokenizer.stream()
        for token in ids:
            at += len(stream.push(token))
            ends.append(at)
        own = next((n for n, end in enumerate(ends) if end > position), len(ids) - 1)
        if own < 1:
            return "there is nothing before this word"
        first = max(0, own + 1 - LOOKED_BACK)
        yield
        weights: dict[int, float] = defaultdict(float)
        rows = 0

        def show(view: LayerView) -> None:
            nonlocal rows
            rows += view.scores.shape[0]
            for seen in view.reached_from(own - first, OF_A_HEAD):
                weights[first + seen.position] += seen.weight

        look(loaded.model, torch.tensor(ids[first : own + 1], device=loaded.model.embedding.device), show)
        if not rows:
            return "this run has no hashed heads"
        best = sorted((n for n in weights if n < own), key=lambda n: -weights[n])[:MOST_PLACES]
        return [Place(ends[n - 1] if n else 0, ends[n], round(weights[n] / rows, 4), own - n) for n in best]

    return work
