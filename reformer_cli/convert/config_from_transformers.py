"""transformers' config.json as a ReformerConfig: every field is mapped, known to have no effect, or refused by name.

The definition of what fields do is transformers 5.23, models/reformer/modeling_reformer.py. No torch here.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from reformer import ReformerConfig

from reformer_cli.utils.errors import ConfigError

LARGEST = 2**31  # of any size: what torch can hold and an arithmetic of shapes does not overflow
# What transformers takes for a field that is left out.
DEFAULTS: dict[str, Any] = {
    "attention_head_size": 64, "attn_layers": ["local", "lsh"] * 3, "axial_pos_embds": True,
    "axial_pos_shape": [64, 64], "axial_pos_embds_dim": [64, 192], "eos_token_id": 2, "feed_forward_size": 512,
    "hash_seed": None, "hidden_act": "relu", "hidden_dropout_prob": 0.05, "hidden_size": 256, "is_decoder": False,
    "layer_norm_eps": 1e-12, "local_num_chunks_before": 1, "local_num_chunks_after": 0, "local_attn_chunk_length": 64,
    "local_attention_probs_dropout_prob": 0.05, "lsh_attn_chunk_length": 64, "lsh_attention_probs_dropout_prob": 0.0,
    "lsh_num_chunks_before": 1, "lsh_num_chunks_after": 0, "max_position_embeddings": 4096, "num_attention_heads": 12,
    "num_buckets": None, "num_hashes": 1, "vocab_size": 320, "model_type": None, "architectures": None,
    "is_encoder_decoder": False, "add_cross_attention": False, "pruned_heads": None, "quantization_config": None,
    "auto_map": None, "transformers_version": "", "num_hidden_layers": None,
}  # fmt: skip
# Without effect on what a trained model computes, whatever their values. Training and output of that library:
NO_EFFECT = {
    "axial_norm_std", "initializer_range", "chunk_size_lm_head", "chunk_size_feed_forward", "classifier_dropout",
    "use_cache", "pad_token_id", "bos_token_id", "sep_token_id", "decoder_start_token_id", "forced_eos_token_id",
    "forced_bos_token_id", "tie_word_embeddings", "tie_encoder_decoder", "cross_attention_hidden_size", "return_dict",
    "use_return_dict", "output_hidden_states", "output_attentions", "output_past", "torchscript", "use_bfloat16",
    "dtype", "torch_dtype", "_name_or_path", "name_or_path", "tokenizer_class", "prefix", "problem_type",
    "finetuning_task", "id2label", "label2id", "num_labels", "task_specific_params", "tf_legacy_loss",
    "_attn_implementation_autoset", "_attn_implementation", "attn_implementation", "gradient_checkpointing",
}  # fmt: skip
# left over in the public checkpoints from before the library's first release with Reformers:
NO_EFFECT |= {"attention_probs_dropout_prob", "intermediate_size", "num_chunks_after", "num_chunks_before", "seed"}
NO_EFFECT |= {"sinusoidal_pos_embds"}  # how a table of positions was begun that the weights hold
# and of generation, which versions up to 4 kept here:
NO_EFFECT |= {
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty",
    "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores", "suppress_tokens",
    "return_dict_in_generate", "remove_invalid_values", "exponential_decay_length_penalty", "begin_suppress_tokens",
}  # fmt: skip
ACTIVATIONS = {
    "relu": "relu", "relu2": "squared_relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip


@dataclass(frozen=True)
class Mapped:
    """A config.json in our terms. context: tokens that its positions can number; end: its eos_token_id; biased: the
    version of transformers that wrote it adds the head's bias; notes: what the user should know, a sentence each."""

    model: ReformerConfig
    context: int
    end: int | None
    biased: bool
    notes: list[str]


@dataclass
class Fields:
    """A config.json being read: values by name, and what is wrong with them."""

    values: Mapping[str, Any]
    faults: list[str] = field(default_factory=list)

    def get(self, name: str) -> Any:
        """The value, or transformers' default."""
        return self.values.get(name, DEFAULTS[name])

    def refuse(self, name: str, why: str) -> None:
        """Note a fault: field, value, reason."""
        self.faults.append(f"{name} {reprlib.repr(self.get(name))}: {why}")

    def integer(self, name: str, low: int = 1, high: int = LARGEST) -> int:
        value = self.get(name)
        if type(value) is not int or not low <= value <= high:
            self.refuse(name, f"not a whole number from {low} to {high}")
            return low
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        value = self.get(name)
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 8 or not all(map(_is_size, value)):
            self.refuse(name, f"not a list of whole numbers from 1 to {LARGEST}")
            return (1,)
        return tuple(value)

    def number(self, name: str, good: Callable[[float], bool], what: str) -> float:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not good(value):
            self.refuse(name, f"not {what}")
            return 0.5
        return float(value)

    def only(self, name: str, wanted: tuple[Any, ...], why: str) -> None:
        """Refuse any value but these."""
        if self.get(name) not in wanted:
            self.refuse(name, why)


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
        context = min(context, _product(settings["axial_shape"]))
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


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST


def _product(sizes: tuple[int, ...]) -> int:
    found = 1
    for size in sizes:
        found *= size
    return found


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
        return {"local_window": length} if _is_size(length) and length <= 2**20 else {}
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
        whole = _is_size(longest) and isinstance(grid, (list, tuple)) and all(map(_is_size, grid))
        if whole and longest < (product := _product(tuple(grid))):
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
