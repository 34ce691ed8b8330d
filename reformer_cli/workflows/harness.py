"""A run as a model of the public evaluation harness (lm-eval, in the extra of that name).

    from lm_eval import simple_evaluate
    simple_evaluate(model=ReformerHarness("runs/novel"), tasks=["lambada_openai"])

or `reformer evaluate harness`. A text of any length is read whole: there is no window and no truncation. What is scored
is what generation follows (of attention in chunks, bucket by bucket).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from reformer import DecodingState

from reformer_cli.evaluation.likelihood import encoded, score_pieces
from reformer_cli.evaluation.scorers import FullContextScorer
from reformer_cli.runs.run import Run
from reformer_cli.sampling.generate import generate

MAX_TOKENS = 256  # made where a task names no max_gen_toks


class ReformerHarness(LM):  # type: ignore[misc]  # the harness has no annotations
    """run: a run directory, None for the newest. Every request is read after the end-of-text token, as in training.
    Raises UserError for a run that cannot be opened, ValueError for texts beyond a model's positions."""

    def __init__(self, run: str | Path | None = None, device: str = "cpu") -> None:
        super().__init__()
        opened = Run.open(Path(run) if run is not None else None)
        self.tokenizer, self.model = opened.tokenizer(), opened.load_model(device)
        self._device = device
        self._read: tuple[list[int], DecodingState | None] = ([], None)  # tokens but the last, and the state after them

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each (context, continuation): log-probability of the continuation, and whether it is the likeliest."""
        return [self._continuation(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of each (text,): its log-probability, every token given all before it."""
        found = []
        for request in requests:
            scorer = FullContextScorer(self.model, torch.tensor([self.tokenizer.end]))
            found.append(-score_pieces(scorer, encoded(self.tokenizer, [request.args[0]])).score.nats)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Of each (context, settings): what comes after, up to one of settings["until"]; greedy unless do_sample."""
        return [self._made(*request.args) for request in requests]

    def _continuation(self, context: str, continuation: str) -> tuple[float, bool]:
        before, after = self._split(context, continuation)
        if not after:
            return 0.0, True
        state = self._after(before[:-1])
        inputs = torch.tensor([before[-1:] + after[:-1]], device=self.model.embedding.device)
        with torch.inference_mode():
            logits = self.model.extend(inputs, state)[0][0].cpu()
        targets = torch.tensor(after)
        chances = logits.double().log_softmax(-1).gather(-1, targets[:, None])
        return float(chances.sum()), bool((logits.argmax(-1) == targets).all())

    def _split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both as they are in the whole text, if a token ends between them; else each by itself."""
        end, first = [self.tokenizer.end], self.tokenizer.encode(context).tolist()
        whole = self.tokenizer.encode(context + continuation).tolist()
        if whole[: len(first)] == first:
            return end + first, whole[len(first) :]
        return end + first, self.tokenizer.encode(continuation).tolist()

    def _after(self, tokens: list[int]) -> DecodingState | None:
        """The state after tokens; the choices of one question share it."""
        if not tokens:
            return None
        if self._read[0] != tokens:
            with torch.inference_mode():
                ids = torch.tensor([tokens], device=self.model.embedding.device)
                self._read = tokens, self.model.extend(ids, None, last_only=True)[1]
        state = self._read[1]
        return state.clone() if state is not None else None

    def _made(self, context: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        stops: Sequence[str] = [until] if isinstance(until, str) else until
        sampled = bool(settings.get("do_sample", settings.get("temperature", 0)))
        made = generate(
            self.model,
            self.tokenizer,
            context,
            stop=stops,
            max_tokens=int(settings.get("max_gen_toks", MAX_TOKENS)),
            temperature=float(settings.get("temperature", 1.0)) if sampled else 0.0,
            top_p=float(settings.get("top_p", 1.0)),
            top_k=int(settings.get("top_k", 0)),
            dry_multiplier=0.0,
            seed=int(settings.get("seed", 0)),
            as_typed=True,
        )
        return "".join(made)
