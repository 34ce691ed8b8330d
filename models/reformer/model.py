"""The language model: embed, reversible trunk, head; training loss and exact incremental decoding."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.attention import make_attention
from reformer.backends import choose
from reformer.backends.compiler import as_written, exporting
from reformer.config import ReformerConfig
from reformer.decode.cuda_graph import by_graph
from reformer.decode.program import MOST_TOKENS, Tape
from reformer.decode.state import State
from reformer.errors import NumericalError
from reformer.layers.embedding import Source
from reformer.layers.init import initialise
from reformer.layers.line_position import UNKNOWN, Columns
from reformer.layers.lm_head import Head
from reformer.layers.sublayer import Context, FeedForward, Mixing, Progress
from reformer.ops.rotary import AxialPositions, Rotary, speeds
from reformer.ops.rowwise import rows_for
from reformer.reversible.autograd import reversible, reversible_loss
from reformer.reversible.groups import Groups
from reformer.reversible.sequence import Coupling, Trunk, merge
from reformer.reversible.shorten import Shortened

EXTEND_AT_ONCE = 4096  # tokens of one slice of a long extend


def activation_bytes(config: ReformerConfig, wide: int, low: int = 2) -> int:
    """Of all layers, a token, about: what their graphs hold. wide, low: bytes of a number in streams, in products."""
    heads, d_ff = config.n_heads * config.d_head, config.d_ff or 4 * config.d_model
    attention = config.d_model * (wide + low) + heads * 8 * low
    feed_forward = config.d_model * (wide + low) + 3 * d_ff * low
    grouped = len(config.group_layers)
    layers = config.n_layers - grouped + grouped / config.shorten
    return math.ceil(layers * (attention + feed_forward))


class ReformerLM(nn.Module):
    """A causal language model over token ids (Reformer, arXiv 2001.04451; what differs: the READMEs beside the ops).

    Weights and hash rotations are drawn from config.seed; the global random state is not touched.
    """

    def __init__(self, config: ReformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.axial = AxialPositions(config.axial_shape, config.axial_dims) if config.positions == "axial" else None
        self.columns = Columns(config.columns, config.vocab_size, config.d_model) if config.columns else None
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws weights, which `initialise` replaces
            self.layers = nn.ModuleList(
                nn.ModuleList([*make_attention(config, i), FeedForward(config)]) for i in range(config.n_layers)
            )
            self.groups = Groups(config) if config.shorten > 1 else None
        self.head = Head(config, self.embedding if config.tie_embeddings else None)
        if self.embedding.device.type != "meta":
            initialise(self)

    @property
    def trunk(self) -> Trunk:
        c = self.config
        dtype = self.embedding.dtype
        of_gradients = torch.bfloat16 if c.gradient_streams == "bfloat16" else dtype
        rows, device = rows_for(c.backend, self.embedding), self.embedding.device
        group = c.head_group or c.n_heads
        trunk = Trunk(
            self._couplings(range(c.n_layers)), c.stream_bits, c.dropout, c.workspace_tokens, dtype, of_gradients, rows,
            group, device, c.offload_streams, activation_bytes(c, self.embedding.dtype.itemsize),
            c.kept_activations * 2**20,
        )  # fmt: skip
        if self.groups is None:
            return trunk
        among = c.group_layers
        inner = replace(trunk, couplings=self._couplings(among))
        shortened = Coupling(1, 0, Shortened(self.groups, inner), f"groups of {c.shorten} tokens")
        before, after = self._couplings(range(among.start)), self._couplings(range(among.stop, c.n_layers))
        return replace(trunk, couplings=[*before, shortened, *after])

    def _couplings(self, layers: range) -> list[Coupling]:
        """Of these layers, in order."""
        return [
            Coupling(1, 0, part, f"layer {i} attention")
            if isinstance(part, Mixing)
            else Coupling(0, 1, part, f"layer {i} feed-forward")
            for i in layers
            for part in self.layers[i]  # type: ignore[attr-defined]
        ]

    def table(self) -> Tensor:
        """What tokens start as: [vocab_size, d_model]. Rows have unit mean square under norm: rms."""
        return F.rms_norm(self.embedding, (self.config.d_model,)) if self.config.norm == "rms" else self.embedding

    def rotary(self, starts: Tensor | None = None) -> Rotary | None:
        """Rotary positions, where the model has them; starts: int64 [batch], where rows begin; None: at 0."""
        c = self.config
        if c.positions != "rotary":
            return None
        return Rotary(c.d_head, c.rotary_base, self.embedding.dtype, self.embedding.device, starts)

    def _check_tokens(self, tokens: Tensor, start: int) -> None:
        if tokens.dim() != 2:
            raise ValueError(f"tokens must be [batch, length], not {list(tokens.shape)}")
        limit = self.config.max_length
        if limit is not None and start + tokens.shape[1] > limit:
            raise ValueError(
                f"{start + tokens.shape[1]} tokens exceed the {limit} of axial_shape {self.config.axial_shape}"
            )
        if tokens.numel() and not exporting():
            low, high = int(tokens.min()), int(tokens.max())
            if low < 0 or high >= self.config.vocab_size:
                raise ValueError(f"token ids from {low} to {high} do not fit vocab_size {self.config.vocab_size}")

    def _begun(self, tokens: Tensor, documents: Tensor | None, dropout_seed: int | None) -> tuple[Source, Context]:
        """What both streams start as, and what the pass knows besides."""
        self._check_tokens(tokens, 0)
        if self.training and self.config.dropout and dropout_seed is None:
            raise ValueError(f"dropout is {self.config.dropout}: pass dropout_seed, a new integer each step")
        context = Context(self.rotary(), documents, dropout_seed if self.training else None)
        return self.source(tokens, documents), context

    def source(self, tokens: Tensor, documents: Tensor | None = None, state: State | None = None) -> Source:
        """How these tokens enter the trunk, after those that `state` has seen."""
        starts, before = (state.starts, state.column) if state is not None else (None, None)
        places = self.columns(tokens, before, documents) if self.columns is not None else None
        return Source(tokens, self.axial, starts, self.columns, places)

    def forward(self, tokens: Tensor, documents: Tensor | None = None, dropout_seed: int | None = None) -> Tensor:
        """Logits of the next token: int64 [batch, length] -> [batch, length, vocab_size].

        documents: int [batch, length]; positions of different documents never see each other. dropout_seed: needed in
        training where dropout is not 0. Raises ValueError for tokens that do not fit, NumericalError for overflow.
        """
        logits: Tensor = self.head(self._merged(tokens, documents, dropout_seed))
        return logits

    @as_written
    def _merged(self, tokens: Tensor, documents: Tensor | None, dropout_seed: int | None) -> Tensor:
        """The streams at the end of the trunk, merged."""
        source, context = self._begun(tokens, documents, dropout_seed)
        return reversible(self.trunk, source, self.table(), context, concat=self.config.merge == "concat")

    @as_written
    def loss(
        self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None, dropout_seed: int | None = None
    ) -> Tensor:
        """Mean nats per target (design section 5); targets int64 [batch, length], -100 is not scored."""
        if targets.shape != tokens.shape:
            raise ValueError(f"targets {list(targets.shape)} and tokens {list(tokens.shape)} differ in shape")
        source, context = self._begun(tokens, documents, dropout_seed)
        concat = self.config.merge == "concat"
        return reversible_loss(self.trunk, source, self.table(), context, self.head, targets, concat=concat)

    def start(self, batch: int) -> State:
        """The state before any token."""
        starts = torch.zeros(batch, dtype=torch.int64, device=self.embedding.device)
        layers = [c.branch.start(batch) for c in self.trunk.couplings]
        return State(starts, layers, torch.full_like(starts, UNKNOWN) if self.columns is not None else None)

    def _advance(self, tokens: Tensor, state: State, counts: Tensor) -> Tensor:
        """Merged streams of new tokens; the state moves on."""
        trunk = self.trunk
        h = self.move(trunk, tokens, state, counts)
        trunk.settle()
        return h

    @torch.no_grad()
    def move(self, trunk: Trunk, tokens: Tensor, state: State, counts: Tensor, whole: bool = False) -> Tensor:
        """`_advance` that leaves it to the caller to settle. The same fixed-point arithmetic as in training."""
        progress = Progress(self.rotary(state.starts), state.starts, counts, whole)
        source = self.source(tokens, state=state)
        streams = source.begin(trunk, self.table())
        for c, layer in zip(trunk.couplings, state.layers, strict=True):
            trunk.add_(streams[c.target], c.branch.step(trunk.read(streams[c.source]), progress, layer), c.name)
        state.starts += counts
        if state.column is not None and source.places is not None:
            newest = source.places.gather(1, (counts - 1).clamp_min(0)[:, None])[:, 0]
            state.column.copy_(torch.where(counts > 0, newest, state.column))
        return merge(trunk, streams, self.config.merge == "concat")

    def _begin(self, tokens: Tensor, state: State | None) -> State:
        state = state if state is not None else self.start(tokens.shape[0])
        self._check_tokens(tokens, state.position if self.config.max_length is not None else 0)
        if tokens.shape[0] != state.batch:
            raise ValueError(f"the state is for a batch of {state.batch}, the tokens are {tokens.shape[0]} rows")
        return state

    @as_written
    @torch.no_grad()
    def extend(
        self, tokens: Tensor, state: State | None = None, last_only: bool = False, counts: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Logits for new tokens after those already in `state` (None: none), as `forward` over all of them gives.

        tokens: int64 [batch, n], any n >= 1. counts: int64 [batch], how many of each row's are real, the others filling
        up at the end; None: all. Returns ([batch, n, vocab_size], or [batch, 1, vocab_size] of the last real ones with
        last_only; state). The state is updated in place and returned; `state.clone()` branches. No gradients. Pattern
        `published` is decoded by the ring rule (attention/published.py): its chunks depend on the future.
        """
        state = self._begin(tokens, state)
        if tokens.shape[1] == 0:
            raise ValueError("extend needs at least one token")
        if counts is None and (logits := self._by_tape(tokens, state)) is None:
            logits = by_graph(self, tokens, state)
        if counts is None and logits is not None:
            return logits[:, -1:] if last_only else logits, state
        left = counts if counts is not None else torch.full_like(state.starts, tokens.shape[1])
        found: list[Tensor] = []
        last = None
        for part in tokens.split(max(1, EXTEND_AT_ONCE // tokens.shape[0]), 1):
            now = left.clamp(0, part.shape[1])
            h = self._advance(part, state, now)
            if last_only:  # of a row that ended in an earlier slice, what it was then
                index = (now - 1).clamp_min(0)[:, None, None].expand(-1, 1, h.shape[2])
                newest = h.gather(1, index)
                last = newest if last is None else torch.where((now > 0)[:, None, None], newest, last)
            else:
                found.append(self.head(h))
            left = left - now
        return (self.head(last) if last is not None else torch.cat(found, 1)), state

    def _by_tape(self, tokens: Tensor, state: State) -> Tensor | None:
        """Logits of a few tokens from C in one call; None where that cannot be."""
        if tokens.numel() > MOST_TOKENS:
            return None
        if state.tape is None and not state.untaped:
            state.tape = self._record(state)
            state.untaped = state.tape is None
        if state.tape is None:
            return None
        logits, bad = state.tape.run(tokens.contiguous(), tokens.shape[1], state.starts)
        if bad is not None:
            raise NumericalError(self.trunk.couplings[bad].name, "values leave the range of the residual streams")
        state.starts += tokens.shape[1]
        return logits

    def _record(self, state: State) -> Tape | None:
        """The model as a list of operations in C, over this state's rings."""
        c = self.config
        axial = list(self.axial.tables) if self.axial is not None else []
        fits = self.embedding.dtype == torch.float32 and state.batch <= MOST_TOKENS and len(axial) <= 3
        if not fits or choose(c.backend, self.embedding) != "native":
            return None
        tape = Tape(state.batch, c.d_model, c.stream_bits)
        columns = None
        if self.columns is not None and state.column is not None:
            columns = tape.columns(self.columns, state.column)
        tape.embed(self.table().detach().contiguous(), axial, columns)
        tape.rotary = self.rotary()
        if c.positions == "rotary":
            tape.turns = tape.phase(speeds(c.d_head, c.rotary_base, self.embedding.device))
        for n, (coupling, layer) in enumerate(zip(self.trunk.couplings, state.layers, strict=True)):
            added = coupling.branch.record(tape, coupling.source, layer)
            if added is None:
                return None
            tape.add(coupling.target, added, n)
        self.head.record(tape, concat=c.merge == "concat")
        return tape

    @as_written
    @torch.no_grad()
    def score(self, tokens: Tensor, targets: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Nats of each target given the state and the tokens up to it: float [batch, n]; 0 where the target is -100.

        Never holds n x vocab_size logits of more than one slice.
        """
        state = self._begin(tokens, state)
        found = []
        step = max(1, EXTEND_AT_ONCE // tokens.shape[0])
        for part, aims in zip(tokens.split(step, 1), targets.split(step, 1), strict=True):
            h = self._advance(part, state, torch.full_like(state.starts, part.shape[1]))
            found.append(self.head.nats_of_each(h, aims))
        return torch.cat(found, 1), state

    @torch.no_grad()
    def score_forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """As `score` from the first token on, but by the one pass of `forward`, whose memory grows with n.

        Pattern `published` has two likelihoods: this is the one that training lowers, `score` that of generation.
        """
        source, context = self._begun(tokens, None, None)
        h = reversible(self.trunk, source, self.table(), context, concat=self.config.merge == "concat")
        step = max(1, EXTEND_AT_ONCE // tokens.shape[0])
        parts = zip(h.split(step, 1), targets.split(step, 1), strict=True)
        return torch.cat([self.head.nats_of_each(part, aims) for part, aims in parts], 1)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model.safetensors and config.yaml, each whole or not at all."""
        from reformer.checkpoint import save_pretrained

        save_pretrained(self, folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], device: Any = "cpu") -> ReformerLM:
        """Read what `save_pretrained` or a run directory holds; ValueError if it is missing, damaged or newer."""
        from reformer.checkpoint import from_pretrained

        return from_pretrained(folder, device)
