"""The next token of each of several texts. Those whose settings are alike are filtered and drawn together; each has the
bits and the random numbers that it has alone, and a fault is that of the one text in which it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.filters import Texts, apply_filters, apply_rules, draw, random_numbers
from reformer_cli.sampling.history import History

TRIES = 50  # draws that rules for words refuse, after which all tokens are looked at


def draw_rows(
    logits: Tensor, configs: Sequence[SamplingConfig], histories: Sequence[History],
    generators: Sequence[torch.Generator],
) -> list[int | Exception]:  # fmt: skip
    """A token of each row of logits [texts, vocab_size], or what went wrong with it."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for n, config in enumerate(configs):
        groups.setdefault(config.alike, []).append(n)
    texts = Texts(configs, histories, random_numbers(generators))
    found = list[int | Exception](range(len(configs)))
    with torch.inference_mode():
        for rows in groups.values():
            some, own = (logits, texts) if len(groups) == 1 else (logits[rows], texts.some(rows))
            drawn = _draw_alike(some, own, [generators[n] for n in rows])
            for n, token in zip(rows, drawn, strict=True):
                found[n] = token
    return found


def _draw_alike(logits: Tensor, texts: Texts, generators: Sequence[torch.Generator]) -> list[int | Exception]:
    """`draw_rows` of settings that are alike."""
    before = [history.mirostat for history in texts.histories]
    try:
        allowed = apply_rules(logits, texts.histories)
        drawn = draw(apply_filters(allowed, texts), texts).tolist()
    except Exception as error:
        if len(logits) == 1:
            return [error]
        rows = range(len(logits))
        return [_draw_alike(logits[n : n + 1], texts.some([n]), [generators[n]])[0] for n in rows]
    if all(history.words is None for history in texts.histories):
        return list(drawn)
    found = list[int | Exception]()
    for n, token in enumerate(drawn):
        try:
            found.append(keep_to_rules(allowed[n : n + 1], texts.some([n]), generators[n], token, before[n]))
        except Exception as error:
            found.append(error)
    return found


def keep_to_rules(logits: Tensor, text: Texts, generator: torch.Generator, token: int, surprise: float | None) -> int:
    """What a text draws by its logits [1, vocab_size]: this token, or others until the rules for words allow one.
    surprise: Mirostat's before anything was drawn."""
    (history,) = text.histories
    watch, first, tries = history.words, token, 0
    while watch is not None and watch.refuses(token):
        logits, tries = logits.clone() if tries == 0 else logits, tries + 1
        logits[0, token] = -torch.inf
        if tries == TRIES:
            possible = logits[0].isfinite().nonzero()[:, 0].tolist()
            logits[0, [t for t in possible if watch.refuses(t)]] = -torch.inf
        if not bool(logits.isfinite().any()):
            ends = watch.strict and not history.after
            return history.end if ends and history.end is not None else first
        history.mirostat = surprise
        again = Texts(text.configs, text.histories, random_numbers([generator]))
        token = int(draw(apply_filters(logits, again), again))
    return token
