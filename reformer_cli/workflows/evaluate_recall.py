"""What a model can still find: copies, values of keys, sentences planted in a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reformer.rehash import Rounds, check_hashed

from reformer_cli.data.copy_task import find
from reformer_cli.evaluation.recall import TESTS, Outcome, alphabet_of
from reformer_cli.evaluation.recall_suite import (
    Haystack,
    end_of_corpus,
    haystack_of,
    lengths_of,
    outcomes,
    tokens_to_read,
)
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import aligned
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.evaluate import prepared_text
from reformer_cli.workflows.open_model import OpenModel, refused
from reformer_cli.workflows.plot import plot_recall
from reformer_cli.workflows.result import DISTANCE, Result

AS_TRAINED = "as trained"
TITLES = {
    "copy": "copies of random symbols (0 w 0 w): share of the second w that is right",
    "associative": "values of keys that come again: share right",
}


@dataclass(frozen=True)
class RecallResult(Result):
    """outcomes: of all tests, by the hash rounds; symbols: that the tests are made of."""

    seed: int
    symbols: int
    outcomes: dict[str, list[Outcome]]

    @property
    def chance(self) -> float:
        """The share that guessing has right."""
        return 1 / self.symbols

    def as_dict(self) -> dict[str, Any]:
        each = {name: [o.as_dict() for o in outcomes] for name, outcomes in self.outcomes.items()}
        return {"seed": self.seed, "symbols": self.symbols, "chance": self.chance, "n_hashes": each}

    def rows(self) -> list[dict[str, Any]]:
        """One row a test, setting and number of rounds."""
        return [{"n_hashes": name} | o.as_dict() for name, outcomes in self.outcomes.items() for o in outcomes]

    def __str__(self) -> str:
        """A table a test, rounds side by side; needles as a map of depth and length."""
        parts = []
        for test, title in TITLES.items():
            distances = sorted({o.distance for each in self.outcomes.values() for o in each if o.test == test})
            if distances:
                parts.append(f"{title}; by chance {self.chance:.1%}\n{self._by_distance(test, distances)}")
        for name, each in self.outcomes.items():
            if needles := [o for o in each if o.test == "needle"]:
                which = "" if name == AS_TRAINED else f", {name}"
                parts.append(
                    f"sentences planted in a text{which}: share of their last words' tokens right, after their first "
                    f"words (in brackets: where they had not been planted)\n{_needle_map(needles)}"
                )
        return "\n\n".join(parts) if parts else "no test fits"

    def _by_distance(self, test: str, distances: list[int]) -> str:
        rows = [["tokens back", "asked", *(head for name in self.outcomes for head in (name, "nats"))]]
        for distance in distances:
            row = [f"{distance:,}", ""]
            for each in self.outcomes.values():
                o = next((o for o in each if (o.test, o.distance) == (test, distance)), None)
                row += [f"{o.share:.1%}", f"{o.nats:.2f}"] if o is not None else ["-", "-"]
                row[1] = f"{o.asked:,}" if o is not None else row[1]
            rows.append(row)
        return aligned(rows)

    def _draw(self, path: Path) -> None:
        plot_recall(self.outcomes, self.chance, path)


def _needle_map(needles: Sequence[Outcome]) -> str:
    shares = {(o.depth or 0.0, o.length): f"{o.share:.0%} ({(o.right_without or 0) / o.asked:.0%})" for o in needles}
    depths, lengths = (sorted(set(each)) for each in zip(*shares, strict=True))
    rows = [["depth", *(f"{n:,} tokens" for n in lengths)]]
    return aligned([*rows, *([f"{depth:.0%}", *(shares[depth, n] for n in lengths)] for depth in depths)])


def evaluate_recall(
    opened: OpenModel, text: str | None = None, *, tests: Sequence[str] = (), max_distance: int = DISTANCE,
    n_hashes: Sequence[Rounds] = (), seed: int = 0,
) -> RecallResult:  # fmt: skip
    """Ask a model for what stood up to max_distance tokens back, once for each of n_hashes (none: as trained).

    tests: of TESTS; none: all. text: the file that sentences are planted in, None: the run's own. What cannot be tested
    is left out, and said; raises UserError where it was all that was asked for.
    """
    wanted = list(dict.fromkeys(tests or TESTS))
    if wrong := [name for name in wanted if name not in TESTS]:
        raise UserError(f"the test {wrong[0]} is not known", f"use {', '.join(TESTS)}")
    model, tokenizer = opened.model, opened.tokenizer
    if n_hashes:
        with refused("--n-hashes"):
            check_hashed(model.config)
    source = find(opened.run.config.data.corpus)
    alphabet = alphabet_of(tokenizer, source)
    haystack = None
    if "needle" in wanted:
        try:
            haystack = _haystack(opened, text, max_distance)
        except UserError as error:
            if wanted == ["needle"]:
                raise
            say(f"needle left out: {error}")
    trained = source.length if source is not None else None
    lengths = lengths_of(wanted, max_distance, trained, model.config.max_length, haystack, say)
    if model.config.chunked:
        say("attention in chunks: copies are read in one pass, as it was trained; all else by the rule of decoding")
    found: dict[str, list[Outcome]] = {}
    for n in n_hashes or (None,):
        with shown("reading" if n is None else f"reading, rounds {n}", tokens_to_read(lengths), say) as advance:
            name = AS_TRAINED if n is None else n if isinstance(n, str) else f"{n} round{'s' if n > 1 else ''}"
            found[name] = list(outcomes(model, n, tokenizer, alphabet, haystack, lengths, seed, advance))
    return RecallResult(seed, len(alphabet.symbols), found)


def _haystack(opened: OpenModel, text: str | None, longest: int) -> Haystack:
    """Of a file, or of the run's own text."""
    if text is None:
        if (source := find(opened.run.config.data.corpus)) is not None:
            raise UserError(f"a run trained on {source} has no text to plant sentences in", "name one with --text")
        return haystack_of(end_of_corpus(prepared_text(opened).tokens, longest), opened.tokenizer)
    held: list[Any] = [np.zeros(0, np.int32)]
    for piece in opened.pieces(text):
        held.append(opened.tokenizer.encode(piece))
        if sum(map(len, held)) >= longest:
            break
    return haystack_of(np.concatenate(held)[:longest], opened.tokenizer)
