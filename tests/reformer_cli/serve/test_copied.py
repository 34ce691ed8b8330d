"""Copied words as the page asks for them."""

from __future__ import annotations

from pathlib import Path

from builders.servers import served

from reformer_cli.novelty.index import FOLDER, build_index


def test_copies_are_told_with_their_source(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        text = "\U0001f40b He said: call me Ishmael, some years ago, and left."
        assert "no index" in server.post("/api/copies", text=text)["unavailable"]
        digest = server.service.library.run("run").config.corpus_digest
        folder = tmp_path / "runs" / "run" / FOLDER
        book = ["One.\n\nCall me Ishmael. Some years ago - never mind."]
        build_index(folder, [("/private/books/moby.txt", book)], lambda index: {"digest": digest})
        (copy,) = server.post("/api/copies", text=text)["copies"]
        assert text[copy["start"] : copy["end"]] == "call me Ishmael, some years ago"  # in characters, not in bytes
        assert (copy["words"], copy["source"], copy["line"]) == (6, "moby.txt", 3)  # and no folder of the server's
        assert copy["around"].endswith("never mind")
        answer = server.client.post("/api/copies", json={"text": "x" * 1_000_001})
        assert answer.status_code == 400
