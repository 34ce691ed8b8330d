"""What the public harness is told is what the model says of the text, token by token."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


@pytest.fixture
def harness(run: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The run as the harness sees it. Where lm-eval is not installed, which `make test-all` does: its 37 packages are a
    quarter of an installation, and what our class has of its own is two names."""
    if find_spec("lm_eval") is None:
        for name in ("lm_eval", "lm_eval.api", "lm_eval.api.instance", "lm_eval.api.model"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setattr(sys.modules["lm_eval.api.instance"], "Instance", SimpleNamespace, raising=False)
        monkeypatch.setattr(sys.modules["lm_eval.api.model"], "LM", object, raising=False)
    return importlib.import_module("reformer_cli.workflows.harness").ReformerHarness(run)


def request(*arguments: object) -> SimpleNamespace:
    return SimpleNamespace(args=arguments)


def by_hand(harness: Any, before: list[int], after: list[int]) -> tuple[float, bool]:
    with torch.no_grad():
        logits = harness.model(torch.tensor([before + after]))[0].double()
    places = logits[len(before) - 1 : -1].log_softmax(-1)
    targets = torch.tensor(after)
    return float(places.gather(-1, targets[:, None]).sum()), bool((places.argmax(-1) == targets).all())


def test_continuations_and_whole_texts(harness: Any) -> None:
    end, encode = harness.tokenizer.end, harness.tokenizer.encode
    pairs = [("The cat sat", " on a mat"), ("The cat sat", " until noon"), ("", "Rain fell"), ("The cat", "")]
    found = harness.loglikelihood([request(*pair) for pair in pairs])
    for (context, continuation), (value, greedy) in zip(pairs[:3], found[:3], strict=True):
        before = [end, *encode(context).tolist()]
        after = encode(context + continuation).tolist()[len(before) - 1 :]
        wanted, likeliest = by_hand(harness, before, after)
        assert value == pytest.approx(wanted, rel=1e-5)
        assert greedy == likeliest
    assert found[3] == (0.0, True)
    whole = "The cat sat on a mat.\n" * 9
    (rolled,) = harness.loglikelihood_rolling([request(whole)])
    assert rolled == pytest.approx(by_hand(harness, [end], encode(whole).tolist())[0], rel=1e-5)


def test_greedy_continuations_are_recognised_and_stop_where_asked(harness: Any) -> None:
    (made,) = harness.generate_until([request("The cat", {"until": ["\n"], "max_gen_toks": 8})])
    assert "\n" not in made
    (longer,) = harness.generate_until([request("The cat", {"until": [], "max_gen_toks": 8})])
    assert longer.startswith(made)
    if longer:
        ids = harness.tokenizer.encode("The cat").tolist()
        assert harness.tokenizer.encode("The cat" + longer).tolist()[: len(ids)] == ids
    again = harness.generate_until([request("The cat", {"until": "\n", "max_gen_toks": 8, "temperature": 0.0})])
    assert again == [made]
