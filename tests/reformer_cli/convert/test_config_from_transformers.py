"""config.json: every field is mapped, known to have no effect, or refused by its name."""

from __future__ import annotations

from typing import Any

import pytest

from reformer_cli.convert.config_from_transformers import chosen_buckets, map_config
from reformer_cli.convert.transformers_fields import DEFAULTS, NO_EFFECT
from reformer_cli.utils.errors import ConfigError

MINIMAL: dict[str, Any] = {"model_type": "reformer", "is_decoder": True, "num_buckets": [64, 128]}
# The two public models' config.json, as published.
CRIME: dict[str, Any] = {
    "architectures": ["ReformerModelWithLMHead"], "attention_head_size": 64, "attention_probs_dropout_prob": 0.1,
    "attn_layers": ["local", "lsh", "local", "lsh", "local", "lsh"], "axial_norm_std": 1.0, "axial_pos_embds": True,
    "axial_pos_embds_dim": [64, 192], "axial_pos_shape": [512, 1024], "chunk_size_feed_forward": 0,
    "chunk_size_lm_head": 0, "eos_token_id": 2, "feed_forward_size": 512, "hash_seed": None, "hidden_act": "relu",
    "hidden_dropout_prob": 0.05, "hidden_size": 256, "initializer_range": 0.02, "intermediate_size": 3072,
    "is_decoder": True, "layer_norm_eps": 1e-12, "local_attention_probs_dropout_prob": 0.05,
    "local_attn_chunk_length": 64, "local_num_chunks_after": 0, "local_num_chunks_before": 1,
    "lsh_attention_probs_dropout_prob": 0.0, "lsh_attn_chunk_length": 64, "lsh_num_chunks_after": 0,
    "lsh_num_chunks_before": 1, "max_position_embeddings": 524288, "model_type": "reformer", "num_attention_heads": 2,
    "num_buckets": [64, 128], "num_chunks_after": 0, "num_chunks_before": 1, "num_hashes": 1, "num_hidden_layers": 6,
    "output_past": True, "pad_token_id": 0, "seed": None, "sinusoidal_pos_embds": False,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 100}}, "vocab_size": 320,
}  # fmt: skip
ENWIK8 = CRIME | {
    "attn_layers": ["local", "local", "lsh", "local"] * 3, "axial_pos_embds_dim": [256, 512],
    "axial_pos_shape": [128, 512], "feed_forward_size": 2048, "hidden_dropout_prob": 0.2, "hidden_size": 768,
    "local_attention_probs_dropout_prob": 0.2, "local_attn_chunk_length": 128, "lsh_attention_probs_dropout_prob": 0.1,
    "lsh_attn_chunk_length": 256, "max_position_embeddings": 65536, "num_attention_heads": 8, "num_buckets": 512,
    "num_hashes": 4, "num_hidden_layers": 12, "vocab_size": 258,
}  # fmt: skip


def test_the_public_configs_become_the_recipes() -> None:
    from reformer_cli.config.load import load_config, resolve

    same = {
        "d_model", "n_layers", "n_heads", "d_head", "d_ff", "attn_layers", "local_window", "lsh_window",
        "n_buckets", "activation", "block_style", "positions", "axial_shape", "axial_dims", "dropout",
    }  # fmt: skip
    for name, values in (("crime-and-punishment", CRIME), ("enwik8", ENWIK8)):
        mapped = map_config(values, "config.json")
        recipe = resolve(load_config(name, []), values["vocab_size"]).model
        for setting in same:
            assert getattr(mapped.model, setting) == getattr(recipe, setting), setting
        assert mapped.context == values["max_position_embeddings"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "bert"),
        ("is_decoder", False),
        ("architectures", ["ReformerForQuestionAnswering"]),
        ("add_cross_attention", True),
        ("auto_map", {"AutoModel": "evil.Model"}),
        ("quantization_config", {"bits": 4}),
        ("attn_layers", ["local", "global"]),
        ("attn_layers", "lsh"),
        ("num_hidden_layers", 5),
        ("hidden_act", "swish"),
        ("hidden_size", "256"),
        ("hidden_size", -1),
        ("vocab_size", 2**40),
        ("hidden_dropout_prob", 1.5),
        ("layer_norm_eps", None),
        ("lsh_num_chunks_before", 2),
        ("local_num_chunks_after", 1),
        ("axial_pos_embds_dim", [64, 64]),
        ("axial_pos_shape", [0, 64]),
        ("num_buckets", [64, 127]),
        ("num_buckets", []),
        ("num_buckets", "many"),
        ("num_hashes", 0),
        ("hash_seed", "abc"),
        ("hash_seed", 2**64),
        ("a_field_of_the_future", 1),
    ],
)
def test_a_field_that_cannot_be_is_refused_by_name_and_value(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as found:
        map_config(MINIMAL | {field: value}, "config.json")
    assert f"{field} " in str(found.value)


def test_all_faults_come_at_once() -> None:
    wrong = {"hidden_act": "swish", "num_hashes": 0, "unheard_of": 1, "lsh_num_chunks_after": 3}
    with pytest.raises(ConfigError) as found:
        map_config(MINIMAL | wrong, "config.json")
    assert all(name in str(found.value) for name in wrong)


def test_every_field_that_transformers_writes_is_known() -> None:
    transformers = pytest.importorskip("transformers")
    written = transformers.ReformerConfig(is_decoder=True, num_buckets=4).to_dict()
    assert not set(written) - set(DEFAULTS) - NO_EFFECT
    for name, value in transformers.ReformerConfig().to_dict().items():
        if name in DEFAULTS and name not in ("transformers_version", "model_type", "num_hidden_layers"):
            assert DEFAULTS[name] == value, name


@pytest.mark.parametrize(
    ("length", "chunk", "longest"), [(4096, 64, 4096), (524288, 64, 524288), (100, 64, 4096), (256, 8, 256)]
)
def test_buckets_that_transformers_would_choose(length: int, chunk: int, longest: int) -> None:
    """num_buckets is not set in old configs: the first text decides there, and its choice is saved."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ReformerConfig(
        attn_layers=["lsh"], lsh_attn_chunk_length=chunk, max_position_embeddings=longest, num_buckets=None
    )
    attention = transformers.models.reformer.modeling_reformer.LSHSelfAttention(config)
    attention._set_num_buckets(length)
    theirs = attention.num_buckets
    assert chosen_buckets(length, chunk, longest) == (tuple(theirs) if isinstance(theirs, list) else (theirs,))
