"""Held-out text that is long is scored by a sample of it, which says how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from builders.models import small

from reformer_cli.data.batches import ValidationWindows
from reformer_cli.data.shards import TokenFiles
from reformer_cli.data.split import Span, ValidationSpan
from reformer_cli.evaluation.scorers import ContextRule
from reformer_cli.tokenizers.base import ByteTokenizer
from reformer_cli.workflows.validation import HeldOut, held_out, probe_of, sample_text

CONTEXT = 64


def windows(*lengths: int) -> ValidationWindows:
    """Of documents whose ends of so many tokens are held out, each after 100 that are not."""
    draw = np.random.default_rng(0)
    spans, at = [], 0
    for n, length in enumerate(lengths):
        spans.append(ValidationSpan(f"text {n}", Span(at, at + length, 0, 0, 0), 100 * n, 100 * (n + 1)))
        at += length
    train, held = (draw.integers(97, 123, size, dtype=np.int64) for size in (100 * len(lengths), at))
    return ValidationWindows(TokenFiles(train, held, ByteTokenizer.end, spans, len(lengths), len(train)), CONTEXT)


def scored(found: ValidationWindows, seconds: float) -> HeldOut:
    model = small(vocab_size=ByteTokenizer.vocab_size).eval()
    return held_out(model, found, ByteTokenizer(), ContextRule(CONTEXT), CONTEXT, seconds, print)


def test_a_sample_is_scored_where_all_would_take_too_long() -> None:
    """The bug it guards against: after four minutes of training 2:51 of scoring, and no sign of life."""
    long = windows(9_000, 9_000)
    whole, sample = scored(long, 1e6), scored(long, 0.0)
    assert (whole.sample, whole.between, whole.score.tokens) == (1.0, None, 18_000)
    assert sample.score.tokens == 8 * 512
    assert sample.between is not None
    assert sample.between[0] <= whole.score.bits_per_byte * 1.01
    assert whole.score.bits_per_byte <= sample.between[1] * 1.01
    assert "a sample, 23% of what was held out" in sample.line("bits/byte")


def test_few_tokens_are_all_scored() -> None:
    assert scored(windows(700, 20), 0.0).score.tokens == 720


def test_stretches_know_what_comes_before_them() -> None:
    long = windows(1_000, 50)
    tokens = long[0].scored
    middle = long.stretch(500, 100)
    assert middle.scored.tolist() == tokens[500:600].tolist()
    assert middle.prefix.tolist() == tokens[500 - CONTEXT : 500].tolist()
    assert long.stretch(1_010, 512).scored.tolist() == long[1].scored.tolist()


@pytest.mark.parametrize(("tokens", "n_windows", "each"), [(2048, 3, 618), (600, 1, 536), (100_000, 8, 1024)])
def test_a_validation_works_on_so_many_tokens(tokens: int, n_windows: int, each: int) -> None:
    """Those that are only read before others counted: of 94 books they were two of three: ten seconds a validation."""
    probe = probe_of(windows(*[2_000] * 8), tokens, 8192, CONTEXT, images=False)
    assert (len(probe.windows), probe.each) == (n_windows, each)


def test_a_sample_ends_after_its_time() -> None:
    """The bug it guards against: beside other work a hundred tokens took forty seconds of a run of one minute."""
    model = small(vocab_size=ByteTokenizer.vocab_size).eval()
    short, whole = (sample_text(model, ByteTokenizer(), 60, seconds) for seconds in (0.0, 1e6))
    assert len(short) < len(whole)
    assert whole.startswith(short)
