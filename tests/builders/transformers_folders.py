"""Folders as the hub lays them out, made with transformers: random weights, real configs, a tokenizer trained here."""

from __future__ import annotations

import io
import json
import math
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reformer_cli.data.sources import python_reference

transformers = pytest.importorskip("transformers")

VOCAB = 320
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 24, "num_attention_heads": 2, "attention_head_size": 8, "feed_forward_size": 40,
    "attn_layers": ["local", "lsh"], "num_hashes": 2, "num_buckets": [4, 6], "is_decoder": True, "hash_seed": 3,
    "axial_pos_shape": [8, 16], "axial_pos_embds_dim": [8, 16], "max_position_embeddings": 128,
    "local_attn_chunk_length": 16, "lsh_attn_chunk_length": 16, "initializer_range": 0.3, "use_cache": False,
}  # fmt: skip
# What the public crime-and-punishment folder's config.json holds beside the fields of today.
LEFT_OVER: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1, "intermediate_size": 3072, "num_chunks_after": 0, "num_chunks_before": 1,
    "output_past": True, "seed": None, "sinusoidal_pos_embds": False,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 100}},
}  # fmt: skip


def make_model(seed: int = 0, **changes: Any) -> Any:
    """transformers' model with weights that all matter, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.ReformerModelWithLMHead(transformers.ReformerConfig(**(SMALL | changes)))
        for name, parameter in model.named_parameters():
            if name != "lm_head.bias":
                parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def save(model: Any, folder: Path, *, pickled: bool = False, old: bool = False, tokenizer: bool = True) -> Path:
    """As on the hub. pickled: pytorch_model.bin, as the public ones; old: in the format of torch before 1.6, with the
    stray fields of their configs and without a version."""
    folder.mkdir(parents=True, exist_ok=True)
    if pickled:
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
    else:
        model.save_pretrained(folder)
    if old:
        edit_config(folder, transformers_version=None, dtype=None, **LEFT_OVER)
    if tokenizer:
        (folder / "spiece.model").write_bytes(spiece())
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Set fields of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@lru_cache
def spiece(kind: str = "bpe", size: int = VOCAB, **settings: Any) -> bytes:
    """A sentencepiece model with that library's defaults: spaces collapse, line breaks go, rare characters are lost."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(python_reference()[:60_000].splitlines()), model_writer=out, vocab_size=size,
        model_type=kind, character_coverage=1.0, minloglevel=2, num_threads=1, **settings,
    )  # fmt: skip
    return out.getvalue()


def public_style(number: int) -> dict[str, Any]:
    """A random configuration in the style of the two public models, small enough for a test: layers alternate local and
    LSH, or three local ones and an LSH one; two axes of positions; one factor of buckets or two; 1 to 4 rounds."""
    draw = random.Random(number)
    crime = number % 2 == 0
    layers = (
        ["local", "lsh"] * draw.choice([1, 2, 3]) if crime else ["local", "local", "lsh", "local"] * draw.choice([1, 2])
    )
    local, lsh = draw.choice([(16, 16), (8, 8), (32, 32)] if crime else [(16, 32), (8, 16), (12, 24)])
    heads, d_head, d_first, d_rest = (
        draw.choice([2, 4]),
        draw.choice([8, 16]),
        draw.choice([8, 16]),
        draw.choice([24, 48]),
    )
    columns = math.lcm(local, lsh) * draw.choice([1, 2])
    rows = draw.choice([4, 6, 8])
    return {
        "attn_layers": layers, "local_attn_chunk_length": local, "lsh_attn_chunk_length": lsh,
        "num_hashes": draw.choice([1, 2, 4]), "hash_seed": draw.randrange(100),
        "num_buckets": draw.choice([[4, 8], [2, 4], [6, 4]] if crime else [8, 16, [4, 4]]),
        "num_attention_heads": heads, "attention_head_size": d_head, "hidden_size": d_first + d_rest,
        "axial_pos_shape": [rows, columns], "axial_pos_embds_dim": [d_first, d_rest],
        "max_position_embeddings": rows * columns, "feed_forward_size": draw.choice([32, 100]),
        "vocab_size": VOCAB if crime else 258, "hidden_act": draw.choice(["relu", "relu", "gelu"]),
    }  # fmt: skip


def ids(vocab_size: int, length: int, seed: int = 1, batch: int = 2) -> Tensor:
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def logits(model: Any, tokens: Tensor) -> Tensor:
    """Of transformers' model, which seeds the global random state; that is put back."""
    with torch.random.fork_rng(), torch.no_grad():
        return model(tokens).logits
