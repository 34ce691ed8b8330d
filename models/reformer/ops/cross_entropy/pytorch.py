"""Cross-entropy of softcapped logits, in PyTorch: the definition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reformer.backends.dtypes import upcast

IGNORE_INDEX = -100  # a target that is not scored, as everywhere in PyTorch


def softcapped(logits: Tensor, softcap: float) -> Tensor:
    """Into +-softcap by tanh (Gemma 2, arXiv 2408.00118); 0 leaves them."""
    return softcap * torch.tanh(logits / softcap) if softcap else logits


def cross_entropy(logits: Tensor, targets: Tensor, softcap: float, reduction: str) -> Tensor:
    """Of logits [n, .., vocab_size], softcapped; targets: int64 [n, ..]. reduction: as in F.cross_entropy."""
    scores = upcast(softcapped(logits, softcap)).movedim(-1, 1)
    return F.cross_entropy(scores, targets, ignore_index=IGNORE_INDEX, reduction=reduction)
