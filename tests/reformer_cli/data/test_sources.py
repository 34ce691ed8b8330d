"""Where text comes from, and what is cut off it."""

from __future__ import annotations

import http.server
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.reading import digest, read

from reformer_cli.data.gutenberg import HEAD, cut_licence
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder

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
        assert read("gutenberg:77") == {"gutenberg:77": "Chapter one.\n\nIt was ééé late.\n"}
    assert server == ["/cache/epub/77/pg77.txt"]


def test_what_is_no_book_is_not_kept(server: list[str]) -> None:
    with pytest.raises(UserError, match=r"no book 9 .*404.*number right"):
        read("gutenberg:9")
    for _ in range(2):
        with pytest.raises(UserError, match="no START marker"):
            read("gutenberg:5")
    assert len(server) == 3


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFORMER_GUTENBERG", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot download"):
        read("gutenberg:77")


def test_local_gutenberg_files_lose_their_licence_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(BOOK, "utf-8")
    assert [*read(tmp_path).values()] == ["Chapter one.\n\nIt was ééé late.\n"]


@pytest.mark.parametrize("size", [1, 7, 64, 1000, HEAD])
def test_the_licence_is_found_wherever_pieces_are_cut(size: int) -> None:
    """A marker that lies in two pieces of a large file would leave the licence in."""
    body = "\n \n" + "A line of the book. *** \n" * 9000 + "   \n\n"
    text = BOOK.replace("Chapter one.", body)
    pieces = [text[n : n + size] for n in range(0, len(text), size)] if size > 1 else [*text[:3000], text[3000:]]
    start, end = text.index("A BOOK ***") + len("A BOOK ***"), text.index("*** END")
    assert "".join(cut_licence(pieces)) == text[start:end].strip() + "\n"
    assert "".join(cut_licence([text[:100], text[100:900]])) == text[start:900].strip() + "\n"  # no END
    plain = "no book\n" * 40_000
    assert "".join(cut_licence([plain[:5], plain[5:]])) == plain


@pytest.mark.parametrize("size", [7, 100, HEAD])
def test_books_put_together_are_all_kept(size: int) -> None:
    """Bug guarded against: `cat *.txt > shelf.txt` lost every book after the first one's END."""
    second = BOOK.replace("Chapter one.", "Chapter two." * 20_000)
    shelf = BOOK + second + BOOK.replace("Chapter one.", "Chapter three.")
    pieces = [shelf[n : n + size] for n in range(0, len(shelf), size)]
    found = "".join(cut_licence(pieces))
    assert "PROJECT GUTENBERG" not in found.upper()
    assert "A BOOK ***" not in found
    assert found.split() == [
        "Chapter",
        "one.",
        "It",
        "was",
        "ééé",
        "late.",
        *(("Chapter two." * 20_000).split()),
        "It",
        "was",
        "ééé",
        "late.",
        "Chapter",
        "three.",
        "It",
        "was",
        "ééé",
        "late.",
    ]


def test_only_regular_files_of_known_endings(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("b/z.txt", "b.TXT", "a.md", "c.png", "noending", ".git/x.txt", ".hidden.txt"):
        (tmp_path / name).write_text(name)
    os.mkfifo(tmp_path / "pipe.txt")  # opening it would wait for ever
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "away.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link.txt").symlink_to(tmp_path / "c.png")
    (tmp_path / "round.txt").symlink_to(tmp_path / "about.txt")
    (tmp_path / "about.txt").symlink_to(tmp_path / "round.txt")
    assert [Path(name).relative_to(tmp_path).as_posix() for name in read(tmp_path)] == [
        "a.md", "b/z.txt", "b.TXT", "link.txt",
    ]  # fmt: skip


def test_a_link_to_itself_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "round.txt").symlink_to(tmp_path / "round.txt")
    with pytest.raises(UserError, match=r"cannot read .*round.txt: Too many levels of symbolic links"):
        read(tmp_path / "round.txt")


def test_unusual_file_names(tmp_path: Path) -> None:
    """Newlines, quotes, bytes that are no UTF-8, and names as long as they come."""
    names = [b"new\nline.txt", b"quo'te\"s.txt", b"\xff\xfe.txt", b"-dash.txt", "é\u0301 \u202e.txt".encode(), b" .txt"]
    names.append(b"n" * 251 + b".txt")
    for n, name in enumerate(names):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text(f"text {n}\n")
    deep = tmp_path
    for _ in range(8):
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    (deep / "deep.txt").write_text("deep\n")
    found = read(tmp_path)
    assert {os.fsencode(Path(name).name) for name in found} == {*names, b"deep.txt"}
    assert {*found.values()} == {f"text {n}\n" for n in range(len(names))} | {"deep\n"}


def test_folders_nested_deeper_than_pythons_stack(tmp_path: Path) -> None:
    folders = [str(tmp_path) + "/d" * n for n in range(1, 1200)]
    for folder in folders:
        os.mkdir(folder)
    Path(folders[-1], "t.txt").write_text("deep\n")
    try:
        assert [*read(tmp_path).values()] == ["deep\n"]
    finally:  # pytest could not
        os.unlink(folders[-1] + "/t.txt")
        for folder in reversed(folders):
            os.rmdir(folder)


def test_text_through_a_pipe_is_read_twice_and_leaves_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("through a pipe\n"))
    writer.start()
    left = cache_folder() / "pipes" / "999999999-0"  # of a process that was killed
    left.parent.mkdir(parents=True)
    left.touch()
    (left.parent / "notes").touch()  # not ours
    assert read(pipe) == {str(pipe): "through a pipe\n"}
    writer.join()
    assert [p.name for p in left.parent.iterdir()] == ["notes"]


def test_empty_files_in_a_folder_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").touch()
    assert [*read(tmp_path).values()] == ["text"]


def test_any_change_changes_the_digest(tmp_path: Path) -> None:
    def of(**files: str) -> str:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for name, text in files.items():
            (folder / f"{name}.txt").write_text(text)
        return digest(folder)

    assert of(a="xy", b="z") != of(a="x", b="yz")
    assert of(a="xy", b="z") != of(a="z", b="xy")
    assert of(a="xy", b="z") != of(a="xy")
    assert of(a="xy", b="z") == of(c="xy", d="z", e="")


def test_built_in_text() -> None:
    (text,) = read("python-reference").values()
    assert len(text) > 300_000
    assert "with" in text
