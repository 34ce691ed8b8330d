"""The Reformer core: LSH attention, reversible layers, exact decoding. Importing it does not import torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reformer.config import ReformerConfig
from reformer.errors import NumericalError

if TYPE_CHECKING:
    from reformer.decode.state import DecodingState
    from reformer.model import ReformerLM
    from reformer.ops.cross_entropy import IGNORE_INDEX

__all__ = ["IGNORE_INDEX", "DecodingState", "NumericalError", "ReformerConfig", "ReformerLM"]


# What needs torch is loaded on first use (PEP 562): configuration commands start without it.
LAZY = {"DecodingState": "decode.state", "IGNORE_INDEX": "ops.cross_entropy", "ReformerLM": "model"}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(f"reformer.{LAZY[name]}"), name)
    raise AttributeError(f"module 'reformer' has no attribute {name!r}")
