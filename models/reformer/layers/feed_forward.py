"""The feed-forward sub-layer: norm, widen, non-linearity, narrow."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from reformer.config import ReformerConfig
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep
from reformer.layers.norm import make_norm, record_norm
from reformer.layers.sublayer import Sublayer
from reformer.ops.linear import squared_relu_mlp

APPROXIMATION = {"gelu": "none", "gelu_tanh": "tanh"}


class FeedForward(Sublayer):
    """squared_relu: arXiv 2109.08668; swiglu: arXiv 2002.05202."""

    def __init__(self, config: ReformerConfig) -> None:
        super().__init__()
        d_ff = config.d_ff or 4 * config.d_model
        biases = config.block_style == "published"
        self.kind, self.backend = config.activation, config.backend
        self.fused = self.kind == "squared_relu" and not biases
        self.norm = make_norm(config, config.d_model)
        self.widen = nn.Linear(config.d_model, d_ff * (2 if self.kind == "swiglu" else 1), bias=biases)
        self.output = nn.Linear(d_ff, config.d_model, bias=biases)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, d_model] -> [batch, length, d_model]; positions do not meet."""
        if self.fused:
            return squared_relu_mlp(x.flatten(0, 1), self.widen.weight, self.output.weight, self.backend).view(x.shape)
        h = self.widen(self.norm(x))
        if self.kind == "squared_relu":
            h = F.relu(h).square()
        elif self.kind == "swiglu":
            gate, h = h.chunk(2, -1)
            h = F.silu(gate) * h
        else:
            h = F.relu(h) if self.kind == "relu" else F.gelu(h, approximate=APPROXIMATION[self.kind])
        added: Tensor = self.output(h)
        return added

    def decode(self, x: Tensor, step: DecodeStep, cache: Any) -> Tensor:
        added: Tensor = self(x)
        return added

    def record(self, program: NativeProgram, reads: int, cache: Any) -> Tensor | None:
        h = program.matmul(record_norm(self.norm, program, reads), self.widen.weight, self.widen.bias)
        return program.matmul(program.activate(self.kind, h), self.output.weight, self.output.bias)
