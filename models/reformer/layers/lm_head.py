"""The head: what both streams have become, normed, as logits of the next token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.config import ReformerConfig
from reformer.decode.program import NativeProgram
from reformer.layers.norm import make_norm, record_norm
from reformer.ops.cross_entropy import cross_entropy, softcapped

AT_ONCE = 4096  # tokens of a slice whose logits exist at a time, on a CPU
LOGITS_AT_ONCE = 2**27  # numbers of such a slice's logits elsewhere
SOFTCAP = 20.0  # Gemma 2 (arXiv 2408.00118) has 30; no softcap is within noise (LOG.md)


class LMHead(nn.Module):
    """Merged streams -> logits. biased: as weights of transformers 4 are, no new model is."""

    def __init__(self, config: ReformerConfig, biased: bool) -> None:
        super().__init__()
        modern = config.block_style == "modern"
        width = config.d_model * (1 if modern else 2)
        self.softcap, self.backend = SOFTCAP if modern else 0.0, config.backend
        self.norm = make_norm(config, width)
        self.weight = nn.Parameter(torch.empty(config.vocab_size, width))
        self.bias = nn.Parameter(torch.empty(config.vocab_size)) if biased else None

    def forward(self, h: Tensor) -> Tensor:
        return softcapped(self.raw_logits(h), self.softcap)

    def raw_logits(self, h: Tensor) -> Tensor:
        """Before the softcap."""
        with torch.autocast(h.device.type, enabled=False):  # half precision would blur the loss itself
            return F.linear(self.norm(h), self.weight, self.bias)

    def nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """Summed over the scored ones of targets [batch, n], given h [batch, n, d]."""
        logits = self.raw_logits(h).flatten(0, 1)
        return cross_entropy(logits, targets.flatten(), self.softcap, backend=self.backend)

    def nats_of_each(self, h: Tensor, targets: Tensor) -> Tensor:
        """[batch, n]: of each target, 0 where it is not scored; logits exist of a slice at a time."""
        parts = zip(self._split(h), self._split(targets), strict=True)
        found = [
            cross_entropy(self.raw_logits(part), aims, self.softcap, reduction="none", backend=self.backend)
            for part, aims in parts
        ]
        return torch.cat(found, 1)

    def logits(self, h: Tensor) -> Tensor:
        """As called, without gradients, and what is made on the way to logits exists of a slice at a time."""
        parts = [self(part) for part in self._split(h)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """x [batch, n, ..] in slices."""
        at_once = AT_ONCE if x.device.type == "cpu" else LOGITS_AT_ONCE // len(self.weight)
        return x.split(max(1, at_once // len(x)), 1)

    def record(self, program: NativeProgram, concat: bool) -> None:
        """The same in C, as what the program ends with."""
        program.begin_head()
        logits = program.matmul(record_norm(self.norm, program, 0, 1, concat=concat), self.weight, self.bias)
        program.finish(program.activate("softcap", logits, self.softcap) if self.softcap else logits)
