"""What is exported gives the same logits in transformers, or is refused with all the reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.transformers_folders import ids, logits, make_model, public_style, save, spiece, transformers
from reformer import ReformerConfig, ReformerLM

from reformer_cli.convert.from_transformers import read_folder
from reformer_cli.convert.to_transformers import shape_faults, to_transformers
from reformer_cli.tokenizers.base import ByteTokenizer
from reformer_cli.tokenizers.sentencepiece import SentencePieceTokenizer
from reformer_cli.utils.errors import ConfigError

FREE = 2**34
EXPORTABLE = ReformerConfig(
    vocab_size=257, attn_layers=("chunked_local", "chunked_lsh"), n_layers=3, d_model=32,
    n_heads=2, d_head=8, d_ff=40, local_window=8, lsh_window=16, n_hashes=2, n_buckets=(4, 2),
    block_style="published", positions="axial", axial_shape=(4, 32), axial_dims=(8, 24), seed=5,
    activation="relu", stream_bits=20,
)  # fmt: skip


def drawn(config: ReformerConfig, bias: float = 0.0) -> ReformerLM:
    """A model whose every weight counts; it starts with output projections of 0."""
    model, random = ReformerLM(config, head_bias=bias > 0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1 and name != "head.bias":
                p.add_(torch.randn(p.shape, generator=random) * 0.1)
            elif name.endswith("output.weight"):
                p.copy_(torch.randn(p.shape, generator=random) * 0.2)
        if model.head.bias is not None:
            model.head.bias.copy_(torch.randn(config.vocab_size, generator=random) * bias)
    return model.eval()


def tensors(model: ReformerLM) -> dict[str, torch.Tensor]:
    return {name: t.detach() for name, t in model.state_dict().items()}


def exported(model: ReformerLM, folder: Path, seed: str | None = None) -> tuple[Any, list[str]]:
    """transformers' model of an export, and what the user is told."""
    found = to_transformers(model.config, tensors(model), ByteTokenizer(), 100, seed)
    folder.mkdir()
    found.write(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval(), found.notes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attn_layers": ("chunked_lsh",), "n_hashes": 3},
        {"attn_layers": ("chunked_local", "chunked_local", "chunked_lsh"), "n_buckets": (6,)},
        {"activation": "squared_relu"},
        {"activation": "gelu"},
        {"activation": "gelu_tanh", "norm_epsilon": 1e-5},
        {"positions": "none"},
        {"axial_shape": (128,), "axial_dims": (32,)},
        {"dropout": 0.1, "d_ff": None},
    ],
    ids=str,
)
def test_the_same_logits_there(changes: dict[str, Any], tmp_path: Path) -> None:
    ours = drawn(replace(EXPORTABLE, **changes))
    theirs, _ = exported(ours, tmp_path / "out")
    assert type(theirs).__name__ == "ReformerModelWithLMHead"
    for length in (7, 50, 64):
        tokens = ids(257, length)
        with torch.no_grad():
            assert (logits(theirs, tokens) - ours(tokens)).abs().max() < 1e-4, length


def test_every_reason_against_an_export_is_given_at_once() -> None:
    config = ReformerConfig(vocab_size=257, activation="swiglu", d_model=32, d_head=8)
    with pytest.raises(ConfigError) as found:
        to_transformers(config, tensors(ReformerLM(config)), ByteTokenizer(), 100, None)
    said = str(found.value)
    for reason in (
        "attn_layers mixed: it has chunked_local and chunked_lsh alone",
        "block_style modern: it has published",
        "activation swiglu: it has relu, squared_relu, gelu, gelu_tanh",
        "positions rotary: it adds positions to the embedding",
    ):
        assert reason in said


def test_grids_of_more_than_two_axes_are_refused() -> None:
    config = replace(EXPORTABLE, axial_shape=(2, 4, 8), axial_dims=(8, 8, 16))
    assert shape_faults(config) == ["axial_shape [2, 4, 8]: it evaluates grids of two axes, or one"]
    assert shape_faults(EXPORTABLE) == []


