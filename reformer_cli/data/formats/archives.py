"""Archives: each file of a known format in them is read; one that cannot be read is named, the others are read.

Nothing is unpacked to a path of the archive's own: members come one at a time, each as a file without a name.
"""

from __future__ import annotations

import dataclasses
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from reformer_cli.data.formats.base import AGAIN, Document, NoText, not_whole
from reformer_cli.data.formats.packed import Budget
from reformer_cli.data.text_decoding import BLOCK, OpenFile, UnreadableText

# RuntimeError: of what is encrypted, or (as NotImplementedError) compressed in a way that zipfile does not know.
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, KeyError, OSError)
BROKEN_TAR = (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError)
MOST_MEMBERS = 1_000_000
Kind = tuple[str, str]  # ending, compression


@dataclasses.dataclass(frozen=True)
class Registry:
    """What an archive needs to know of the other formats. documents: of an open file of a kind that kind_of gave."""

    budget: Budget
    kind_of: Callable[[str], Kind | None]
    documents: Callable[[OpenFile, Kind], Iterator[Document]]


def read_zip(file: OpenFile, registry: Registry) -> Iterator[Document]:
    """The files in a .zip archive, by name."""
    try:
        archive = zipfile.ZipFile(file.stream)
    except BROKEN_ZIP as error:
        raise not_whole(file, "zip archive", error) from None
    with archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            if not member.is_dir():
                yield from _member(file, member.filename, lambda: archive.open(member), registry)  # noqa: B023


def read_tar(file: OpenFile, registry: Registry) -> Iterator[Document]:
    """The files in a .tar archive, in its order."""
    for archive, member in _in_tar(file):
        yield from _member(file, member.name, lambda: archive.extractfile(member), registry)  # noqa: B023


class _Header(tarfile.TarInfo):
    """A header where there must be one: tarfile takes what is none for the end, and the rest were lost in silence."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # which has no public name
                raise
            raise tarfile.ReadError(f"cut off: {error}") from None


def _in_tar(file: OpenFile) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    try:
        with tarfile.open(fileobj=file.stream, mode="r|", tarinfo=_Header) as archive:
            for count, member in enumerate(archive):
                setattr(archive, "members", [])  # noqa: B010  where it would keep them all
                if count >= MOST_MEMBERS:
                    raise UnreadableText(f"{file.name} holds more than {MOST_MEMBERS:,} files", "split it")
                if member.isreg():
                    yield archive, member
    except BROKEN_TAR as error:
        raise not_whole(file, "tar archive", error) from None


def _member(file: OpenFile, path: str, opened: Callable[[], Any], registry: Registry) -> Iterator[Document]:
    """The documents of a member; of one that cannot be read, a document that says why."""
    name, parts = f"{file.name}: {path}", [part for part in path.split("/") if part not in (".", "..")]
    if (kind := registry.kind_of("".join(parts[-1:]))) is None or any(
        part.startswith((".", "__MACOSX", "~$")) for part in parts
    ):
        file.replaced.skip(name, "in archives, of other kinds or hidden")
        return
    with tempfile.TemporaryFile() as kept:
        try:
            _copy(opened, kept, name, registry.budget)
            yield from registry.documents(dataclasses.replace(file, name=name, stream=kept), kind)
        except NoText as fault:
            file.replaced.skip(name, fault.why)
        except UnreadableText as fault:
            yield Document(name, _raising(fault))


def _copy(opened: Callable[[], Any], kept: IO[bytes], name: str, budget: Budget) -> None:
    try:
        with opened() as stream:
            while data := stream.read(BLOCK):
                budget.take(len(data), name)
                kept.write(data)
    except (*BROKEN_ZIP, *BROKEN_TAR) as error:
        what = "is encrypted" if "encrypted" in str(error) else f"is damaged in the archive ({str(error)[:200]})"
        raise UnreadableText(
            f"{name} {what}", AGAIN if "damaged" in what else "unpack it, and name what was in it"
        ) from None
    kept.seek(0)


def _raising(fault: UnreadableText) -> Iterator[str]:
    raise fault
    yield ""
