"""`reformer corpus`, and what training does about a corpus that is damaged, changes, or is named oddly."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import forked
from builders.programs import TINY, Program


@pytest.fixture
def folder(tmp_path: Path, text: Path) -> Path:
    """Texts in several formats, and what is none."""
    found = tmp_path / "texts"
    found.mkdir()
    text.rename(found / "long.txt")
    (found / "rows.jsonl").write_text('{"text": "one row here"}\n{"text": ""}\n{"text": "zwei Zeilen, ä"}\n', "utf-8")
    (found / "picture.png").write_bytes(b"\x89PNG")
    (found / "loop").symlink_to(found)
    return found


def test_what_a_corpus_holds(reformer: Program, folder: Path) -> None:
    result = reformer("corpus", folder, "--json")
    assert result.status == 0
    about = json.loads(result.out)
    size = (folder / "long.txt").stat().st_size
    assert about["files"] == 2
    assert about["formats"] == {".txt": 1, ".jsonl": 1}
    assert (about["documents"], about["empty_documents"], about["unreadable"]) == (3, 1, 0)
    assert (about["bytes"], about["characters"]) == (size + 12 + 15, size + 12 + 14)
    assert about["words"] == 500 * 8 + 6
    assert about["longest_document"] == size
    assert about["skipped"] == {
        "ending .png": {"files": 1, "such_as": str(folder / "picture.png")},
        "link to a folder": {"files": 1, "such_as": str(folder / "loop")},
    }
    assert about["tokenised"] == []
    table = reformer("corpus", folder).out
    assert "1 .txt, 1 .jsonl" in table
    assert "link to a folder, such as" in table


def test_tokens_are_counted_and_kept_for_training(reformer: Program, folder: Path) -> None:
    about = json.loads(reformer("corpus", folder, "--tokens", "--json", "--set", "tokenizer=bytes").out)
    assert about["tokenised"] == [{"tokens": about["bytes"] + about["documents"], "kind": "bytes", "vocab_size": 257}]
    result = reformer("train", folder, *TINY, "--set", "tokenizer=bytes", "--steps", 1, "--run", "r")
    assert result.status == 0
    assert "tokenising" not in result.err
    assert "put the text in a file" in reformer("corpus", "-", "--tokens").error


def test_all_that_cannot_be_read_is_named_at_once(reformer: Program, folder: Path) -> None:
    (folder / "latin.txt").write_bytes(b"one\ncaf\xe9\n")
    (folder / "zero.txt").write_bytes(b"abc\0")
    with open(folder / "rows.jsonl", "a") as file:
        file.write("no json\n")
    result = reformer("corpus", folder)
    assert "texts that cannot be read: 3 faults" in result.error
    assert "latin.txt is not utf-8: byte 7 (line 2) is 0xe9" in result.err
    assert "zero.txt looks binary: a zero byte at 3" in result.err
    assert "rows.jsonl:4 is not JSON" in result.err
    assert "3  unreadable" in result.out
    left_out = reformer("corpus", folder, "--set", "errors=skip", "--json")
    assert left_out.status == 0
    assert json.loads(left_out.out)["unreadable"] == 3
    changed = reformer("corpus", folder, "--set", "errors=replace")
    assert changed.status == 2  # for the row that is no JSON
    assert "2  by U+FFFD, such as " in changed.out


def test_training_stops_or_leaves_out_or_replaces(reformer: Program, folder: Path) -> None:
    (folder / "latin.txt").write_bytes(b"caf\xe9 " * 50 + "é".encode() * 60)  # damaged, for most of it is UTF-8
    train = ["train", folder, *TINY, "--steps", 1]
    assert "latin.txt is not utf-8: byte 3" in reformer(*train, "--run", "a").error
    assert not Path("a").exists()
    assert reformer(*train, "--run", "b", "--set", "errors=skip").status == 0
    result = reformer(*train, "--run", "c", "--set", "errors=replace")
    assert result.status == 0
    assert "warning: 50 invalid bytes became U+FFFD; the first: " in result.err
    assert reformer("train", "--resume", "--run", "c", "--steps", 2).status == 0


@pytest.mark.parametrize("change", ["changed", "grown", "gone", "new"])
def test_resume_names_what_differs(reformer: Program, folder: Path, change: str) -> None:
    """And goes on once it is put back."""
    assert reformer("train", folder, *TINY, "--steps", 2, "--run", "r").status == 0
    path, told = folder / "rows.jsonl", "is other"
    before = path.read_text("utf-8")
    if change == "changed":
        path.write_text(before.replace("one", "two"), "utf-8")
    elif change == "grown":
        path.write_text(before + '{"text": "more"}\n', "utf-8")
    elif change == "gone":
        path.unlink()
        told = "is gone"
    else:
        path, told = folder / "new.txt", "is new"
        path.write_text("new")
    error = reformer("train", "--resume", "--run", "r", "--steps", 4).error
    assert f"has changed since the run began: {path} {told}; put the old text back, or start a new run" in error
    path.unlink() if change == "new" else path.write_text(before, "utf-8")
    assert reformer("train", "--resume", "--run", "r", "--steps", 4).status == 0


def test_a_corpus_that_is_gone_as_a_whole_is_taken_from_its_tokens(reformer: Program, text: Path) -> None:
    assert reformer("train", text, *TINY, "--steps", 2, "--run", "r").status == 0
    text.unlink()
    result = reformer("train", "--resume", "--run", "r", "--steps", 4)
    assert result.status == 0
    assert f"warning: the corpus {text} is gone; going on with its tokens" in result.err


def test_validation_on_a_text_of_its_own(reformer: Program, text: Path, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("The cat sat on a mat.\n" * 20)
    result = reformer("train", text, "--validation", "v.txt", *TINY, "--steps", 2, "--run", "r")
    assert result.status == 0
    assert "440 bytes, all of them never trained on)" in result.err
    scored = json.loads(reformer("evaluate", "perplexity", "--run", "r", "--json").out)
    assert scored["bytes"] == 440
    assert [*scored["files"]] == [f"{tmp_path / 'v.txt'} (held out)"]
    (tmp_path / "v.txt").write_text("other\n")
    assert "v.txt is other" in reformer("train", "--resume", "--run", "r", "--steps", 3).error


def test_files_by_any_name(text: Path, tmp_path: Path) -> None:
    """From the command line to config.yaml and back; a name in JSON's escapes came back from YAML as another one."""
    names = [b"-dash.txt", b"new\nline.txt", b"\xff\xfe.txt", "😀 \u202eé.txt".encode(), b"[a]: {b}.txt"]
    paths = [os.fsdecode(name) for name in names]
    for path in paths:
        (tmp_path / path).write_text(path.encode("utf-8", "replace").decode() + text.read_text()[:3000], "utf-8")

    def call(*arguments: object) -> str:
        process = forked.reformer(*arguments, cwd=tmp_path)
        assert process.wait() == 0, process.err
        return process.out.decode() + process.err

    call("train", "--steps", 1, "--run", "r", *TINY, "--", *paths)
    assert "going on after step 1" in call("train", "--resume", "--run", "r", "--steps", 2)
    assert json.loads(call("corpus", "--json", "--", *paths))["files"] == len(paths)


