"""A folder that an export wrote, and one that it did not."""

from __future__ import annotations

from pathlib import Path

from builders.programs import Program


def test_overwrite_replaces_an_export_and_nothing_else(reformer: Program, run: Path) -> None:
    """It deletes a folder: one that holds anything of the user's must stay."""
    options = ["export", run, "out", "--format"]
    assert reformer(*options, "safetensors").status == 0
    assert "add --overwrite" in reformer(*options, "state-dict").error
    assert reformer(*options, "state-dict", "--overwrite").status == 0
    assert {p.name for p in Path("out").iterdir()} == {"README.md", "config.yaml", "state_dict.pt", "tokenizer.model"}
    Path("out/notes.txt").write_text("mine")
    assert "holds notes.txt" in reformer(*options, "safetensors", "--overwrite").error
    Path("out/notes.txt").rename("notes.txt")
    Path("out/README.md").write_text("mine")
    assert "its README.md is another's" in reformer(*options, "safetensors", "--overwrite").error
    assert Path("out/state_dict.pt").exists()
