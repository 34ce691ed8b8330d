"""Small models whose every part counts, in the variants that tests go through."""

from __future__ import annotations

import torch
from reformer import ReformerConfig, ReformerLM

VARIANTS: dict[str, dict] = {
    "default": {},
    "lsh+local": {"layers": ("lsh", "local"), "windows": (3, 9), "n_hashes": 3},
    "lsh, swiglu": {"layers": ("lsh",), "windows": (4,), "feed_forward": "swiglu"},
    "full, layer norm, axial": {
        "layers": ("full", "mixed"), "norm": "layer", "merge": "concat", "positions": "axial",
        "axial_shape": (40, 40), "axial_dims": (16, 16), "feed_forward": "gelu",
    },
    "published": {
        "pattern": "published", "key_tokens": 1, "layers": ("local", "lsh", "mixed"),
        "positions": "none", "local_window": 12, "windows": (8,), "n_hashes": 2,
    },
    "one slice": {"workspace_tokens": 4096},
    "groups of heads": {"layers": ("mixed", "lsh", "full"), "head_group": 2, "n_hashes": 2, "windows": (5, 16)},
    "approximate gelu": {"feed_forward": "gelu_tanh", "norm": "layer", "norm_epsilon": 1e-5, "head_bias": False},
    "factorised buckets": {"n_buckets": (4, 4), "softcap": 0.0, "feed_forward": "relu"},
    "far round": {"n_buckets": (4, 6), "n_hashes": 2, "windows": (3, 9), "layers": ("lsh", "mixed")},
    "columns": {"columns": 6, "n_hashes": 2, "windows": (5, 16)},
    "columns, axial": {"columns": 3, "positions": "axial", "axial_shape": (40, 40), "axial_dims": (16, 16)},
    "groups of 3": {"shorten": 3, "n_layers": 4, "layers": ("mixed", "lsh"), "n_hashes": 2, "windows": (5, 16)},
    "groups, layer norm, axial": {
        "shorten": 4, "layers_before": 0, "layers_after": 2, "norm": "layer", "merge": "concat", "positions": "axial",
        "axial_shape": (40, 40), "axial_dims": (16, 16), "head_group": 1,
    },
}  # fmt: skip

CAUSAL = [name for name in VARIANTS if name != "published"]  # its chunks move with later text


def small(dtype: torch.dtype = torch.float32, **changes) -> ReformerLM:
    """Two or three layers; output projections are drawn too, since at 0 no layer would do anything."""
    settings = {
        "vocab_size": 50, "d_model": 32, "n_layers": 3, "n_heads": 4, "d_head": 8, "n_buckets": (8,), "windows": (16,),
        "workspace_tokens": 64, "local_window": 20, "stream_bits": 20,
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
        if name.endswith("centre"):
            b.copy_(torch.randn(b.shape, generator=random) * 0.1)
    if model.line_positions is not None:  # a token in eight ends its line, some take a space back
        model.line_positions.weight.data.copy_(torch.randn(model.line_positions.weight.shape, generator=random))
        lengths = torch.randint(-1, 4, (50,), generator=random).float()
        model.line_positions.set_token_widths(lengths, (torch.arange(50) % 8 == 3).float())
    return model.to(dtype).eval()


def tokens(length: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(seed))
