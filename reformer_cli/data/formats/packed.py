"""What is packed: files under gzip or Zstandard, and how much anything may unpack to."""

from __future__ import annotations

import gzip
import importlib
import io
import sys
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from reformer_cli.data.text_decoding import UnreadableText
from reformer_cli.utils.extras import missing_package

BOMB_RATIO, BOMB_SIZE = 250, 2**28  # a compressed file that grows so much, and to more than so many bytes, is refused


class Budget:
    """How many bytes may still come out of a file, whatever is packed in what."""

    def __init__(self, packed: int) -> None:
        self.left = max(BOMB_SIZE, packed * BOMB_RATIO)

    def take(self, size: int, name: str) -> None:
        """So many more have come. Raises UnreadableText where that is far more than a text would give."""
        self.left -= size
        if self.left < 0:
            what = f"{name} unpacks to more than {BOMB_RATIO} times its size"
            raise UnreadableText(what, "unpack it yourself if that is right")


def _zstd(file: BinaryIO, name: str) -> Any:
    # Unlike the package zstandard, this one tells a file that was cut off.
    try:
        zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError:
        raise missing_package("backports.zstd", name) from None
    return zstd.ZstdFile(file)


UNPACKERS: dict[str, Callable[[BinaryIO, str], Any]] = {
    ".gz": lambda file, name: gzip.GzipFile(fileobj=file),
    ".zst": _zstd,
}


class Unpacked(io.RawIOBase):
    """A stream that unpacks, within a budget."""

    def __init__(self, stream: BinaryIO, packed: str, name: str, budget: Budget) -> None:
        self.stream, self.file, self.budget = UNPACKERS[packed](stream, name), name, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(len(buffer))
        except Exception as error:
            kind = type(error).__name__
            if isinstance(error, (EOFError, zlib.error)) or kind in ("BadGzipFile", "ZstdError"):
                what = "zstd" if type(self.stream).__name__ == "ZstdFile" else "gzip"
                hint = "unpack or download it again"
                raise UnreadableText(f"{self.file} is not a whole {what} file ({error})", hint) from None
            raise
        self.budget.take(len(data), self.file)
        buffer[: len(data)] = data
        return len(data)