def test_rotations_that_no_seed_gives(tmp_path: Path) -> None:
    """A checkpoint in half precision hashes with numbers that it drew in half precision."""
    ours = drawn(replace(EXPORTABLE, attn_layers=("chunked_lsh",)))
    for name, rotations in ours.named_buffers():
        if name.endswith("rotations"):
            rotations.copy_(rotations.bfloat16())
    with pytest.raises(ConfigError, match="hash rotations: it draws the same for all layers from one hash_seed"):
        exported(ours, tmp_path / "none")
    theirs, notes = exported(ours, tmp_path / "out", seed="9")
    assert theirs.config.hash_seed == 9
    assert any("replaced by those of hash_seed 9" in note for note in notes)
    for name, rotations in ours.named_buffers():
        if name.endswith("rotations"):
            rotations.normal_(generator=torch.Generator().manual_seed(9))
    tokens = ids(257, 64)
    with torch.no_grad():
        assert (logits(theirs, tokens) - ours(tokens)).abs().max() < 1e-4
    theirs, _ = exported(ours, tmp_path / "anew", seed="none")
    assert theirs.config.hash_seed is None


def test_the_heads_bias_goes_into_the_norm_where_it_can(tmp_path: Path) -> None:
    narrow = drawn(EXPORTABLE, bias=0.1)
    with pytest.raises(
        ConfigError, match=r"head.bias: it adds none to the logits, and for 257 tokens the norm .* 64 wide"
    ):
        exported(narrow, tmp_path / "narrow")
    ours = drawn(replace(EXPORTABLE, d_model=144, axial_dims=(44, 100)), bias=0.1)
    theirs, notes = exported(ours, tmp_path / "wide")
    assert any("head.bias is folded" in note for note in notes)
    tokens = ids(257, 64)
    with torch.no_grad():
        assert (logits(theirs, tokens) - ours(tokens)).abs().max() < 1e-4


@pytest.mark.parametrize("number", range(4))
def test_export_then_import_is_identity(number: int, tmp_path: Path) -> None:
    """And so is import then export then import: tensors to the bit, settings, tokenizer and its separator."""
    settings = public_style(number)
    theirs = make_model(number, **settings)
    first = read_folder(save(theirs, tmp_path / "there", tokenizer=settings["vocab_size"] == 320), 0, FREE)
    out = to_transformers(first.config, first.tensors, first.tokenizer, first.context, None)
    (tmp_path / "out").mkdir()
    out.write(tmp_path / "out")
    second = read_folder(tmp_path / "out", 0, FREE)
    assert second.config == first.config
    assert second.context == first.context
    assert second.tensors.keys() == first.tensors.keys()
    assert all(torch.equal(t, second.tensors[name]) for name, t in first.tensors.items())
    assert second.tokenizer.serialise() == first.tokenizer.serialise()
    again = transformers.ReformerModelWithLMHead.from_pretrained(tmp_path / "out")
    for name, t in theirs.state_dict().items():
        assert torch.equal(t, again.state_dict()[name]), name


def test_a_run_of_ours_comes_back(tmp_path: Path) -> None:
    ours = drawn(EXPORTABLE)
    exported(ours, tmp_path / "out")
    back = read_folder(tmp_path / "out", 0, FREE)
    assert back.config == ours.config
    assert all(torch.equal(t, back.tensors[name]) for name, t in tensors(ours).items())
    assert isinstance(back.tokenizer, ByteTokenizer)


def test_a_sentencepiece_model_goes_along(tmp_path: Path) -> None:
    config = replace(EXPORTABLE, vocab_size=320)
    found = to_transformers(config, tensors(ReformerLM(config)), SentencePieceTokenizer(spiece()), 100, None)
    assert found.files["spiece.model"] == spiece()
