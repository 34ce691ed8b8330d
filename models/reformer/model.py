"""The language model: its parameters, the parallel pass, the training loss, and decoding by reformer/inference.py."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer import checkpoint, inference, sampling
from reformer.attention import sublayers
from reformer.attention.base import Attention
from reformer.backends.dispatch import choose
from reformer.backends.torch_compile import no_compile
from reformer.config import ReformerConfig
from reformer.decode.state import DecodingState, saved_batch
from reformer.errors import out_of_range
from reformer.layers.axial_positions import AxialPositions
from reformer.layers.context import PassContext, Seed
from reformer.layers.embedding import Embedding, check_tokens
from reformer.layers.feed_forward import FeedForward
from reformer.layers.init import init_weights
from reformer.layers.line_position import LinePositions
from reformer.layers.lm_head import LMHead
from reformer.layers.shorten_maps import ShortenMaps
from reformer.ops.rotary import Rotary
from reformer.reversible.autograd import Checks, Pass, reversible, reversible_loss
from reformer.reversible.build import build_sequence
from reformer.reversible.sequence import ReversibleSequence

HEAD_BIAS = "head.bias"  # the one tensor that a config leaves open


class ReformerLM(nn.Module):
    """A causal language model over token ids (Reformer, arXiv 2001.04451; what differs: the READMEs beside the ops).

    Weights and hash rotations are drawn from config.seed; the global random state is not touched. head_bias: whether
    logits have one, as in checkpoints of transformers 4.
    """

    def __init__(self, config: ReformerConfig, head_bias: bool = False) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = nn.Parameter(torch.empty(c.vocab_size, c.d_model))
        self.axial = AxialPositions(c.axial_shape, c.axial_dims) if c.positions == "axial" else None
        self.line_positions = LinePositions(c.line_positions, c.vocab_size, c.d_model) if c.line_positions else None
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws weights, which `init_weights` replaces
            self.layers = nn.ModuleList(
                nn.ModuleList([*(kind(c, heads) for kind, heads in sublayers(c, i)), FeedForward(c)])
                for i in range(c.n_layers)
            )
            self.groups = ShortenMaps(c) if c.shorten_factor > 1 else None
        self.head = LMHead(c, head_bias)
        if self.embedding.device.type != "meta":
            init_weights(self, c)

    @classmethod
    def from_tensors(cls, config: ReformerConfig, tensors: dict[str, Tensor]) -> ReformerLM:
        """A model of this config with these weights and rotations, which it takes over, in evaluation. Raises
        RuntimeError where names or shapes do not fit."""
        with torch.device("meta"):  # nothing is allocated twice
            model = cls(config, head_bias=HEAD_BIAS in tensors)
        model.load_state_dict(tensors, assign=True)
        return model.eval()

    @classmethod
    def tensor_shapes(cls, config: ReformerConfig, names: Collection[str] = ()) -> dict[str, torch.Size]:
        """Of everything that a model of this config keeps in a file of these names, by name."""
        with torch.device("meta"):
            return {name: t.shape for name, t in cls(config, head_bias=HEAD_BIAS in names).state_dict().items()}

    @property
    def sequence(self) -> ReversibleSequence:
        """The reversible layers, for the weights' type and device as they are now."""
        return build_sequence(self.config, self.layers, self.groups, self.embedding)

    def attention(self) -> Iterator[Attention]:
        """The attention sub-layers, in order."""
        for layer in self.layers:
            yield from layer[:-1]  # type: ignore[index]

    def weights_version(self) -> object:
        """Equal for as long as no weight was changed in place or replaced; of tensors that count no changes, never."""
        tensors = [*self.parameters(), *self.buffers()]
        if any(t.is_inference() for t in tensors):
            return object()
        return [(t.data_ptr(), t._version) for t in tensors]

    def embedding_weight(self) -> Tensor:
        """What tokens start as: [vocab_size, d_model]. Rows have unit mean square in block_style modern."""
        return (
            F.rms_norm(self.embedding, (self.config.d_model,))
            if self.config.block_style == "modern"
            else self.embedding
        )

    def rotary(self, seen: Tensor | None = None) -> Rotary | None:
        """Rotary positions, where the model has them; seen: int64 [batch], tokens before the first; None: none."""
        c = self.config
        if c.positions != "rotary":
            return None
        return Rotary(c.d_head, self.embedding.dtype, self.embedding.device, seen)

    def embed(self, tokens: Tensor, documents: Tensor | None = None, state: DecodingState | None = None) -> Embedding:
        """How these tokens enter the layers, after those that `state` has seen."""
        seen, line = (state.seen, state.line_position) if state is not None else (None, None)
        places = self.line_positions(tokens, line, documents) if self.line_positions is not None else None
        return Embedding(tokens, self.axial, seen, self.line_positions, places)

    def new_pass(
        self, tokens: Tensor, documents: Tensor | None = None, dropout_seed: Seed | None = None,
        checks: Checks | None = None,
    ) -> Pass:  # fmt: skip
        """A text on its way through the layers; as for `loss`."""
        if checks is None or tokens.device.type == "cpu":
            check_tokens(self.config, tokens, 0)
        else:
            most = self.config.vocab_size - 1
            checks.append(([f"tokens beyond 0 to {most}"], ((tokens >= 0) & (tokens <= most)).all().view(1)))
            tokens = tokens.clamp(0, most)
        if self.training and self.config.dropout and dropout_seed is None:
            raise ValueError(f"dropout is {self.config.dropout}: pass dropout_seed, a new integer each step")
        context = PassContext(self.rotary(), documents, dropout_seed if self.training else None)
        concat = self.config.block_style == "published"
        sequence = self.sequence.for_text(tokens.numel(), self.config.d_model)
        return Pass(sequence, self.embed(tokens, documents), context, concat, checks)

    def forward(self, tokens: Tensor, documents: Tensor | None = None, dropout_seed: Seed | None = None) -> Tensor:
        """Logits of the next token: int64 [batch, length] -> [batch, length, vocab_size].

        documents: int [batch, length]; positions of different documents never see each other. dropout_seed: needed in
        training where dropout is not 0; int64 [1] on a GPU if a CUDA graph is to read it. Raises ValueError for tokens
        that do not fit, NumericalError for overflow.
        """
        logits: Tensor = self.head(self._merged(tokens, documents, dropout_seed))
        return logits

    @no_compile
    def _merged(self, tokens: Tensor, documents: Tensor | None, dropout_seed: Seed | None) -> Tensor:
        """The streams at their end, merged."""
        return reversible(self.new_pass(tokens, documents, dropout_seed), self.embedding_weight())

    @no_compile
    def loss(
        self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None, dropout_seed: Seed | None = None,
        checks: Checks | None = None,
    ) -> Tensor:  # fmt: skip
        """Mean nats per target; targets int64 [batch, length], IGNORE_INDEX (-100) is not scored.

        documents: each in one piece. checks: gets (places, bool [n]) of what a GPU has checked and nobody has waited
        for, False where it found a fault; without it a GPU is waited for, and the fault raised as it is on a CPU.
        """
        if targets.shape != tokens.shape:
            raise ValueError(f"targets {list(targets.shape)} and tokens {list(tokens.shape)} differ in shape")
        return reversible_loss(
            self.new_pass(tokens, documents, dropout_seed, checks), self.embedding_weight(), self.head, targets
        )

    def fault_of(self, place: str) -> Exception:
        """What `loss` would have raised for a place of `checks` that is at fault."""
        return ValueError(place) if place.startswith("tokens") else out_of_range(place, self.config.stream_bits)

    @no_compile
    @torch.no_grad()
    def extend(
        self, tokens: Tensor, state: DecodingState | None = None, last_only: bool = False, counts: Tensor | None = None
    ) -> tuple[Tensor, DecodingState]:
        """Logits for new tokens after those already in `state` (None: none), as `forward` over all of them gives.

        tokens: int64 [batch, n], any n >= 1. counts: int64 [batch], how many of each row's are real, the others filling
        up at the end; None: all. Returns ([batch, n, vocab_size], or [batch, 1, vocab_size] of the last real ones with
        last_only; state). The state is updated in place and returned; `state.clone()` branches. No gradients. Chunked
        kinds are decoded bucket by bucket (attention/chunked.py): their chunks depend on the future.
        """
        return inference.extend(self, tokens, state, last_only, counts)

    @no_compile
    @torch.no_grad()
    def extend_each(self, tokens: Tensor, states: Sequence[DecodingState]) -> Tensor:
        """`extend` of several states at once, each with the same bits as by itself on a CPU: int64 tokens [rows of all
        states, n] -> logits of the last ones, [rows, vocab_size]. The states move on. Together only where a C program
        computes them, which needs a CPU, float32 and caches that do not grow; else one after the other."""
        return inference.extend_each(self, tokens, states)

    @no_compile
    @torch.no_grad()
    def score(
        self, tokens: Tensor, targets: Tensor, state: DecodingState | None = None
    ) -> tuple[Tensor, DecodingState]:
        """Nats of each target given the state and the tokens up to it: float [batch, n]; 0 where it is IGNORE_INDEX.

        Never holds n x vocab_size logits of more than one slice.
        """
        return inference.score(self, tokens, targets, state)

    def tokens_at_once(self, rows: int) -> int:
        """Of how many tokens each of so many rows' slices of long texts best are, for `extend` and `score`: few for a
        CPU's cache, as many as there is memory for on a GPU, which reads a text's first slice by one pass."""
        return self.sequence.tokens_at_once(rows)

    def generate(self, tokens: Tensor, max_tokens: int, **options: Any) -> Tensor:
        """All that `stream` gives, int64 [batch, n <= max_tokens]."""
        found = list(self.stream(tokens, max_tokens, **options))
        return torch.stack(found, 1) if found else tokens.new_empty(tokens.shape[0], 0)

    def stream(
        self, tokens: Tensor, max_tokens: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
        min_p: float = 0.0, seed: int = 0, stop_token: int | None = None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Go on from tokens, int64 [batch, n >= 1]: the next one of each row, int64 [batch], again and again.

        The filters are those of reformer/sampling.py; temperature 0 takes the likeliest. A row that drew stop_token
        repeats it, and when all have, nothing more comes.
        """
        generator = torch.Generator(tokens.device).manual_seed(seed)

        def draw(logits: Tensor) -> Tensor:
            return sampling.draw(logits, generator, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)

        return inference.stream(self, tokens, max_tokens, draw, stop_token)

    @torch.no_grad()
    def score_forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """As `score` from the first token on, but by the one pass of `forward`, whose memory grows with n.

        Chunked kinds have two likelihoods: this is the one that training lowers, `score` that of generation.
        """
        h = reversible(self.new_pass(tokens), self.embedding_weight())
        return self.head.nats_of_each(h, targets)

    def new_state(self, batch: int) -> DecodingState:
        """The state before any token."""
        return inference.new_state(self, batch)

    def mark(self, state: DecodingState, tokens: int) -> None:
        """From here on the state can `rewind` to here, until it is told to `unmark`; marks may be nested. tokens: the
        most that come before either. It costs memory for those alone where C files them, else a copy of the state."""
        native = choose(self.config.backend, self.embedding) == "native" and self.embedding.dtype == torch.float32
        state.mark(tokens, native)

    def load_state(self, tensors: dict[str, Tensor]) -> DecodingState:
        """The state that `DecodingState.tensors` took apart, from anyone. ValueError for another model's."""
        state = self.new_state(saved_batch(tensors))
        state.load(tensors)
        return state

    def save_pretrained(self, folder: str | os.PathLike[str], int8: bool = False) -> None:
        """Write model.safetensors and config.yaml, each whole or not at all; int8: matrices in eight bits, a quarter of
        the file, which is read as float32 again."""
        checkpoint.write(self.config, {name: t.detach() for name, t in self.state_dict().items()}, folder, int8)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> ReformerLM:
        """Read what `save_pretrained` or a run directory holds; ValueError if it is missing or damaged."""
        return cls.from_tensors(*checkpoint.read(folder, cls.tensor_shapes, device))
