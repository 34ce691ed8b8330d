"""transformers' config.json as a ReformerConfig: every field is mapped, known to have no effect, or refused by name.

The definition of what fields do is transformers 5.23, models/reformer/modeling_reformer.py. No torch here.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from reformer import ReformerConfig

from reformer_cli.convert.transformers_fields import ACTIVATIONS, DEFAULTS, NO_EFFECT, Fields, is_size
from reformer_cli.utils.errors import ConfigError


@dataclass(frozen=True)
class Mapped:
    """A config.json in our terms. context: tokens that its positions can number; end: its eos_token_id; biased: the
    version of transformers that wrote it adds the head's bias; notes: what the user should know, a sentence each."""

    model: ReformerConfig
    context: int
    end: int | None
    biased: bool
    notes: list[str]


def map_config(values: Mapping[str, Any], where: str, seed: int = 0) -> Mapped:
    """config.json's content -> Mapped. where: its name in messages; seed: draws rotations where hash_seed is not set.

    Raises ConfigError that lists every field that cannot be: its name, its value and why.
    """
    fields = Fields(values)
    notes: list[str] = []
    where = f"{where} cannot be brought over"
    if values.get("model_type") != "reformer":
        kind = reprlib.repr(values.get("model_type"))
        raise ConfigError(where, [f"model_type {kind}: not a Reformer of transformers"])
    _whole(fields)
    layers = _layers(fields)
    settings = _sizes(fields) | _local(fields, layers) | _positions(fields)
    context = fields.integer("max_position_embeddings")
    if settings["positions"] == "axial":
        context = min(context, math.prod(settings["axial_shape"]))
    settings |= _hashing(fields, layers, context, seed, notes)
    _notes(fields, layers, notes)
    fields.faults += [
        f"{name} {reprlib.repr(value)}: a field that this program does not know; take it out if it has no effect"
        for name, value in values.items()
        if name not in DEFAULTS and name not in NO_EFFECT
    ]
    if fields.faults:
        raise ConfigError(where, fields.faults)
    period = next(n for n in range(1, len(layers) + 1) if layers == (layers[:n] * len(layers))[: len(layers)])
    settings |= {"attn_layers": [f"chunked_{kind}" for kind in layers[:period]], "n_layers": len(layers)}
    settings |= {"block_style": "published", "stream_bits": 20}  # the latter: as near theirs as float32 is
    try:
        model = ReformerConfig(**settings)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'][:1]))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise ConfigError(where, faults) from None
    return Mapped(model, context, _end(fields), _biased(fields), notes)


def _whole(fields: Fields) -> None:
    """What would make it another kind of model."""
    architectures = fields.get("architectures")
    if architectures and (not isinstance(architectures, list) or "ReformerModelWithLMHead" not in architectures):
        fields.refuse(
            "architectures", "a model for another task; ReformerModelWithLMHead is the one that predicts text"
        )
    fields.only("is_decoder", (True,), "it sees later text, so that it cannot generate; true is what can be")
    fields.only("is_encoder_decoder", (False, None), "not a language model alone")
    fields.only("add_cross_attention", (False, None), "not a language model alone")
    fields.only("pruned_heads", (None, {}), "layers of different widths are not supported")
    fields.only("quantization_config", (None,), "quantised weights are not supported")
    fields.only("auto_map", (None,), "code that comes with a model is never run")


def _layers(fields: Fields) -> tuple[str, ...]:
    layers = fields.get("attn_layers")
    if not isinstance(layers, (list, tuple)) or not layers or not all(kind in ("local", "lsh") for kind in layers):
        fields.refuse("attn_layers", "not a list of local and lsh")
        return ("local",)
    if len(layers) > 1024:
        fields.refuse("attn_layers", f"{len(layers)} layers, 1,024 can be")
    if fields.get("num_hidden_layers") not in (None, len(layers)):
        fields.refuse("num_hidden_layers", f"attn_layers has {len(layers)}")
    return tuple(layers)


def _sizes(fields: Fields) -> dict[str, Any]:
    act = fields.get("hidden_act")
    if act not in ACTIVATIONS:
        fields.refuse("hidden_act", f"not one of {', '.join(ACTIVATIONS)}")
    return {
        "vocab_size": fields.integer("vocab_size", 2, 2**20),
        "d_model": fields.integer("hidden_size", 1, 2**16),
        "n_heads": fields.integer("num_attention_heads", 1, 1024),
        "d_head": fields.integer("attention_head_size", 2, 1024),
        "d_ff": fields.integer("feed_forward_size"),
        "activation": ACTIVATIONS.get(str(act), "relu"),
        "norm_epsilon": fields.number("layer_norm_eps", lambda x: 0 < x < 1, "a number between 0 and 1"),
        "dropout": fields.number("hidden_dropout_prob", lambda x: 0 <= x < 1, "a share from 0 to below 1"),
    }


def _local(fields: Fields, layers: tuple[str, ...]) -> dict[str, Any]:
    if "local" not in layers:
        length = fields.get("local_attn_chunk_length")
        return {"local_window": length} if is_size(length) and length <= 2**20 else {}
    _look_back(fields, "local")
    return {"local_window": fields.integer("local_attn_chunk_length", 1, 2**20)}


