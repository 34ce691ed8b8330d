"""Models on disk, and that they learn what the design says they learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.models import VARIANTS, small, tokens
from reformer import ReformerConfig, ReformerLM
from safetensors.torch import load_file, save_file


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_model_is_the_same_model(variant: str, tmp_path: Path) -> None:
    model = small(**VARIANTS[variant])
    model.save_pretrained(tmp_path / "m")
    again = ReformerLM.from_pretrained(tmp_path / "m")
    assert again.config == model.config
    assert torch.equal(again(tokens(90)), model(tokens(90)))
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["config.yaml", "model.safetensors"]


def test_who_may_read_a_folder_may_read_its_weights(tmp_path: Path) -> None:
    """safetensors makes files that their owner alone can read, whatever the umask."""
    small().save_pretrained(tmp_path)
    modes = {p.stat().st_mode for p in tmp_path.iterdir()}
    (tmp_path / "other").touch()
    assert modes == {(tmp_path / "other").stat().st_mode}


def test_the_seed_draws_the_weights() -> None:
    config = {"vocab_size": 30, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_head": 8}
    a, b, c = (ReformerLM(ReformerConfig(**config, seed=s)) for s in (1, 1, 2))
    assert torch.equal(a.embedding, b.embedding)
    assert torch.equal(a.layers[0][1].rotations, b.layers[0][1].rotations)
    assert not torch.equal(a.embedding, c.embedding)
    assert not torch.equal(a.layers[0][1].rotations, c.layers[0][1].rotations)


def truncated(path: Path) -> None:
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-100])


def renamed(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors["surprise"] = tensors.pop("embedding")
    save_file(tensors, path / "model.safetensors")


def reshaped(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    save_file(tensors | {"embedding": torch.zeros(50, 31)}, path / "model.safetensors")


def poisoned(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    tensors["embedding"][3, 3] = float("nan")
    save_file(tensors, path / "model.safetensors")


def pickled(path: Path) -> None:
    torch.save({"embedding": torch.zeros(50, 32)}, path / "model.safetensors")


def not_yaml(path: Path) -> None:
    (path / "config.yaml").write_text("{")


def python_yaml(path: Path) -> None:
    (path / "config.yaml").write_text("model: !!python/object/apply:os.system [echo hacked]\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "damaged"),
        (renamed, "embedding is missing; surprise is unknown"),
        (reshaped, r"embedding is \[50, 31\], the config makes it \[50, 32\]"),
        (poisoned, "not finite"),
        (pickled, "damaged"),
        (not_yaml, "not YAML"),
        (python_yaml, "not YAML"),
    ],
)
def test_a_damaged_model_is_refused(damage, message: str, tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        ReformerLM.from_pretrained(tmp_path)


def test_config_names_every_fault_at_once() -> None:
    with pytest.raises(ValueError, match=r"n_buckets.*even.*d_head.*axial_dims|even") as error:
        ReformerConfig(vocab_size=9, n_buckets=(3,), d_head=7, attn_layers=("lsh",))
    for part in ("n_buckets", "d_head"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match=r"in chunks does not go with attn_layers: full, positions: rotary"):
        ReformerConfig(vocab_size=9, attn_layers=("chunked_lsh", "full"))


def test_how_far_hashed_heads_look_back() -> None:
    sizes = {"vocab_size": 9, "n_buckets": (4, 2), "lsh_window": 10}
    assert ReformerConfig(**sizes, far_buckets=32).look_back == 320
    assert ReformerConfig(**sizes).look_back == 64 * 8 * 10
    assert ReformerConfig(**sizes, far_buckets=0).look_back == 80
    assert ReformerConfig(**sizes, far_buckets=0, shorten_factor=3).look_back == 240
    assert [ReformerConfig(**sizes).skips_far_round(n) for n in (80, 81)] == [True, False]
    with pytest.raises(ValueError, match=r"far_buckets 24 is no even multiple of the 8 .*such as 64; 0 leaves"):
        ReformerConfig(**sizes, far_buckets=24)


@pytest.mark.slow
def test_next_values_learn_to_copy() -> None:
    """The paper's copy task 0w0w: an LSH layer that reads what came next learns to copy, far beyond chance."""
    config = ReformerConfig(
        vocab_size=64, d_model=64, n_layers=2, n_heads=4, d_head=16, attn_layers=("mixed",), n_hashes=4, lsh_window=16,
        n_buckets=(16,), far_buckets=0, local_window=16,
    )  # fmt: skip
    model = ReformerLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(250):
        words = torch.randint(1, 64, (16, 63), generator=random)
        zero = torch.zeros(16, 1, dtype=torch.int64)
        ids = torch.cat([zero, words, zero, words, zero], 1)
        targets = ids[:, 1:].clone()
        targets[:, :64] = -100
        optimizer.zero_grad()
        model.loss(ids[:, :-1], targets).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = model(ids[:, :-1]).argmax(-1)[:, 64:] == targets[:, 64:]
    assert right.float().mean() > 0.5  # chance is 2 %