def test_show_prints_what_training_reads(reformer: Program, folder: Path) -> None:
    """Documents one after another, a faulty one left out and named at the end."""
    (folder / "zero.txt").write_bytes(b"abc\0")
    result = reformer("corpus", folder, "--show")
    assert result.out == (folder / "long.txt").read_text() + "one row here\nzwei Zeilen, ä\n"
    assert "zero.txt looks binary" in result.error
    assert reformer("corpus", folder, "--show", "--set", "errors=skip").status == 0
    assert "leave --show" in reformer("corpus", folder, "--show", "--set", "image_size=[4,4]").error


def test_show_into_a_pipe_that_closes(text: Path) -> None:
    show = f"{sys.executable} -m reformer_cli corpus {text} --show | head -1"
    found = subprocess.run(["bash", "-o", "pipefail", "-c", show], capture_output=True, text=True)
    assert found.stdout == text.read_text().splitlines()[0] + "\n"
    assert (found.returncode, found.stderr) == (0, "")


def test_show_of_what_came_through_a_pipe(text: Path, tmp_path: Path) -> None:
    (tmp_path / "stdin").write_bytes(gzip.compress(text.read_bytes()))
    process = forked.reformer("corpus", "-", "--show", cwd=tmp_path, stdin=tmp_path / "stdin")
    assert process.wait() == 0, process.err
    assert process.out == text.read_bytes()
