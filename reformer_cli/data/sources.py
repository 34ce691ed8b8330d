"""Where text comes from: files, folders, stdin, Project Gutenberg, the built-in text."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from reformer_cli.data import gutenberg
from reformer_cli.data.formats import registry
from reformer_cli.data.formats.base import Document
from reformer_cli.data.formats.registry import ENDINGS, IMAGES, INSTEAD, format_of
from reformer_cli.data.running_heads import cut_heads
from reformer_cli.data.text_decoding import Options, Replacements, UnreadableText
from reformer_cli.data.unwrap import unwrap
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import ADDRESS, cache_folder, not_there

BUILT_IN = "python-reference"
GUTENBERG = gutenberg.GUTENBERG
BLOCK = 2**20  # bytes copied at once


@dataclass(frozen=True)
class Source:
    """A file of a corpus, by its name for people, its path and its format.

    signature: changes with the content; changed: when it last did, in seconds since 1970; named: outright, not found in
    a folder.
    """

    name: str
    path: str
    ending: str
    packed: str
    size: int
    signature: str
    changed: float
    named: bool = False


def documents(source: Source, options: Options, replaced: Replacements | None = None) -> Iterator[Document]:
    """The documents of a source. replaced: where bytes were none. Raises UnreadableText for what is no text."""
    if source.ending == BUILT_IN:
        yield _laid_out(Document(BUILT_IN, [python_reference()]), options, replaced or Replacements())
        return
    place = source.path, source.name, source.ending, source.packed
    try:
        for document in registry.documents(*place, options, told := replaced or Replacements()):
            yield _laid_out(document, options, told)
    except OSError as error:
        raise UnreadableText(f"cannot read {source.name}: {error.strerror or error}") from None


def _laid_out(document: Document, options: Options, told: Replacements) -> Document:
    """A text without its running heads, its lines joined, where the options say so; an image as it is."""
    if options.image_size is not None:
        return document
    pieces: Iterable[str] = cut_heads(document.pieces, options.duplicates != "keep", told.count_heads)
    if options.unwrap != "keep":
        pieces = unwrap(pieces, told.count_joined, join=options.unwrap == "join")
    return Document(document.name, pieces)


@contextmanager
def sources(specs: Sequence[str], skipped: Callable[[str, str], None], options: Options) -> Iterator[Iterator[Source]]:
    """The files of a corpus, sorted; specs: files, folders, `-`, `gutenberg:ID`, `python-reference`.

    skipped: told (path, why) of what folders hold besides. Text that comes through a pipe is kept on disk meanwhile.
    Raises UserError for what is not there.
    """
    if not specs:
        raise UserError("no corpus given", f"name a file or folder, or {BUILT_IN} for the built-in text")
    with ExitStack() as stack:
        yield (source for spec in specs for source in _named(spec, skipped, stack, options.image_size is not None))


def absolute(specs: Sequence[str]) -> tuple[str, ...]:
    """The same corpus from any working directory: paths made absolute."""
    named = (BUILT_IN, "-")
    return tuple(s if s in named or s.startswith(GUTENBERG) or ADDRESS.match(s) else os.path.abspath(s) for s in specs)


def _named(spec: str, skipped: Callable[[str, str], None], stack: ExitStack, images: bool) -> Iterator[Source]:
    if images and (spec == BUILT_IN or spec.startswith(GUTENBERG)):
        raise UserError(f"{spec} is a text, data.image_size is for images", "name images, or leave data.image_size out")
    if spec == BUILT_IN:
        yield Source(BUILT_IN, "", BUILT_IN, "", 0, sys.version, 0.0)
    elif spec.startswith(GUTENBERG):
        yield _source(spec, str(gutenberg.download(spec.removeprefix(GUTENBERG))), (".txt", ""))
    elif spec == "-":
        yield _source("standard input", stack.enter_context(_kept(sys.stdin.buffer)), _plain(images), named=True)
    elif os.path.isdir(spec):
        files = _walk(spec, skipped, images)
        first = next(files, None)
        if first is None:
            raise _nothing_in(spec, images)
        yield first
        yield from files
    else:
        yield _file(spec, stack, images)


def _nothing_in(folder: str, images: bool) -> UserError:
    known = " ".join(IMAGES) if images else " ".join(ENDINGS)
    if not images and next(_walk(folder, lambda path, why: None, True), None) is not None:
        hint = "for images, --config tiny-images or imagenet64, or --set data.image_size=[HEIGHT,WIDTH]"
        return UserError(f"the folder {folder} holds images and no text files", hint)
    return UserError(f"the folder {folder} holds no {'images' if images else 'text files'}", f"known endings: {known}")


def _plain(images: bool) -> tuple[str, str]:
    """The format of what has no known ending; it is found in the content."""
    return (".png" if images else "", "")


def _file(spec: str, stack: ExitStack, images: bool) -> Source:
    # A file named outright is read whatever its ending.
    kind = format_of(os.path.basename(spec), images) or _plain(images)
    try:
        mode = os.stat(spec).st_mode
        if stat.S_ISREG(mode):
            return _source(spec, spec, kind, named=True)
        with open(spec, "rb") as pipe:  # such as a shell's <(zcat book.gz)
            return _source(spec, stack.enter_context(_kept(pipe)), kind, named=True)
    except (FileNotFoundError, ValueError):
        hint = f"the built-in text is called {BUILT_IN}, a Gutenberg book {GUTENBERG}2554"
        raise not_there(spec, hint) from None
    except OSError as error:
        raise UserError(f"cannot read {spec}: {error.strerror}") from None


def _source(name: str, path: str, kind: tuple[str, str], named: bool = False) -> Source:
    found = os.stat(path)
    signature = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino} {found.st_dev}"
    return Source(name, path, *kind, found.st_size, signature, max(found.st_mtime, found.st_ctime), named)


def _walk(folder: str, skipped: Callable[[str, str], None], images: bool) -> Iterator[Source]:
    """Files of known formats, by name. Held in memory: the names in the folders above, one deep."""
    waiting = [_listed(folder)]
    while waiting:
        name, path, is_folder = next(waiting[-1], ("", "", False))
        if not name:
            waiting.pop()
        elif name.startswith((".", "~$")):  # the latter: of a document that is open in Word
            skipped(path, "hidden")
        elif is_folder:
            waiting.append(_listed(path))
        elif (kind := format_of(name, images)) is None or not os.path.isfile(path):
            skipped(path, _why(name, path))
        else:
            yield _source(path, path, kind)


def _listed(folder: str) -> Iterator[tuple[str, str, bool]]:
    """(name, path, whether it is a folder) of what a folder holds."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)
    except OSError as error:
        raise UserError(
            f"cannot open the folder {folder}: {error.strerror}", "allow it, or move it elsewhere"
        ) from None
    return ((name, os.path.join(folder, name), is_folder) for name, is_folder in found)


