"""The best of several texts, by a measure: the likeliest, the newest, or the one that a given text follows best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from reformer import ReformerLM

from reformer_cli.novelty.copies import LEAST, find_matches
from reformer_cli.novelty.index import TextIndex
from reformer_cli.sampling.endings import SENTENCE
from reformer_cli.sampling.generate import Sample
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.utils.console import say
from reformer_cli.workflows.request import Sink

MIDDLES = 16  # candidates for what comes between two texts
CUTS = 8  # ends of sentences at which each of them may stop
SEEN = 1_000  # tokens before a text that its likelihood is looked at with
JOINED = 64  # tokens of the text after, by which a middle is judged


class KeepsBest:
    """Hands on the one of all texts that a measure puts first; score: what is greatest of the best one."""

    def __init__(self, sink: Sink, score: Callable[[Sample], float], unit: str) -> None:
        self.sink, self.score, self.unit = sink, score, unit
        self.begin = sink.begin
        self.kept: list[Sample] = []

    def writing(
        self, tokens: int, wait: bool = False
    ) -> AbstractContextManager[tuple[Callable[[int], None], Callable[[], bool]]]:
        """Nothing is shown before the end."""
        return self.sink.writing(tokens, wait=True)

    def pieces(self, new: Sequence[str]) -> None:
        """Which of them stays is not known yet."""

    def finish(self, samples: Sequence[Sample], seconds: float) -> None:
        """Choose, and show that one alone."""
        for one in samples:
            one.close()
        scores = [self.score(one) for one in samples]
        n = max(range(len(samples)), key=lambda n: scores[n])
        self.kept = [samples[n]]
        say(f"kept candidate {n + 1} of {len(samples)}: {scores[n]:.3f} {self.unit} (mean {_mean(scores):.3f})")
        self.sink.pieces([samples[n].text])
        self.sink.finish(self.kept, seconds)


def likelihood(one: Sample) -> float:
    """Mean log-probability of its new tokens, by the model before any filter."""
    return _mean(one.logprobs)


def newness(index: TextIndex) -> Callable[[Sample], float]:
    """Share of its words in no copy of LEAST words or more."""
    return lambda one: 1 - find_matches(index, one.text).shares(LEAST)[-1]


class Between:
    """Judges what comes between two texts: by how likely the later one is after it, in nats a token. Each candidate is
    cut where that is best, at the end of a sentence or at its own."""

    def __init__(self, model: ReformerLM, tokenizer: Tokenizer, before: str, after: str) -> None:
        self.model, self.tokenizer, self.before, self.after = model, tokenizer, before, after

    def __call__(self, one: Sample) -> float:
        """Its best score; it becomes what it is up to there."""
        ends = [match.end() for match in SENTENCE.finditer(one.text)][:CUTS] or [len(one.text)]
        score, end = max((self.score(one.text[:end]), end) for end in ends)
        one.parts = [one.text[:end]]
        return score

    def score(self, middle: str) -> float:
        """Mean log-probability of the first tokens of the later text."""
        head = self.before + middle
        gap = "" if head[-1:].isspace() or self.after[:1].isspace() else " "
        ids, known = self.tokenizer.encode(head + gap + self.after), len(self.tokenizer.encode(head + gap))
        whole = torch.tensor([self.tokenizer.end, *ids[: known + JOINED]], device=self.model.embedding.device)
        seen = whole[max(0, known + 1 - SEEN) :][None]
        with torch.inference_mode():
            nats, _ = self.model.score(seen[:, :-1], seen[:, 1:])
        return -float(nats[0, -(len(whole) - 1 - known) :].mean()) if len(whole) > known + 1 else -math.inf


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
