"""Scores are sums over every token, each once, whatever the slices."""

from __future__ import annotations

import pytest
import torch
from builders.models import small, tokens

from reformer_cli.evaluation import likelihood, scorers
from reformer_cli.evaluation.scorers import ContextRule


def by_hand(model, prefix: torch.Tensor, scored: torch.Tensor, first: int = 0) -> float:
    """Nats of scored[first:] by one plain pass."""
    whole = torch.cat([prefix, scored])
    with torch.no_grad():
        logits = model(whole[None, :-1])[0]
    nats = torch.nn.functional.cross_entropy(logits, whole[1:], reduction="none")
    return float(nats[len(prefix) - 1 + first :].sum())


@pytest.mark.parametrize("at_once", [7, 64, 4096])
def test_streaming_is_one_pass(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "AT_ONCE", at_once)
    model = small(torch.float64)
    prefix, scored = tokens(20)[0], tokens(150, seed=1)[0]
    assert likelihood.nats(model, prefix, scored, ContextRule()) == pytest.approx(
        by_hand(model, prefix, scored), rel=1e-12
    )
    assert likelihood.nats(model, prefix[:1], scored, ContextRule()) == pytest.approx(
        by_hand(model, prefix[:1], scored), rel=1e-12
    )


def test_limited_context_by_hand() -> None:
    model = small(torch.float64)
    prefix, scored = tokens(1)[0], tokens(50, seed=1)[0]
    whole = torch.cat([prefix, scored])
    wanted = 0.0
    for start in range(1, 51, 4):  # stretches of 4 with the 4 tokens before them
        low = max(0, start - 4)
        part = whole[low : min(start + 4, 51)]
        wanted += by_hand(model, part[: start - low], part[start - low :])
    assert likelihood.nats(model, prefix, scored, ContextRule(8)) == pytest.approx(wanted, rel=1e-12)


def test_progress_counts_every_scored_token() -> None:
    seen: list[int] = []
    likelihood.nats(small(), tokens(9)[0], tokens(100, seed=1)[0], ContextRule(), seen.append)
    assert sum(seen) == 100


def test_two_readings_of_a_causal_pattern_are_one() -> None:
    model = small(torch.float64)
    prefix, scored = tokens(30)[0], tokens(90, seed=1)[0]
    by_pass = likelihood.nats(model, prefix, scored, ContextRule(32, forward=True))
    assert by_pass == pytest.approx(likelihood.nats(model, prefix, scored, ContextRule(32)), rel=1e-12)


CHUNKED = {"positions": "none", "attn_layers": ("chunked_lsh",), "lsh_window": 8}


def test_runs_in_chunks_are_scored_by_the_forward_pass_unless_decoding_is_asked_for() -> None:
    # Their decoding follows another rule: its likelihood under the name of the trained one would be a wrong figure.
    model = small(torch.float64, **CHUNKED)
    prefix, scored = tokens(1)[0], tokens(32, seed=1)[0]
    reading = ContextRule.for_model(model.config, 64, None, None)
    assert reading == ContextRule(64, forward=True)
    assert "the forward pass, as trained" in reading.rule(model.config)
    trained = likelihood.nats(model, prefix, scored, reading)
    assert trained == pytest.approx(by_hand(model, prefix, scored), rel=1e-12)
    decoded = ContextRule.for_model(model.config, 64, None, "decoding")
    assert decoded == ContextRule(None)
    assert "decoding, which generation follows" in decoded.rule(model.config)
    assert abs(likelihood.nats(model, prefix, scored, decoded) - trained) > 1e-6
    assert ContextRule.for_model(small().config, 64, None, None) == ContextRule(None)
    assert ContextRule.for_model(model.config, 64, 16, None) == ContextRule(16, forward=True)
