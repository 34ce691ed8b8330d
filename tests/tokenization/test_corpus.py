"""Where text comes from, and what is cut off it."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reformer_cli.errors import UserError
from reformer_cli.tokenization import corpus

BOOK = (
    "The Project Gutenberg eBook of A Book\n\nLicence words.\n\n*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n\n"
    "Chapter one.\n\nIt was ééé late.\n\n*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n\nMore licence.\n"
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Project Gutenberg of our own; yields the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answers = {"/cache/epub/77/pg77.txt": BOOK.encode("utf-8-sig"), "/cache/epub/5/pg5.txt": b"no book"}
            body = answers.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None: ...

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setenv("REFORMER_GUTENBERG", f"http://127.0.0.1:{httpd.server_port}")
    yield asked
    httpd.shutdown()


def test_a_book_is_downloaded_once_without_its_licence(server: list[str]) -> None:
    for _ in range(2):
        (document,) = corpus.read_corpus(["gutenberg:77"])
        assert document.text == "Chapter one.\n\nIt was ééé late.\n"
    assert server == ["/cache/epub/77/pg77.txt"]


def test_what_is_no_book_is_not_kept(server: list[str]) -> None:
    with pytest.raises(UserError, match=r"no book 9 .*404.*number right"):
        corpus.read_corpus(["gutenberg:9"])
    for _ in range(2):
        with pytest.raises(UserError, match="no START marker"):
            corpus.read_corpus(["gutenberg:5"])
    assert len(server) == 3


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFORMER_GUTENBERG", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot download"):
        corpus.read_corpus(["gutenberg:77"])


def test_local_gutenberg_files_lose_their_licence_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(BOOK, "utf-8")
    assert corpus.read_corpus([str(tmp_path)])[0].text == "Chapter one.\n\nIt was ééé late.\n"


def test_line_ends_marks_and_encodings(tmp_path: Path) -> None:
    (tmp_path / "dos.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (tmp_path / "wide.txt").write_bytes("größe\n".encode("utf-16"))
    (tmp_path / "old.txt").write_bytes("größe\n".encode("latin-1"))
    assert corpus.read_corpus([str(tmp_path / "dos.txt")])[0].text == "one\ntwo\n"
    assert corpus.read_corpus([str(tmp_path / "wide.txt")], "utf-16")[0].text == "größe\n"
    assert corpus.read_corpus([str(tmp_path / "old.txt")], "latin-1")[0].text == "größe\n"


def test_broken_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b"text " * 1000)
    for name, data in (("cut.gz", whole[:-20]), ("none.gz", b"plain text")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match="not a whole gzip file"):
            corpus.read_corpus([str(tmp_path / name)])


def test_empty_files_in_a_folder_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").touch()
    assert [d.text for d in corpus.read_corpus([str(tmp_path)])] == ["text"]


def test_any_change_changes_the_digest() -> None:
    documents = [corpus.Document("a", "xy"), corpus.Document("b", "z")]
    moved = [corpus.Document("a", "x"), corpus.Document("b", "yz")]
    assert corpus.digest(documents) != corpus.digest(moved)
    assert corpus.digest(documents) == corpus.digest([corpus.Document("c", "xy"), corpus.Document("d", "z")])


def test_built_in_text() -> None:
    (document,) = corpus.read_corpus(["python-reference"])
    assert len(document.text) > 300_000
    assert "with" in document.text
