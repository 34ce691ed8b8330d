"""Attention in chunks is transformers' Reformer: same weights and rotations, same logits, same training."""

from __future__ import annotations

import math

import pytest
import torch
from reformer import ReformerConfig, ReformerLM
from reformer.attention.chunked import ChunkedLSHAttention
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

HEADS, D_HEAD, D_MODEL, D_FF, VOCAB = 2, 8, 24, 40, 30
SEED = 3


def pair(layers: list[str], n_hashes: int, chunks: tuple[int, int] = (16, 16), grid: tuple[int, int] = (8, 16)):
    """transformers' model with weights that all matter, and ours with the same, in float64."""
    torch.manual_seed(0)
    theirs = transformers.ReformerModelWithLMHead(
        transformers.ReformerConfig(
            vocab_size=VOCAB, hidden_size=D_MODEL, num_attention_heads=HEADS, attention_head_size=D_HEAD,
            feed_forward_size=D_FF, attn_layers=layers, num_hashes=n_hashes, num_buckets=[4, 6], is_decoder=True,
            axial_pos_shape=grid, axial_pos_embds_dim=(8, 16), max_position_embeddings=math.prod(grid),
            local_attn_chunk_length=chunks[0], lsh_attn_chunk_length=chunks[1], hidden_dropout_prob=0.0,
            local_attention_probs_dropout_prob=0.0, hash_seed=SEED, use_cache=False, initializer_range=0.3,
        )
    ).double()  # fmt: skip
    for parameter in theirs.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    config = ReformerConfig(
        vocab_size=VOCAB, d_model=D_MODEL, n_layers=len(layers), n_heads=HEADS, d_head=D_HEAD, d_ff=D_FF,
        attn_layers=tuple(f"chunked_{kind}" for kind in layers), local_window=chunks[0], lsh_window=chunks[1],
        n_hashes=n_hashes, n_buckets=(4, 6), positions="axial", axial_shape=grid, axial_dims=(8, 16),
        block_style="published", activation="relu", stream_bits=24,
    )  # fmt: skip
    ours = ReformerLM(config).double()
    copy(theirs, ours)
    return theirs, ours


def copy(theirs: nn.Module, ours: ReformerLM) -> None:
    def norm(target: nn.Module, source: nn.Module) -> None:
        target.load_state_dict(source.state_dict())

    with torch.no_grad():
        embeddings = theirs.reformer.embeddings
        ours.embedding.copy_(embeddings.word_embeddings.weight)
        assert ours.axial is not None
        for table, weight in zip(ours.axial.tables, embeddings.position_embeddings.weights, strict=True):
            table.copy_(weight.flatten(0, 1))
        for (heads, feed), layer in zip(ours.layers, theirs.reformer.encoder.layers, strict=True):
            norm(heads.norm, layer.attention.layer_norm)
            a = layer.attention.self_attention
            lsh = isinstance(heads, ChunkedLSHAttention)
            parts = [a.query_key, a.value] if lsh else [a.query, a.key, a.value]
            heads.project.weight.copy_(torch.cat([p.weight for p in parts]))
            heads.output.weight.copy_(layer.attention.output.dense.weight)
            norm(feed.norm, layer.feed_forward.layer_norm)
            norm(feed.widen, layer.feed_forward.dense.dense)
            norm(feed.output, layer.feed_forward.output.dense)
            if lsh:
                torch.manual_seed(SEED)  # they draw anew, from this seed, at every call, in float64 here
                heads.rotations.copy_(torch.randn(heads.rotations.shape, dtype=torch.float64))
        norm(ours.head.norm, theirs.reformer.encoder.layer_norm)
        ours.head.weight.copy_(theirs.lm_head.decoder.weight)


def ids(length: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_hashes", [1, 2, 4])
@pytest.mark.parametrize("layers", [["local", "local"], ["lsh", "lsh"], ["local", "lsh", "local", "lsh"]], ids=str)
def test_logits(layers: list[str], n_hashes: int) -> None:
    theirs, ours = pair(layers, n_hashes)
    with torch.no_grad():
        for length in (128, 100, 33, 16, 9):  # the last four they pad, or attend in full
            wanted = theirs.eval()(ids(length)).logits
            assert (ours.eval()(ids(length)) - wanted).abs().max() < 1e-5, length


def test_chunks_of_two_lengths() -> None:
    """They pad to the common multiple of the chunk lengths: whole chunks of padding, which the look-back then meets."""
    theirs, ours = pair(["local", "lsh"], 2, chunks=(24, 8), grid=(6, 24))
    with torch.no_grad():
        for length in (144, 121, 50, 26):
            wanted = theirs.eval()(ids(length)).logits
            assert (ours.eval()(ids(length)) - wanted).abs().max() < 1e-5, length


@pytest.mark.parametrize("n_hashes", [1, 4])
def test_losses_of_training_steps(n_hashes: int) -> None:
    theirs, ours = pair(["local", "lsh", "local", "lsh"], n_hashes)
    theirs.train()
    ours.train()
    # Plain descent: Adam would blow the rounding of near-zero gradients up to whole steps.
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.02, momentum=0.5) for m in (theirs, ours)]
    losses: list[list[float]] = [[], []]
    for step in range(5):
        text = ids(128, seed=step)
        for n, loss in enumerate((theirs(input_ids=text, labels=text).loss, ours.loss(text[:, :], _next(text)))):
            loss.backward()
            losses[n].append(float(loss.detach()))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert abs(losses[0][0] - losses[0][-1]) > 1e-3  # it did train


def _next(text: Tensor) -> Tensor:
    return torch.cat([text[:, 1:], torch.full_like(text[:, :1], -100)], 1)
