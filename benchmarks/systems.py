"""The systems that are compared, each as a function that takes one training step (forward and backward).

All have the published novel model's sizes: d_model 256, 2 heads of 64, d_ff 512, vocabulary 320; 6 layers there.
Peers are set up as their documentation asks, with the same hash: 64-token chunks, one round, about one bucket for 64
tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from reformer import ReformerConfig, ReformerLM
from torch import Tensor, nn

VOCAB_SIZE, CHUNK = 320, 64
SIZES = {"vocab_size": VOCAB_SIZE, "d_model": 256, "n_heads": 2, "d_head": 64, "d_ff": 512}
LAYERS = 6

Step = Callable[[Tensor], Tensor]


def factors(length: int) -> tuple[int, int]:
    """Two even factors whose product is about length / CHUNK buckets, at least 4."""
    power = max(2, round(math.log2(length / CHUNK)))
    return 2 ** (power // 2), 2 ** (power - power // 2)


def _ours(length: int, device: str, **changes: object) -> tuple[nn.Module, Step]:
    settings: dict[str, object] = SIZES | {
        "n_hashes": 1,
        "n_buckets": factors(length),
        "far_buckets": 0,  # one round, as the peers have
        "local_window": CHUNK,
        "lsh_window": CHUNK,
    }
    if device != "cpu":
        settings["chunk_tokens"] = 65_536  # a GPU wants large slices, a CPU such as stay in its cache
    model = ReformerLM(ReformerConfig(**(settings | changes))).to(device)  # type: ignore[arg-type]
    return model, lambda tokens: model.loss(tokens[:, :-1], tokens[:, 1:], checks=[])  # nothing is waited for


def ours(length: int, device: str, layers: int = LAYERS) -> tuple[nn.Module, Step]:
    """One local head and one LSH head in every layer, as by default."""
    return _ours(length, device, n_layers=layers)


def full(length: int, device: str, layers: int = LAYERS) -> tuple[nn.Module, Step]:
    """The same model with full attention through scaled_dot_product_attention: the ordinary Transformer."""
    return _ours(length, device, n_layers=layers, attn_layers=("full",))


def huggingface(length: int, device: str, layers: int = LAYERS) -> tuple[nn.Module, Step]:
    """transformers' ReformerModelWithLMHead, local and LSH layers in turn."""
    from transformers import ReformerConfig as Config
    from transformers import ReformerModelWithLMHead

    rows = 2 ** (length.bit_length() // 2)
    config = Config(
        vocab_size=VOCAB_SIZE, hidden_size=256, num_attention_heads=2, attention_head_size=64, feed_forward_size=512,
        attn_layers=["local", "lsh"] * (layers // 2), num_hashes=1, num_buckets=list(factors(length)), is_decoder=True,
        axial_pos_shape=(rows, length // rows), axial_pos_embds_dim=(64, 192), max_position_embeddings=length,
        hidden_dropout_prob=0.0, local_attention_probs_dropout_prob=0.0, use_cache=False,
    )  # fmt: skip
    model = ReformerModelWithLMHead(config).to(device).train()
    return model, lambda tokens: model(input_ids=tokens[:, :-1], labels=tokens[:, :-1]).loss


def lucidrains(length: int, device: str, layers: int = LAYERS) -> tuple[nn.Module, Step]:
    """reformer-pytorch's ReformerLM, one of two heads local."""
    from reformer_pytorch import ReformerLM as Model

    model = Model(
        num_tokens=VOCAB_SIZE, dim=256, depth=layers, max_seq_len=length, heads=2, dim_head=64, bucket_size=CHUNK,
        n_hashes=1, ff_mult=2, ff_chunks=1, causal=True, n_local_attn_heads=1, axial_position_emb=True,
        axial_position_shape=(length // 64, 64),
    )  # fmt: skip
    model = model.to(device).train()

    def step(tokens: Tensor) -> Tensor:
        logits = model(tokens[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return model, step


SYSTEMS = {"reformer": ours, "transformers": huggingface, "reformer-pytorch": lucidrains, "full attention": full}


def tokens(length: int, device: str) -> Tensor:
    """[1, length + 1]: text-like, so that buckets fill unevenly: words drawn by Zipf's law, spelled in tokens."""
    draw = torch.Generator().manual_seed(0)
    words = torch.randint(0, VOCAB_SIZE, (2000, 5), generator=draw)
    weights = 1 / torch.arange(1, 2001, dtype=torch.float64)
    picked = torch.multinomial(weights, length // 5 + 1, replacement=True, generator=draw)
    return words[picked].view(1, -1)[:, : length + 1].to(device)
