"""A run as a folder of transformers: the same logits, or all the reasons why that cannot be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from reformer import ReformerConfig
from reformer.config import CHUNKED
from reformer.rehash import draw_rotations
from safetensors.torch import save_file
from torch import Tensor

from reformer_cli.convert.tensor_names import HEAD_BIASES, kind_of, rows
from reformer_cli.convert.tokenizer_json import tokenizer_files
from reformer_cli.convert.weights_files import CONFIG, SAFETENSORS
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.utils.errors import ConfigError, UserError

VERSION = "5.23.0"  # of transformers, whose code the mapping follows
TOKENIZER = "reformer_tokenizer.model"  # ours, so that an import finds the very same
ACTIVATIONS = {"relu": "relu", "squared_relu": "relu2", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
UNSEEN = 1e-5  # the largest difference of a logit that folding the head's bias may make


@dataclass(frozen=True)
class Outgoing:
    """What a folder will hold. notes: what the user should know, a sentence each."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    files: dict[str, bytes]
    notes: list[str]

    def write(self, folder: Path) -> None:
        (folder / CONFIG).write_text(json.dumps(self.config, indent=2) + "\n", "utf-8")
        save_file(self.tensors, folder / SAFETENSORS, metadata={"format": "pt"})
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def to_transformers(
    config: ReformerConfig, tensors: Mapping[str, Tensor], tokenizer: Tokenizer, context: int, hash_seed: str | None
) -> Outgoing:
    """tensors: by our names; context: tokens of training, where the positions set no limit; hash_seed: a number whose
    rotations replace the model's, none for new ones at every call, None: the model's own.

    Raises ConfigError that lists every reason why transformers cannot compute what the model does.
    """
    notes: list[str] = []
    faults, changed, seed = shape_faults(config), dict(tensors), None
    if not faults:
        seed = _hash_seed(config, changed, hash_seed, faults, notes)
        _fold_bias(changed, faults, notes)
    files: dict[str, bytes] = {}
    try:
        files = tokenizer_files(tokenizer, config.max_length or context) | {TOKENIZER: tokenizer.serialise()}
    except UserError as error:
        faults.append(str(error))
    if faults:
        raise ConfigError("transformers cannot compute what this model does", faults)
    if getattr(tokenizer, "model", None) is not None:
        files["spiece.model"] = tokenizer.model  # type: ignore[attr-defined]
    config, changed = _with_positions(config, changed, context, notes)
    content = _fields(config) | {"hash_seed": seed, "eos_token_id": tokenizer.end}
    return Outgoing(content, _renamed(config, changed), files, notes)


def shape_faults(config: ReformerConfig) -> list[str]:
    """Settings that transformers' Reformer has no counterpart for, each with what it has."""
    c, found = config, []
    if c.shorten_factor > 1:
        found.append(f"shorten_factor {c.shorten_factor}: all its layers are on tokens")
    if odd := sorted(set(c.attn_layers) - set(CHUNKED)):
        found.append(f"attn_layers {', '.join(odd)}: it has {' and '.join(CHUNKED)} alone")
    if c.block_style != "published":
        found.append(f"block_style {c.block_style}: it has published (LayerNorm, streams side by side, no softcap)")
    if c.activation not in ACTIVATIONS:
        found.append(f"activation {c.activation}: it has {', '.join(ACTIVATIONS)}")
    if c.positions == "rotary":
        found.append("positions rotary: it adds positions to the embedding (axial, or none as tables of zeros)")
    if c.positions == "axial" and len(c.axial_shape) > 2:
        found.append(f"axial_shape {list(c.axial_shape)}: it evaluates grids of two axes, or one")
    return found


def _hash_seed(
    config: ReformerConfig, tensors: dict[str, Tensor], wanted: str | None, faults: list[str], notes: list[str]
) -> int | None:
    """The seed from which transformers draws these very rotations."""
    names = [name for name in tensors if name.endswith("rotations")]
    if not names:
        return config.seed
    if wanted == "none":
        notes.append("hash_seed is not set: transformers hashes anew at every call, and its logits differ each time")
        return None
    seed = _as_seed(wanted) if wanted is not None else config.seed
    drawn = draw_rotations(tensors[names[0]].shape, seed)
    as_drawn = all(torch.equal(tensors[name].float(), drawn) for name in names)
    if wanted is None and not as_drawn:
        faults.append(
            "hash rotations: it draws the same for all layers from one hash_seed, these are others (put "
            "them in their place with --hash-seed 0, and other buckets with them)"
        )
    elif not as_drawn:
        tensors.update(dict.fromkeys(names, drawn))
        notes.append(f"hash rotations are replaced by those of hash_seed {seed}: logits are no longer this run's")
    notes.append(
        f"hash_seed {seed} makes transformers hash alike at every call, and makes it draw the same random number for "
        "every token when it samples: there, set model.config.hash_seed = None before generate(do_sample=True)"
    )
    return seed