def _look_back(fields: Fields, kind: str) -> None:
    fields.only(f"{kind}_num_chunks_before", (1,), "a chunk sees itself and the one before; other numbers cannot be")
    fields.only(f"{kind}_num_chunks_after", (0,), "a chunk that sees the next one sees later text")


def _positions(fields: Fields) -> dict[str, Any]:
    """Axial tables, or the ordinary one, which is axial with one axis."""
    width = fields.integer("hidden_size", 1, 2**16)
    fields.only("axial_pos_embds", (True, False), "not true or false")
    if fields.get("axial_pos_embds") is not True:
        length = fields.integer("max_position_embeddings")
        return {"positions": "axial", "axial_shape": (length,), "axial_dims": (width,)}
    shape, dims = fields.integers("axial_pos_shape"), fields.integers("axial_pos_embds_dim")
    if len(shape) != len(dims):
        fields.refuse("axial_pos_embds_dim", f"{len(dims)} widths for {len(shape)} axes of axial_pos_shape")
    if sum(dims) != width:
        fields.refuse("axial_pos_embds_dim", f"they sum to {sum(dims)}, not to hidden_size {width}")
    return {"positions": "axial", "axial_shape": shape, "axial_dims": dims}


def _hashing(fields: Fields, layers: tuple[str, ...], context: int, seed: int, notes: list[str]) -> dict[str, Any]:
    hash_seed = fields.get("hash_seed")
    if hash_seed is not None and (type(hash_seed) is not int or not -(2**63) <= hash_seed < 2**64):
        fields.refuse("hash_seed", "not a seed that torch takes")
    if "lsh" not in layers:  # the settings of a layer that there is none of: kept where they can be
        apart = Fields(fields.values)
        found = _lsh(apart, context, [])
        return ({} if apart.faults else found) | {"seed": seed if hash_seed is None else hash_seed}
    _look_back(fields, "lsh")
    if hash_seed is None:
        notes.append(
            f"hash_seed is not set: transformers then hashes anew at every call, so that no two agree; here the "
            f"rotations are those it draws from seed {seed}, kept with the weights (--seed draws others)"
        )
    return _lsh(fields, context, notes) | {"seed": seed if hash_seed is None else hash_seed}


def _lsh(fields: Fields, context: int, notes: list[str]) -> dict[str, Any]:
    chunk = fields.integer("lsh_attn_chunk_length", 1, 2**20)
    buckets: Any = fields.get("num_buckets")
    if buckets is None:
        buckets = chosen_buckets(context, chunk, fields.integer("max_position_embeddings"))
        notes.append(
            f"num_buckets is not set: {list(buckets)} are what transformers takes at a first text of {context:,} tokens"
        )
    elif type(buckets) is int and buckets >= 2:
        buckets = (buckets,)
    elif isinstance(buckets, (list, tuple)) and buckets:
        buckets = fields.integers("num_buckets")
    else:
        fields.refuse("num_buckets", "not an even number or a list of them")
        buckets = (2,)
    if odd := [n for n in buckets if n % 2 or n > 2**20]:
        fields.refuse("num_buckets", f"{odd} must be even and at most {2**20:,}")
    return {"lsh_window": chunk, "n_hashes": fields.integer("num_hashes", 1, 64), "n_buckets": tuple(buckets)}


def chosen_buckets(length: int, chunk: int, longest: int) -> tuple[int, ...]:
    """What transformers sets num_buckets to, if it is not set, at the first text it sees: a power of two of about twice
    length / chunk, in two factors where it exceeds a limit."""
    power = (2 * (length // chunk)).bit_length() - 1
    if power < 1:
        return (2,)  # such a text is never hashed
    if 2**power <= 2 * max(int((longest // chunk) ** 0.5), chunk):
        return (2**power,)
    return (2 ** (power // 2), 2 ** (power - power // 2))


def _notes(fields: Fields, layers: tuple[str, ...], notes: list[str]) -> None:
    """What is not kept, where it makes a difference."""
    for kind in dict.fromkeys(layers):
        name = f"{kind}_attention_probs_dropout_prob"
        if share := fields.get(name):
            notes.append(f"{name} {share!s:.10}: fine-tuning drops no attention weights here, only outputs of layers")
    if fields.get("axial_pos_embds") is True:
        longest, grid = fields.get("max_position_embeddings"), fields.get("axial_pos_shape")
        whole = is_size(longest) and isinstance(grid, (list, tuple)) and all(map(is_size, grid))
        if whole and longest < (product := math.prod(grid)):
            notes.append(f"max_position_embeddings {longest:,}: the grid has {product:,} positions, all can be used")


def _end(fields: Fields) -> int | None:
    end = fields.get("eos_token_id")
    if isinstance(end, list) and end:
        end = end[0]
    return end if type(end) is int else None


def _biased(fields: Fields) -> bool:
    """transformers up to 4 adds the bias of the head, 5 has one and leaves it out."""
    version = fields.get("transformers_version")
    major = version.split(".")[0] if isinstance(version, str) else ""
    return not major.isdigit() or int(major) < 5
