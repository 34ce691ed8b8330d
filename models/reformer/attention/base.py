"""What all kinds of heads share: projections, vectors of a learned length, and the way back."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reformer.config import ReformerConfig
from reformer.layers.sublayer import Mixing, Progress, make_norm, record_norm
from reformer.ops.head_gate import gated
from reformer.ops.linear import linear, project

if TYPE_CHECKING:
    from reformer.decode.program import Tape


class Heads(Mixing):
    """A group of attention heads as one branch; subclasses say who sees whom. parts: how many projections, the values'
    the last; unit: scores are a learned temperature times a cosine."""

    turned = False  # queries and keys are turned by their rotary positions

    def __init__(self, config: ReformerConfig, heads: int, parts: int, unit: bool = True) -> None:
        super().__init__()
        self.config, self.heads, self.parts = config, heads, parts
        self.rms = config.norm == "rms"
        self.norm = nn.Identity() if self.rms else make_norm(config, config.d_model)  # project has the RMS norm inside
        self.project = nn.Linear(config.d_model, parts * heads * config.d_head, bias=False)
        self.output = nn.Linear(heads * config.d_head, config.d_model, bias=False)
        self.gate = nn.Parameter(torch.empty(heads, config.d_model)) if config.has_gates else None
        if unit:
            self.temperature = nn.Parameter(torch.empty(heads))

    def lengths(self) -> Tensor | None:
        """[parts - 1, heads]: what queries and keys are brought to; None leaves them as they are."""
        return None

    def split(self, x: Tensor, phase: Tensor | None, group: slice) -> tuple[Tensor, ...]:
        """Queries (where they are not the keys), keys, values, and, if there are gates, their scores [batch, heads of
        group, length, 1]; in memory token by token."""
        flat, turns = self.norm(x).flatten(0, 1), phase if self.turned else None
        weight, lengths, n = self.project.weight, self.lengths(), group.stop - group.start
        if n < self.heads:
            weight = weight.view(self.parts, self.heads, self.config.d_head, -1)[:, group].reshape(-1, weight.shape[1])
            lengths = lengths[:, group] if lengths is not None else None
        gate, backend = self.gate[group] if self.gate is not None else None, self.config.backend
        found = project(flat, weight, self.parts, n, lengths, turns, rms=self.rms, backend=backend, gate=gate)
        return tuple(part.unflatten(0, x.shape[:2]).transpose(1, 2) for part in found)

    def apart(self, parts: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """What `split` gives -> (queries, keys, values; the scores of the gates, if any)."""
        return (parts, None) if self.gate is None else (parts[:-1], parts[-1])

    def step(self, x: Tensor, progress: Progress, state: Any) -> Tensor:
        parts = self.split(x, progress.phase(x.shape[1]), self.all)
        parts, gate = self.apart(parts)
        out = self.step_mix(parts, progress, state)
        return self.joined(gated(out, gate) if gate is not None else out, self.all)

    @abstractmethod
    def step_mix(self, parts: tuple[Tensor, ...], progress: Progress, state: Any) -> Tensor:
        """What new tokens read [batch, heads, new, d_head], before the gates; the state takes them in."""

    def record(self, tape: Tape, source: int, state: Any) -> Tensor | None:
        normed = record_norm(self.norm, tape, source)
        y = tape.matmul(normed, self.recorded_weight())
        if (lengths := self.lengths()) is not None:
            phase = tape.turns if self.turned else None
            tape.heads(y, lengths, phase, self.parts, self.heads, self.config.d_head)
        out = self.record_mix(tape, y, state)
        if self.gate is not None:
            tape.gate(out, tape.matmul(normed, self.gate))
        return tape.matmul(out, self.output.weight)

    def recorded_weight(self) -> Tensor:
        """The projections, with whatever constant `mix` applies to their results."""
        return self.project.weight

    @abstractmethod
    def record_mix(self, tape: Tape, y: Tensor, state: Any) -> Tensor:
        """On a tape: what new tokens read before the gates, [rows, heads * d_head], given y [rows, parts * heads *
        d_head]."""

    def joined(self, out: Tensor, group: slice) -> Tensor:
        """[batch, heads of group, length, d_head] -> [batch, length, d_model]."""
        joined, weight, d = out.transpose(1, 2).flatten(2), self.output.weight, self.config.d_head
        if group.stop - group.start < self.heads:
            weight = weight[:, group.start * d : group.stop * d]
        return linear(joined.flatten(0, 1), weight).unflatten(0, joined.shape[:2])
