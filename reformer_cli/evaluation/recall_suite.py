"""All tests of recall on one model: how far each goes, and the text that sentences are planted in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from reformer import ReformerLM
from reformer.rehash import FULL, Rounds, with_rounds

from reformer_cli.data.shards import TokenFiles
from reformer_cli.evaluation import recall
from reformer_cli.evaluation.recall import NEEDLE_SHORTEST, Alphabet, Outcome, Progress, Tokens, common_words, steps_to
from reformer_cli.tokenizers.base import Tokenizer

Haystack = tuple[Tokens, list[str]]  # tokens to plant sentences in, and words to make sentences of
Lengths = dict[str, list[int]]  # test -> how far it goes: w of copies, distances of pairs, lengths of texts


def haystack_of(ids: Tokens, tokenizer: Tokenizer) -> Haystack:
    """A text as tokens. Raises UserError for one that has too few words."""
    return ids.astype(np.int64), common_words(tokenizer.decode(ids.astype(np.int32)))


def end_of_corpus(tokens: TokenFiles, longest: int) -> Tokens:
    """The last tokens, at most `longest`, of the document of which most was held out."""
    if not len(tokens.spans):
        return tokens.train[1:][-longest:].astype(np.int64)
    held = max(tokens.spans, key=lambda h: h.span.stop - h.span.start)
    before = tokens.train[held.context_start + 1 : held.context_stop]  # without the end-of-text token
    rest = tokens.validation[held.span.start : held.span.stop]
    return np.concatenate([before[-longest:], rest])[-longest:].astype(np.int64)


def lengths_of(
    wanted: Sequence[str], longest: int, trained: int | None, limit: int | None, haystack: Haystack | None,
    report: Callable[[str], None],
) -> Lengths:  # fmt: skip
    """How far each test goes; trained: the w that a run of copies was trained with. What does not fit is reported."""
    room = limit if limit is not None else 2**60
    found = {}
    if "copy" in wanted:
        lengths = sorted({n for n in [*steps_to(longest), trained or 64] if n <= max(longest, trained or 0)})
        found["copy"] = [n for n in lengths if 2 * n + 3 <= room]
    if "associative" in wanted:
        found["associative"] = [n for n in steps_to(longest) if 2 * n + 64 <= room]
    if "needle" in wanted and haystack is not None:
        most = min(longest, len(haystack[0]) + 1, room - 256)
        found["needle"] = steps_to(most, NEEDLE_SHORTEST) if most >= NEEDLE_SHORTEST else []
        if not found["needle"]:
            report(f"needle left out: it needs {NEEDLE_SHORTEST:,} tokens of text, there are {max(0, most):,}")
    if limit is not None:
        report(f"this model has {limit:,} positions: longer tests are left out")
    return found


def tokens_to_read(lengths: Lengths) -> int:
    """What `outcomes` reads, about."""
    copies = sum(map(recall.copy_tokens, lengths.get("copy", [])))
    needles = sum((recall.ROWS + 1) * n for n in lengths.get("needle", []))
    return copies + needles + recall.ROWS * max(lengths.get("associative", []), default=0)


def outcomes(
    model: ReformerLM, rounds: Rounds | None, tokenizer: Tokenizer, alphabet: Alphabet, haystack: Haystack | None,
    lengths: Lengths, seed: int, progress: Progress | None = None,
) -> Iterator[Outcome]:  # fmt: skip
    """All tests, with another number of rounds than the model's unless it is None.

    Of copies, full attention and attention in chunks are read in one pass, as both are trained; so they are short. What
    is streamed follows the rule of decoding.
    """
    streamed = rounds != FULL
    in_one_pass = not streamed or model.config.chunked
    if rounds is not None and streamed:
        model = with_rounds(model, rounds)
    for length in lengths.get("copy", []):
        if not in_one_pass or 2 * length + 3 <= recall.LONGEST_FORWARD:
            used = model if streamed else with_rounds(model, FULL, 2 * length + 3)
            yield recall.copy(used, alphabet, length, seed, not in_one_pass, progress)
    if not streamed:
        return
    if distances := lengths.get("associative", []):
        yield from recall.associative(model, alphabet, distances, seed, progress)
    for length in lengths.get("needle", []):
        assert haystack is not None
        yield from recall.needle(model, tokenizer, *haystack, length, seed, progress)
