"""The Reformer core: LSH attention, reversible layers, exact decoding. Importing it does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reformer.config import ReformerConfig
from reformer.errors import NumericalError

if TYPE_CHECKING:
    from reformer.decode.state import State
    from reformer.model import ReformerLM

__all__ = ["NumericalError", "ReformerConfig", "ReformerLM", "State"]


def __getattr__(name: str) -> Any:
    """Load what needs torch on first use (PEP 562): configuration commands start without it."""
    if name == "ReformerLM":
        from reformer.model import ReformerLM

        return ReformerLM
    if name == "State":
        from reformer.decode.state import State

        return State
    raise AttributeError(f"module 'reformer' has no attribute {name!r}")