def _as_seed(text: str) -> int:
    try:
        seed = int(text)
        if not -(2**63) <= seed < 2**64:
            raise ValueError
    except ValueError:
        raise UserError(f"--hash-seed {text!r} is no seed", "give a whole number, or none") from None
    return seed


def _fold_bias(tensors: dict[str, Tensor], faults: list[str], notes: list[str]) -> None:
    """transformers 5 adds no bias to the logits: W n + b = W (n + x) where W x = b, and the norm before has a bias."""
    if "head.bias" not in tensors or not bool(tensors["head.bias"].any()):
        return
    weight, bias, shift = (tensors[name].double() for name in ("head.weight", "head.bias", "head.norm.bias"))
    if len(bias) > weight.shape[1]:
        faults.append(
            f"head.bias: it adds none to the logits, and for {len(bias):,} tokens the norm before them, "
            f"{weight.shape[1]:,} wide, cannot take its place"
        )
        return
    x = torch.linalg.lstsq(weight, bias[:, None], driver="gelsd").solution[:, 0]
    folded = (shift + x).float()
    apart = float((weight @ (folded.double() - shift) - bias).abs().max())
    if not apart <= UNSEEN:
        faults.append(
            f"head.bias: it adds none to the logits, and in the norm before them it would be off by {apart:.2g}"
        )
        return
    tensors["head.norm.bias"] = folded
    notes.append(f"head.bias is folded into the norm before the head (logits differ by up to {apart:.1g})")


def _with_positions(
    config: ReformerConfig, tensors: dict[str, Tensor], context: int, notes: list[str]
) -> tuple[ReformerConfig, dict[str, Tensor]]:
    """A model without positions gets tables of zeros, which its kin there cannot do without."""
    if config.positions != "none":
        return config, tensors
    columns = config.chunk_multiple * max(1, math.isqrt(context) // config.chunk_multiple)
    shape, widths = (-(-context // columns), columns), (config.d_model // 2, config.d_model - config.d_model // 2)
    notes.append(f"positions none: there, tables of zeros that end after {shape[0] * columns:,} tokens")
    tables = {f"axial.tables.{axis}": torch.zeros(n, d) for axis, (n, d) in enumerate(zip(shape, widths, strict=True))}
    return replace(config, positions="axial", axial_shape=shape, axial_dims=widths), {**tensors, **tables}


def _fields(config: ReformerConfig) -> dict[str, Any]:
    """config.json, but for hash_seed and eos_token_id."""
    c = config
    plain = len(c.axial_shape) == 1
    return {
        "architectures": ["ReformerModelWithLMHead"],
        "model_type": "reformer",
        "transformers_version": VERSION,
        "dtype": "float32",
        "is_decoder": True,
        "vocab_size": c.vocab_size,
        "hidden_size": c.d_model,
        "num_hidden_layers": c.n_layers,
        "attn_layers": [kind_of(c, layer) for layer in range(c.n_layers)],
        "num_attention_heads": c.n_heads,
        "attention_head_size": c.d_head,
        "feed_forward_size": c.d_ff or 4 * c.d_model,
        "hidden_act": ACTIVATIONS[c.activation],
        "layer_norm_eps": c.norm_epsilon,
        "hidden_dropout_prob": c.dropout,
        "local_attention_probs_dropout_prob": 0.0,
        "lsh_attention_probs_dropout_prob": 0.0,
        "local_attn_chunk_length": c.local_window,
        "lsh_attn_chunk_length": c.lsh_window,
        "local_num_chunks_before": 1,
        "local_num_chunks_after": 0,
        "lsh_num_chunks_before": 1,
        "lsh_num_chunks_after": 0,
        "num_hashes": c.n_hashes,
        "num_buckets": list(c.n_buckets) if len(c.n_buckets) > 1 else c.n_buckets[0],
        "axial_pos_embds": not plain,
        "max_position_embeddings": math.prod(c.axial_shape),
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "use_cache": False,  # its cached decoding computes something else
    } | ({} if plain else {"axial_pos_shape": list(c.axial_shape), "axial_pos_embds_dim": list(c.axial_dims)})


def _renamed(config: ReformerConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, each of its own memory."""
    found = {HEAD_BIASES[0]: torch.zeros(config.vocab_size)}
    for row in rows(config):
        sizes = [math.prod(shape[:-1]) if len(shape) > 1 else shape[0] for _, shape in row.theirs]
        parts = tensors[row.ours].float().split(sizes)
        for (name, shape), part in zip(row.theirs, parts, strict=True):
            found[name] = part.reshape(shape).clone()
    return found
