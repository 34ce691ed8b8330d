"""What computes a model, and that a backend which is asked for is never exchanged for another."""

from __future__ import annotations

import pytest
import torch
from reformer import ReformerConfig
from reformer.backends import gpu
from reformer.backends.dispatch import choose

from reformer_cli.utils.devices import backend_reason
from reformer_cli.utils.errors import UserError


@pytest.fixture
def no_interpreter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    gpu.problem.cache_clear()
    yield
    gpu.problem.cache_clear()


def test_triton_on_a_cpu_is_refused_in_one_line(no_interpreter: None) -> None:
    config = ReformerConfig(vocab_size=9, backend="triton")
    with pytest.raises(UserError, match="backend triton cannot be used: it needs a GPU"):
        backend_reason(config, "cpu")
    with pytest.raises(ValueError, match="backend triton cannot be used: it needs a GPU; use backend auto or torch"):
        choose("triton", torch.zeros(1))


def test_auto_takes_triton_on_a_gpu_and_never_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ReformerConfig(vocab_size=9)
    monkeypatch.setattr(gpu, "problem", lambda device: "" if device.type == "cuda" else "unused")
    assert backend_reason(config, "cuda")[0] == "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend_reason(config, "cpu")[0] != "triton"
    assert choose("auto", torch.zeros(1)) != "triton"


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_a_gpu_that_triton_does_not_support_gets_torch(
    no_interpreter: None, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    name, why = backend_reason(ReformerConfig(vocab_size=9), "cuda")
    assert name == ("torch" if capability == (7, 5) else "triton")
    if capability == (7, 5):
        assert "needs compute capability 8.0, this GPU has 7.5" in why


def test_without_triton_a_gpu_gets_torch(no_interpreter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    name, why = backend_reason(ReformerConfig(vocab_size=9), "cuda")
    assert (name, why.split(" (")[0]) == ("torch", "triton is not installed")
    with pytest.raises(UserError, match="triton is not installed"):
        backend_reason(ReformerConfig(vocab_size=9, backend="triton"), "cuda")
