"""Small models whose every part counts, in the variants that tests go through."""

from __future__ import annotations

import torch
from reformer import ReformerConfig, ReformerLM

VARIANTS: dict[str, dict] = {
    "default": {},
    "lsh+local": {"attn_layers": ("lsh", "local"), "lsh_window": 9, "n_hashes": 3},
    "lsh, swiglu": {"attn_layers": ("lsh",), "lsh_window": 4, "activation": "swiglu"},
    "full, published style, axial": {
        "attn_layers": ("full", "mixed"), "block_style": "published", "positions": "axial",
        "axial_shape": (40, 40), "axial_dims": (16, 16), "activation": "gelu",
    },
    "chunked": {
        "attn_layers": ("chunked_local", "chunked_lsh"), "positions": "none", "local_window": 12, "lsh_window": 8,
        "n_hashes": 2,
    },
    "one slice": {"chunk_tokens": 4096},
    "groups of heads": {"attn_layers": ("mixed", "lsh", "full"), "chunk_heads": 2, "n_hashes": 2, "lsh_window": 5},
    "approximate gelu": {"activation": "gelu_tanh", "block_style": "published", "norm_epsilon": 1e-5},
    "factorised buckets": {"n_buckets": (4, 4), "activation": "relu"},
    "far round": {
        "n_buckets": (4,), "far_buckets": 24, "n_hashes": 2, "lsh_window": 3, "attn_layers": ("lsh", "mixed"),
    },
    "line positions": {"line_positions": 6, "n_hashes": 2, "lsh_window": 5},
    "line positions, axial": {
        "line_positions": 3, "positions": "axial", "axial_shape": (40, 40), "axial_dims": (16, 16),
    },
    "groups of 3": {
        "shorten_factor": 3, "n_layers": 4, "attn_layers": ("mixed", "lsh"), "n_hashes": 2, "lsh_window": 5,
    },
    "groups, published style, axial": {
        "shorten_factor": 4, "vanilla_layers": (0, 2), "block_style": "published", "positions": "axial",
        "axial_shape": (40, 40), "axial_dims": (16, 16), "chunk_heads": 1,
    },
}  # fmt: skip

CAUSAL = [name for name in VARIANTS if name != "chunked"]  # its chunks move with later text


def small(dtype: torch.dtype = torch.float32, **changes) -> ReformerLM:
    """Two or three layers; output projections are drawn too, since at 0 no layer would do anything."""
    settings = {
        "vocab_size": 50, "d_model": 32, "n_layers": 3, "n_heads": 4, "d_head": 8, "n_buckets": (8,), "far_buckets": 0,
        "lsh_window": 16, "chunk_tokens": 64, "local_window": 20, "stream_bits": 20,
    }  # fmt: skip
    model = ReformerLM(ReformerConfig(**(settings | changes)))
    random = torch.Generator().manual_seed(5)
    for name, p in model.named_parameters():
        if name.endswith("output.weight"):
            p.data.copy_(torch.randn(p.shape, generator=random) * 0.2)
        elif name.endswith("sink"):
            p.data.copy_(2 * torch.rand(p.shape, generator=random))
        elif name.endswith("gate"):
            p.data.copy_(torch.randn(p.shape, generator=random) * 0.2)
        elif name.endswith("temperature"):
            p.data.copy_(4 + torch.rand(p.shape, generator=random))
    for name, b in model.named_buffers():
        if name.endswith("hash_mean"):
            b.copy_(torch.randn(b.shape, generator=random) * 0.1)
    if model.line_positions is not None:  # a token in eight ends its line, some take a space back
        model.line_positions.weight.data.copy_(torch.randn(model.line_positions.weight.shape, generator=random))
        lengths = torch.randint(-1, 4, (50,), generator=random).float()
        model.line_positions.set_token_widths(lengths, (torch.arange(50) % 8 == 3).float())
    return model.to(dtype).eval()


def tokens(length: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(seed))
