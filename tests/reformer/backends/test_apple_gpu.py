"""What an Apple GPU is asked for (`--device mps`), watched on a CPU: no float64, which it does not have, and no
operation that PyTorch's own table has no kernel for there."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchgen
import yaml
from builders.models import VARIANTS, small, tokens
from reformer.backends import dtypes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reformer_cli.config.schema import TrainConfig
from reformer_cli.data.batches import Batch
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.training.distributed import World
from reformer_cli.training.gradients import Gradients, LoadedBatch
from reformer_cli.training.optimizers import OPTIMIZERS, make_optimizers
from reformer_cli.training.state import TrainState

TABLE = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
# What a CPU takes for scaled_dot_product_attention, for which an Apple GPU has a kernel of its own, and a copy that is
# a cast on one device; what times an optimiser.
OF_CPUS = ("_scaled_dot_product_flash_attention_for_cpu", "_to_copy", "profiler::")
FEW = ("default", "full, published style, axial", "chunked", "groups of 3")  # whose operations are not each other's


@cache
def table() -> dict[str, dict[str, Any]]:
    return {
        f["func"].split("(")[0]: f for f in yaml.load(TABLE.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    }


def runs_there(name: str) -> bool:
    entry = table()[name]
    if "structured_delegate" in entry:
        return runs_there(entry["structured_delegate"])
    keys = [key.strip() for listed in entry.get("dispatch", {"Composite": ""}) for key in listed.split(",")]
    return "MPS" in keys or any(key.startswith("Composite") for key in keys)


class Watch(TorchDispatchMode):
    """Counts what is asked for, and what gives float64 to a tensor that would be on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.wide = Counter[str](), Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        overload = "" if func._overloadname == "default" else f".{func._overloadname}"
        name = func._schema.name.removeprefix("aten::") + overload
        self.asked[name] += 1
        leaves = [x for x in tree_leaves(found) if isinstance(x, torch.Tensor)]
        self.wide[name] += sum(x.dtype in (torch.float64, torch.complex128) for x in leaves)
        return found

    def check(self) -> None:
        assert len(self.asked) > 30
        assert not [name for name, times in self.wide.items() if times]
        assert not [x for x in self.asked if not x.startswith(OF_CPUS) and not runs_there(x)]


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """As if the CPU were one. Rotary turns are made in float64 on the CPU there, and are no work of the device."""
    from reformer.ops import rotary
    from reformer.reversible import loss, sequence

    from reformer_cli.sampling import filters
    from reformer_cli.training import gradients

    for module in (dtypes, loss, filters, gradients):
        monkeypatch.setattr(module, "widest", lambda device: torch.float32)
    monkeypatch.setattr(sequence.ReversibleSequence, "prefills", property(lambda self: True))
    made = rotary.Rotary.phase

    def phase(self: rotary.Rotary, here: slice) -> torch.Tensor:
        with torch.utils._python_dispatch._disable_current_modes():
            return made(self, here)

    monkeypatch.setattr(rotary.Rotary, "phase", phase)
    return Watch()


@pytest.mark.parametrize("variant", FEW)
def test_training_and_reading(variant: str, apple: Watch) -> None:
    model = small(backend="torch", dropout=0.1, **VARIANTS[variant]).train()
    documents = torch.arange(70).div(40, rounding_mode="floor").expand(2, -1)
    ids = tokens(71)
    read = LoadedBatch(Batch(ids[:, :-1], ids[:, 1:], documents), 200.0, 140)
    with apple:
        _, _, problem = Gradients(model, TrainConfig(steps=1), World(0, 1, "cpu")).of(read, TrainState())
        model.eval()
        _, state = model.extend(ids[:, :50])
        model.extend(ids[:, 50:52], state)
        model.score(ids[:, :-1], ids[:, 1:])
        model.generate(ids, 2, temperature=0)
    assert problem == ""
    apple.check()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers(name: str, apple: Watch) -> None:
    model, ids = small(backend="torch"), tokens(41)
    optimizers = make_optimizers(model, TrainConfig(optimizer=name))
    with apple:
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        for optimizer in optimizers:
            optimizer.step()
    apple.check()


def test_drawing(apple: Watch) -> None:
    ways = {
        "typical_p": 0.9, "min_p": 0.01, "top_n_sigma": 3.0, "xtc_probability": 0.5, "repetition_penalty": 1.1,
        "presence_penalty": 0.1, "frequency_penalty": 0.1, "dynatemp_range": 0.2, "top_k": 20, "top_p": 0.9,
    }  # fmt: skip
    sampler = Sampler(small(backend="torch"), SamplingConfig(seed=1, num_samples=2, **ways), 0)
    again = Sampler(small(backend="torch"), SamplingConfig(seed=1, mirostat=2), 0)
    sampler.read(tokens(20)[0].tolist())
    again.read(tokens(20)[0].tolist())
    with apple:
        for _ in range(3):
            sampler.draw(), again.draw()
    apple.check()
