"""Fields of transformers' config.json: their defaults, those without effect, and how one is read and refused."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 8 or not all(map(is_size, value)):
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


def is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST
