"""How likely the tokens of a text are, slice by slice between what others write."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch

from reformer_cli.serve.library import Loaded
from reformer_cli.serve.prefixes import cuts


@dataclass(frozen=True)
class Scored:
    """A token of a text: where it is in it, in characters; how likely it was (nats), and how many tokens were likelier;
    top: the likeliest ones."""

    text: str
    start: int
    end: int
    logprob: float
    rank: int
    top: Sequence[tuple[int, float]] = ()


def score(loaded: Loaded, tokens: Sequence[int], most: int = 0) -> Generator[None, None, list[Scored]]:
    """Of a text that begins a document; most: of the likeliest tokens. A slice at a time."""
    model, ids = loaded.model, [loaded.tokenizer.end, *tokens]
    state, found = model.new_state(1), list[Scored]()
    stream, at = loaded.tokenizer.stream(), 0
    for start, stop in cuts(len(tokens)):
        new = torch.tensor([ids[start : stop + 1]], device=model.embedding.device)
        with torch.inference_mode():
            logits, state = model.extend(new[:, :-1], state)
            logprob = logits[0].float().log_softmax(-1)
            own = logprob.gather(1, new[0, 1:, None])
            ranks = (logprob > own).sum(1).tolist()
            best = logprob.topk(most) if most else None
        for n, token in enumerate(tokens[start:stop]):
            text = stream.push(token)
            top = list(zip(best.indices[n].tolist(), best.values[n].tolist(), strict=True)) if best is not None else ()
            found.append(Scored(text, at, at + len(text), float(own[n]), ranks[n], top))
            at += len(text)
        yield
    return found
