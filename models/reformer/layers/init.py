"""What a model's weights and hash rotations are before it has learnt anything."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reformer.config import ReformerConfig

# Deviation of the first embedding where rms norm brings its rows to a length: the smaller they begin, the further
# a step turns them, and the steps of Adam are all of one size (LOG.md, 2026-11-24).
EMBEDDING = 0.03
TEMPERATURE = 8.0  # of scores between unit queries and keys


def draw_rotations(shape: torch.Size, generator: torch.Generator | int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers for the hash of one layer: from a generator, or from a seed alone, as transformers draws them."""
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    return torch.empty(shape, dtype=dtype).normal_(generator=generator)


@torch.no_grad()
def init_weights(module: nn.Module, config: ReformerConfig) -> None:
    """Draw every weight: matrices with deviation inputs^-1/2, output projections 0: layers add nothing yet."""
    generator = torch.Generator().manual_seed(config.seed)
    for name, p in module.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        if kind in ("bias", "gate") or name.endswith(("output.weight", "line_positions.weight")):
            p.zero_()
        elif kind == "temperature":
            p.fill_(TEMPERATURE)
        elif kind == "sink":  # as a key at a cosine of a half
            p.fill_(TEMPERATURE / 2)
        elif p.dim() == 1:
            p.fill_(1.0)
        else:
            embedding = EMBEDDING if config.block_style == "modern" else 1.0
            deviation = {"embedding": embedding, "head.weight": 0.02}.get(name, p.shape[1] ** -0.5)
            if kind == "key_conv":  # every token as much, and mixed by signs, so that their order counts
                deviation = 1.0
            p.copy_(torch.empty(p.shape).normal_(0.0, deviation, generator=generator))
    for name, b in module.named_buffers():
        if name.endswith("rotations"):
            b.copy_(draw_rotations(b.shape, config.seed if config.chunked else generator))
