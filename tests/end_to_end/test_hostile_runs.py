"""A run directory may come from anyone: forged tensors, headers, links and settings are refused in one line."""

from __future__ import annotations

import json
import resource
import shutil
import struct
from pathlib import Path

import pytest
import torch
from builders.faults import newest, tensors
from builders.programs import TINY, Program
from safetensors.torch import save_file

from reformer_cli.runs.checkpoints import META, TENSORS, _describe, read_meta


def rewritten(run: Path, changes: dict[str, object], meta: dict | None = None) -> None:
    """A checkpoint someone made by hand, checksums and all."""
    folder = newest(run)
    found = tensors(run)
    kept = read_meta(folder)
    for name, change in changes.items():
        found[name] = change if isinstance(change, torch.Tensor) else found[name]
        if change is None:
            del found[name]
    save_file(found, folder / TENSORS)
    (folder / META).unlink()
    _describe(folder, 6, meta if meta is not None else kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (torch.zeros(3, 3), "model.embedding is [3, 3], not"),
        (torch.zeros(1), "model.embedding is [1], not"),
        (None, "model.embedding is missing"),
        ("double", "torch.float64, not torch.float32"),
        ("nan", "not finite numbers"),
    ],
)
def test_tensors_that_do_not_fit(reformer: Program, run: Path, change: object, message: str) -> None:
    embedding = tensors(run)["model.embedding"]
    made = {"double": embedding.double(), "nan": embedding * torch.nan}
    rewritten(run, {"model.embedding": made.get(change, change) if isinstance(change, str) else change})
    error = reformer("train", "--resume", "--run", run, "--steps", 9).error
    assert message in error
    assert "does not fit this run's config" in error


@pytest.mark.parametrize(
    "change",
    [
        {"step": "x"}, {"step": -1}, {"step": 10**30}, {"seconds": None}, {"extra": 1}, {"stages": [[]]},
        {"stages": "x" * 10}, {"best": "low"},
    ],
)  # fmt: skip
def test_progress_that_is_none(reformer: Program, run: Path, change: dict) -> None:
    meta = read_meta(newest(run))
    meta["progress"] |= change
    rewritten(run, {}, meta)
    before = (run / "model.safetensors").read_bytes()
    for other in set((run / "checkpoints").iterdir()) - {newest(run)}:
        shutil.rmtree(other)
    result = reformer("train", "--resume", "--run", run, "--steps", 9)
    assert f"checkpoint {newest(run)} is damaged" in result.err
    assert "none of the 1 checkpoints" in result.error
    assert (run / "model.safetensors").read_bytes() == before


def test_a_header_that_declares_gigabytes(reformer: Program, run: Path) -> None:
    header = json.dumps({"model.embedding": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}})
    for path in (newest(run) / TENSORS, run / "model.safetensors"):
        path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * 64)
    (newest(run) / META).unlink()
    _describe(newest(run), 6, {"progress": {"step": 6}, "random": {}, "metrics": 0})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "damaged" in reformer("generate", "--run", run, "--prompt", "x").error
    for length in (2**63, 2**40):  # of the header itself
        (run / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
        assert "damaged" in reformer("generate", "--run", run, "--prompt", "x").error
    assert "step-00000006 is damaged" in reformer("train", "--resume", "--run", run, "--steps", 9).err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl", ".lock"])
def test_links_that_lead_out_are_not_followed(reformer: Program, run: Path, tmp_path: Path, name: str) -> None:
    """Resuming cuts metrics.jsonl, drops old checkpoints and writes its number to .lock: of this run, not elsewhere."""
    outside = tmp_path / "outside"
    if name == "checkpoints":
        shutil.move(run / name, outside)
        for step in range(3):
            (outside / f"step-0000000{step}").mkdir()
    else:
        outside.write_text("precious\n" * 9)
        (run / name).unlink()
    (run / name).symlink_to(outside)
    before = sorted(outside.iterdir()) if outside.is_dir() else outside.read_text()
    result = reformer("train", "--resume", "--run", run, "--steps", 9)
    assert result.status == 2, result.err
    assert "Traceback" not in result.err
    assert before == (sorted(outside.iterdir()) if outside.is_dir() else outside.read_text())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps: 6", "steps: " + "9" * 6000),
        ("steps: 6", "steps: 2020-99-99"),
        ("steps: 6", "steps: &a [1, *a]"),
        ("steps: 6", "steps: " + "[" * 5000),
        ("steps: 6", "steps: 1e999"),
        ("d_model: 16", "d_model: 99999999999999"),
        ("n_layers: 1", "n_layers: 1000000000"),
        ("corpus:", "corpus: {a: b}\n  x:"),
        ("corpus_digest: ", "corpus_digest: [1]\npadding: "),
        ("corpus_digest: ", "padding: '" + "x" * 2**21 + "'\ncorpus_digest: "),
    ],
)
def test_a_hostile_config(reformer: Program, run: Path, old: str, new: str) -> None:
    path = run / "config.yaml"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))
    for command in (["train", "--resume"], ["generate", "--prompt", "x"]):
        result = reformer(*command, "--run", run)
        assert result.status == 2
        assert "Traceback" not in result.err
        assert len(result.err) < 4000


@pytest.mark.parametrize("value", ["9" * 6000, "2020-99-99", "&a [1, *a]", "[" * 5000, "!!python/name:os.system"])
def test_a_hostile_setting(reformer: Program, text: Path, value: str) -> None:
    assert "not YAML" in reformer("train", text, *TINY, "--set", f"steps={value}").error
