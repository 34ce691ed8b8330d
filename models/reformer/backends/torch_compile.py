"""How the model behaves under torch.export, which writes down what runs, and torch.compile, which replaces it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def is_exporting() -> bool:
    """Whether torch.export is tracing: tensors then have shapes but no values, which cannot be checked nor kept."""
    known = getattr(torch.compiler, "is_exporting", None)  # torch 2.7
    return bool(known()) if known is not None else False


def no_compile(function: Callable[P, T]) -> Callable[P, T]:
    """A function that torch.compile leaves as it is: of reversible layers it would compile the forward pass, not what
    backward runs again, which then would not rebuild the same bits."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        # A decorator of torch.compiler would import the compiler, a second of every start.
        chosen = torch.compiler.disable(function) if torch.compiler.is_dynamo_compiling() else function
        return chosen(*args, **kwargs)

    return call
