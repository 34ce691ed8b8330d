"""Decoding and scoring over a network: slices of any number of tokens, and who computes them.

`extend` is the one primitive of prefill, decoding and scoring. A few tokens on a CPU are computed by the model's C
program, on a GPU one token a row by a captured CUDA graph and new texts by the pass of training, all else by PyTorch.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from reformer.backends.dispatch import choose
from reformer.config import ReformerConfig
from reformer.decode.cuda_graph import NEVER, WARMUP, Checks, CudaGraph, autocast_now
from reformer.decode.program import MOST_TOKENS, NativeProgram
from reformer.decode.state import UNKNOWN, DecodingState
from reformer.decode.step import DecodeStep
from reformer.errors import out_of_range
from reformer.layers.axial_positions import AxialPositions
from reformer.layers.context import PassContext
from reformer.layers.embedding import Embedding, check_tokens
from reformer.layers.line_position import LinePositions
from reformer.layers.lm_head import LMHead
from reformer.ops.rotary import Rotary, speeds
from reformer.reversible.autograd import begin
from reformer.reversible.sequence import ReversibleSequence
from reformer.reversible.streams import check_fits

OneToken = Callable[[Tensor], tuple[Tensor, Checks]]


class Network(Protocol):
    """What decoding needs of a model: embedding, reversible layers, head."""

    config: ReformerConfig
    embedding: nn.Parameter
    training: bool
    axial: AxialPositions | None
    line_positions: LinePositions | None
    head: LMHead

    @property
    def sequence(self) -> ReversibleSequence:
        """The reversible layers, for the weights as they are now."""

    def weights_version(self) -> object:
        """Something equal for as long as no weight was changed."""

    def embedding_weight(self) -> Tensor:
        """What tokens start as: [vocab_size, d_model]."""

    def rotary(self, seen: Tensor | None = None) -> Rotary | None:
        """Rotary positions after so many tokens, int64 [batch]; None: none."""

    def embed(self, tokens: Tensor, documents: Tensor | None = None, state: DecodingState | None = None) -> Embedding:
        """How these tokens enter the layers, after those that `state` has seen."""


def new_state(network: Network, batch: int) -> DecodingState:
    """The state before any token."""
    seen = torch.zeros(batch, dtype=torch.int64, device=network.head.weight.device)
    lines = torch.full_like(seen, UNKNOWN) if network.line_positions is not None else None
    return DecodingState(seen, network.sequence.new_caches(batch), lines)


def extend(
    network: Network, tokens: Tensor, state: DecodingState | None, last_only: bool, counts: Tensor | None
) -> tuple[Tensor, DecodingState]:
    """See `ReformerLM.extend`."""
    new, state = state is None, _state_for(network, tokens, state)
    if tokens.shape[1] == 0:
        raise ValueError("extend needs at least one token")
    if (logits := _by_program(network, tokens, state, last_only, counts)) is None and counts is None:
        logits = extend_by_graph(network, tokens, state)
    if logits is not None:
        return logits[:, -1:] if last_only else logits, state
    found, last = list[Tensor](), None
    for h, now in _slices(network, tokens, state, counts, new):
        if last_only:  # of a row that ended in an earlier slice, what it was then
            index = (now - 1).clamp_min(0)[:, None, None].expand(-1, 1, h.shape[2])
            newest = h.gather(1, index)
            last = newest if last is None else torch.where((now > 0)[:, None, None], newest, last)
        else:
            found.append(network.head.logits(h))
    return (network.head(last) if last is not None else torch.cat(found, 1)), state


def score(
    network: Network, tokens: Tensor, targets: Tensor, state: DecodingState | None
) -> tuple[Tensor, DecodingState]:
    """See `ReformerLM.score`."""
    new, state = state is None, _state_for(network, tokens, state)
    found, left = list[Tensor](), targets
    for h, _ in _slices(network, tokens, state, None, new):
        found.append(network.head.nats_of_each(h, left[:, : h.shape[1]]))
        left = left[:, h.shape[1] :]
    return torch.cat(found, 1), state


def stream(
    network: Network, tokens: Tensor, max_tokens: int, draw: Callable[[Tensor], Tensor], stop_token: int | None
) -> Iterator[Tensor]:
    """See `ReformerLM.stream`. draw: logits [batch, vocab_size] -> tokens [batch]."""
    state, ended = None, torch.zeros(tokens.shape[0], dtype=torch.bool, device=tokens.device)
    for _ in range(max_tokens):
        with torch.no_grad():
            logits, state = extend(network, tokens, state, True, None)
            new = draw(logits[:, -1].float())
            if stop_token is not None:
                new = torch.where(ended, stop_token, new)
                ended = ended | (new == stop_token)
        yield new
        if bool(ended.all()):
            return
        tokens = new[:, None]


def _slices(
    network: Network, tokens: Tensor, state: DecodingState, counts: Tensor | None, new: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Slice by slice the merged streams of tokens [batch, n, d_model], and how many of them are real; the state moves
    on. First tokens are read by the pass of training, where that is faster; new: it is known that these are."""
    left = counts if counts is not None else torch.full_like(state.seen, tokens.shape[1])
    sequence, config = network.sequence, network.config
    at_once = sequence.tokens_at_once(len(tokens)) if tokens.shape[1] > 1 else 1
    same = at_once > 1 and not config.chunked and not network.training  # that pass computes what decoding does
    first = at_once if counts is None and same and sequence.prefills and (new or not state.position) else 0
    step = max(1, at_once // 4) if sequence.prefills else at_once  # beside new tokens are those of the caches
    for n, part in enumerate([tokens[:, :first], *tokens[:, first:].split(step, 1)]):
        if part.shape[1]:
            now = left.clamp(0, part.shape[1])
            where = DecodeStep(network.rotary(state.seen), state.seen, now, all_real=counts is None)
            context = PassContext(network.rotary()) if n == 0 else None
            h = _advance(network, sequence, part, state, where, context)
            sequence.streams.check_range()
            yield h, now
            left = left - now


def _state_for(network: Network, tokens: Tensor, state: DecodingState | None) -> DecodingState:
    state = state if state is not None else new_state(network, tokens.shape[0])
    check_tokens(network.config, tokens, state.position if network.config.max_length is not None else 0)
    if tokens.shape[0] != state.batch:
        raise ValueError(f"the state is for a batch of {state.batch}, the tokens are {tokens.shape[0]} rows")
    return state


def _advance(
    network: Network, sequence: ReversibleSequence, tokens: Tensor, state: DecodingState, step: DecodeStep,
    context: PassContext | None = None,
) -> Tensor:  # fmt: skip
    """Merged streams of new tokens; the state moves on. The caller looks at the range. The same fixed-point arithmetic
    as in training. context: of the one pass that reads the first tokens of all texts; None: they go on from the
    caches."""
    embedding = network.embed(tokens, state=state)
    whole = context is not None and bool(sequence.fused)
    pair = begin(sequence.streams, embedding, network.embedding_weight(), whole)
    if context is None:
        sequence.decode(pair, step, state.caches)
    else:
        sequence.prefill(pair, context, state.caches)
    state.seen += step.new
    if state.line_position is not None and embedding.places is not None:
        newest = embedding.places.gather(1, (step.new - 1).clamp_min(0)[:, None])[:, 0]
        state.line_position.copy_(torch.where(step.new > 0, newest, state.line_position))
    return sequence.streams.merge(pair, network.config.block_style == "published")


def _by_program(
    network: Network, tokens: Tensor, state: DecodingState, last_only: bool, counts: Tensor | None
) -> Tensor | None:
    """Logits of a few tokens from C; None where that cannot be."""
    program = _program(network, state) if tokens.numel() <= MOST_TOKENS else None
    if program is None or not (counts is None or (last_only and program.is_shared)):
        return None
    return _run(network, program, tokens, [state], state.seen, last_only, counts)


def extend_each(network: Network, tokens: Tensor, states: Sequence[DecodingState]) -> Tensor:
    """See `ReformerLM.extend_each`."""
    rows = [state.batch for state in states]
    if tokens.dim() != 2 or len(tokens) != sum(rows):
        raise ValueError(f"tokens {list(tokens.shape)} are not of {sum(rows)} rows, as the states are")
    programs = {id(program): program for program in (_program(network, state) for state in states)}
    program = next(iter(programs.values())) if len(programs) == 1 else None
    if program is None or not program.is_shared or tokens.numel() > MOST_TOKENS:
        parts = zip(tokens.split(rows), states, strict=True)
        return torch.cat([extend(network, part, state, True, None)[0] for part, state in parts])[:, -1]
    check_tokens(network.config, tokens, 0)
    for state in states if network.config.max_length is not None else ():
        network.config.check_length(state.position + tokens.shape[1])
    return _run(network, program, tokens, states, torch.cat([state.seen for state in states]), last_only=True)[:, -1]


def _run(
    network: Network, program: NativeProgram, tokens: Tensor, states: Sequence[DecodingState], seen: Tensor,
    last_only: bool, counts: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Logits by a program; the states move on."""
    program.bind([state.kept for state in states])
    logits, bad = program.run(tokens.contiguous(), tokens.shape[1], seen, last_only, counts)
    if bad is not None:
        raise out_of_range(network.sequence.couplings[bad].name, network.config.stream_bits)
    for state in states:
        state.seen += tokens.shape[1] if counts is None else counts
    return logits


def _program(network: Network, state: DecodingState) -> NativeProgram | None:
    """That of the state: the one that others of the same weights have, or its own."""
    if state.program is None and not state.unsupported:
        weights = network.weights_version()
        before, known = _recorded.get(network, (None, lambda: None))
        state.program = known() if before == weights else None
        if state.program is None and (program := _record(network, state)) is not None:
            state.program = program
            if program.is_shared:
                _recorded[network] = (weights, weakref.ref(program))
        state.unsupported = state.program is None
    return state.program


# What takes a network through C, as long as some state has it: (weights_version, the program).
_recorded: WeakKeyDictionary[Network, tuple[object, Callable[[], NativeProgram | None]]] = WeakKeyDictionary()


def _record(network: Network, state: DecodingState) -> NativeProgram | None:
    """The network as a list of operations in C, over this state's caches."""
    c, weight = network.config, network.embedding_weight()
    axial = list(network.axial.tables) if network.axial is not None else []
    fits = weight.dtype == torch.float32 and state.batch <= MOST_TOKENS and len(axial) <= 3
    if not fits or choose(c.backend, weight) != "native":
        return None
    program = NativeProgram(c.d_model, c.stream_bits, state.caches)
    lines = network.line_positions.record(program) if network.line_positions is not None else None
    program.embed(weight.detach().contiguous(), axial, lines)
    program.rotary = network.rotary()
    if program.rotary is not None:
        program.phases = program.phase(speeds(c.d_head, weight.device))
    if not network.sequence.record(program, state.caches):
        return None
    network.head.record(program, concat=c.block_style == "published")
    return program


def extend_by_graph(network: Network, tokens: Tensor, state: DecodingState) -> Tensor | None:
    """Logits of one more token a row from a captured CUDA graph; None where there is none, or none yet."""
    if tokens.device.type != "cuda" or tokens.shape[1] != 1 or torch.cuda.is_current_stream_capturing():
        return None
    decode: OneToken | None = state.graph
    if state.graph is None or state.graph.autocast != autocast_now():
        decode, state.warmup = None, state.warmup + state.fixed_shape
        if state.warmup <= WARMUP:  # by the kernels that will be captured, if those are others
            decode = _fused_token(network, state) if state.warmup > 0 else None
        else:
            state.graph, state.warmup = None, 0
            try:
                decode = state.graph = CudaGraph(one_token(network, state), tokens)
            except RuntimeError as error:  # nothing was computed while capturing: the state is as it was
                state.warmup = NEVER
                warnings.warn(f"decoding goes on without a CUDA graph, slower: {error}", stacklevel=4)
    if decode is None:
        return None
    logits, (places, fits) = decode(tokens)
    check_fits(places, fits, network.config.stream_bits)
    return logits


def one_token(network: Network, state: DecodingState) -> OneToken:
    """tokens [batch, 1] -> (logits, checks of the range), without once waiting for the GPU; the state moves on."""
    state = DecodingState(state.seen, state.caches, state.line_position)  # which a graph may keep that the state keeps

    def decode(tokens: Tensor) -> tuple[Tensor, Checks]:
        sequence = network.sequence
        step = DecodeStep(network.rotary(state.seen), state.seen, torch.ones_like(state.seen), all_real=True)
        h = _advance(network, sequence, tokens, state, step)
        return network.head(h), sequence.streams.take_pending()

    return _fused_token(network, state) or decode


def _fused_token(network: Network, state: DecodingState) -> OneToken | None:
    """`one_token` in a few kernels a layer, for layers that Triton has these for."""
    sequence = network.sequence
    if sequence.fused is None or network.axial is not None:
        return None
    from reformer.reversible.fused_decode import FusedToken  # triton, which not everyone has

    if not FusedToken.fits(sequence):
        return None
    turned = network.rotary() is not None
    return FusedToken(sequence, network.embedding, network.line_positions, network.head, state, turned)
