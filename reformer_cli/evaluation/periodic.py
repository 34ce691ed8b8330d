"""What is measured at intervals while a model trains (`eval.tests_every`); docs/evaluation.md describes the record."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from reformer import ReformerLM

from reformer_cli.config.schema import EvalConfig
from reformer_cli.data.batches import ValidationWindows
from reformer_cli.data.copy_task import CopyTask
from reformer_cli.data.shards import TokenFiles
from reformer_cli.evaluation.bootstrap import Blocks, finite
from reformer_cli.evaluation.context_curve import Passage, choose_contexts, context_curve, verdict
from reformer_cli.evaluation.likelihood import pooled, score_pieces
from reformer_cli.evaluation.recall import TESTS, alphabet_of
from reformer_cli.evaluation.recall_suite import Haystack, end_of_corpus, haystack_of, lengths_of, outcomes
from reformer_cli.evaluation.scorers import ContextRule
from reformer_cli.evaluation.token_facts import facts_of
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.utils.errors import UserError

LONGEST = 4096  # tokens, how far back recall is tested


class Evaluations:
    """One run's text and settings; windows: what was held out, after as much as a training step reads. `of` a model."""

    def __init__(
        self, config: EvalConfig, tokenizer: Tokenizer, tokens: TokenFiles, windows: ValidationWindows,
        rule: ContextRule, source: CopyTask | None,
    ) -> None:  # fmt: skip
        self.config, self.tokenizer, self.tokens = config, tokenizer, tokens
        self.rule, self.source = rule, source
        some = windows.some(config.tokens)
        each = max(1, config.tokens // max(1, len(some)))
        self.windows = [(w.prefix, w.scored[:each]) for w in some]

    def of(self, model: ReformerLM) -> dict[str, Any]:
        """The record; without held-out text, recall alone."""
        found: dict[str, Any] = {}
        if self.windows:
            found["perplexity"] = self._perplexity(model)
            found |= self._context(model)
        found |= self._recall(model)
        record: dict[str, Any] = finite(found)
        return record

    def _perplexity(self, model: ReformerLM) -> dict[str, Any]:
        lengths, blocks = self.tokenizer.byte_lengths(), list[Blocks]()
        for prefix, scored in self.windows:
            ids = scored.numpy().astype(np.int32)
            pieces = [(ids, facts_of(self.tokenizer.decode(ids), ids, lengths))]
            blocks.append(score_pieces(self.rule.scorer(model, prefix), pieces, len(prefix)).blocks)
        score, intervals = pooled(blocks)
        return score.as_dict() | {"intervals": intervals}

    def _context(self, model: ReformerLM) -> dict[str, Any]:
        lengths: npt.NDArray[np.float64] = self.tokenizer.byte_lengths()
        passages, room = [], model.config.max_length
        for prefix, scored in self.windows:
            part = scored if room is None else scored[: max(1, room // 2)]
            before = prefix if room is None else prefix[-max(1, room - len(part)) :]
            passages.append(Passage(before, part, lengths[part.numpy()]))
        contexts = choose_contexts(max(len(p.prefix) for p in passages))
        curve = context_curve(model, passages, contexts)
        bits = {"all" if c is None else str(c): curve.bits(n)[0] for n, c in enumerate(contexts)}
        return {"context": bits, "verdict": verdict(curve)}

    def _recall(self, model: ReformerLM) -> dict[str, Any]:
        alphabet, haystack, longest = alphabet_of(self.tokenizer, self.source), self._haystack(), LONGEST
        trained = self.source.length if self.source is not None else None
        lengths = lengths_of(TESTS, longest, trained, model.config.max_length, haystack, lambda line: None)
        each = [o.as_dict() for o in outcomes(model, None, self.tokenizer, alphabet, haystack, lengths, seed=0)]
        return {"recall": each, "chance": 1 / len(alphabet.symbols)}

    def _haystack(self) -> Haystack | None:
        """None where there is no text, or too little to make sentences of."""
        if self.source is not None:
            return None
        try:
            return haystack_of(end_of_corpus(self.tokens, LONGEST), self.tokenizer)
        except UserError:
            return None
