"""Whether what runs is only being written down."""

from __future__ import annotations

import torch


def exporting() -> bool:
    """Whether torch.export is tracing: tensors then have shapes but no values, which cannot be checked nor kept."""
    known = getattr(torch.compiler, "is_exporting", None)  # torch 2.7
    return bool(known()) if known is not None else False
