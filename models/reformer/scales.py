"""How large a model's scores are: what heads of pattern `recent` begin with that take over those of `published`.

Published heads score by products of vectors of any length, ours by cosines times a temperature a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reformer.attention.base import Attention
from reformer.layers.context import PassContext
from reformer.model import ReformerLM
from reformer.reversible.autograd import begin
from reformer.reversible.coupling import AttentionCoupling


@torch.no_grad()
def typical_temperatures(model: ReformerLM, tokens: Tensor) -> dict[str, Tensor]:
    """For each group of heads of a model of pattern published: [heads] by the name that its temperature would have, the
    mean length of queries (times that of keys / sqrt(d_head), where they are not unit vectors) over a text.

    tokens: int64 [1, length], no longer than the model's positions.
    """
    names = {id(module): name for name, module in model.named_modules() if isinstance(module, Attention)}
    found: dict[str, Tensor] = {}

    def look(coupling: AttentionCoupling, group: slice, parts: tuple[Tensor, ...]) -> None:
        lengths = [part.norm(dim=-1).mean((0, 2)) for part in parts[:-1]]
        scale = lengths[0] * lengths[1] / math.sqrt(parts[0].shape[-1]) if len(lengths) > 1 else lengths[0]
        name = f"{names[id(coupling.sublayer)]}.temperature"
        found[name] = torch.cat([found[name], scale]) if name in found else scale

    sequence = model.sequence
    streams = begin(sequence.streams, model.embed(tokens), model.embedding_weight())
    sequence.run(streams, PassContext(model.rotary()), observer=look)
    return found