def _why(name: str, path: str) -> str:
    if os.path.islink(path) and not os.path.isfile(path):
        return "link to a folder" if os.path.isdir(path) else "link to nothing"
    if not os.path.isfile(path):
        return "no regular file"
    ending = os.path.splitext(name)[1]
    what = INSTEAD.get(ending.lower())
    return (
        (f"ending {ending}: {what}" if what else f"ending {ending}")
        if ending
        else "no ending: read where they are named"
    )


@contextmanager
def _kept(pipe: BinaryIO) -> Iterator[str]:
    """What comes through a pipe as a file, for it is read twice; then removed, as are those of killed processes."""
    folder = cache_folder() / "pipes"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        process = old.name.partition("-")[0]
        if process.isdecimal() and not _alive(int(process)):
            old.unlink(missing_ok=True)
    path = folder / f"{os.getpid()}-{id(pipe)}"
    try:
        with open(path, "wb") as file:
            shutil.copyfileobj(pipe, file, BLOCK)
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def python_reference() -> str:
    """The language reference that every CPython ships, one topic after another."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"


def gone(specs: Sequence[str]) -> list[str]:
    """Which of a corpus's files and folders are not there any more, pipes included."""
    named = [s for s in specs if s != BUILT_IN and not s.startswith(GUTENBERG)]
    return [s for s in named if s == "-" or not Path(s).exists()]
