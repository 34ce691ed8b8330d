"""Files that are there whole or not at all, and where cached ones live."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import as_size

ADDRESS = re.compile(r"(?i)(?:https?|ftp)://\S+$|www\.\S+$")
NEAR = 0.8  # how alike names are of which one may be meant for the other


def cache_folder() -> Path:
    """Where downloads and tokens are kept: $XDG_CACHE_HOME/reformer, else ~/.cache/reformer."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reformer"


def check_free(path: Path, overwrite: bool, option: str = "--output") -> None:
    """Raise UserError where writing to `path` would lose what somebody else has put there: an empty file, and one that
    the user gives away, are free."""
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder", "name a file")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}")
    if not overwrite and path.is_file() and (size := path.stat().st_size):
        raise UserError(
            f"{option} {path} is there already ({as_size(size)})", "choose another name, or add --overwrite"
        )


def not_there(name: str, hint: str = "") -> UserError:
    """What to say of a file or folder that does not exist."""
    if ADDRESS.match(name):
        return UserError(f"{name} is a web address", "save it as a file first, and name that")
    path = Path(name)
    with suppress(OSError, ValueError):
        here = {entry.lower(): entry for entry in os.listdir(path.parent)}
        if near := difflib.get_close_matches(path.name.lower(), here, 1, NEAR):
            hint = f"did you mean {here[near[0]]}?"
    return UserError(f"no file or folder {name!r}", hint)


def key(*parts: object) -> str:
    """A name for what is made of these."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def write_file(path: Path, content: bytes | str) -> None:
    """Write aside, fsync, rename: `path` is the old file or the whole new one, whatever happens."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(aside, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """fill(aside), fsync of every file, rename: a folder is there complete or not at all. Replaces an older one."""
    aside = open_aside(path, f"{os.getpid()}-{threading.get_ident()}")
    try:
        fill(aside)
        put_in_place(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def open_aside(path: Path, mark: str) -> Path:
    """An empty folder beside `path`, to be filled and then put in its place."""
    aside = path.with_name(f".{path.name}.{mark}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    return aside


def put_in_place(aside: Path, path: Path) -> None:
    """Ask the disk to have a folder's files, readable to whom the folder is, then rename it."""
    mode = aside.stat().st_mode & 0o666  # safetensors lets its owner alone read what it writes
    for file in aside.iterdir():
        file.chmod(mode)
        sync(file)
    sync(aside)
    if path.exists():
        shutil.rmtree(path)
    os.replace(aside, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Ask the disk to have it, so that a power cut after the rename finds the content too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: object) -> str:  # Python 3.10
    found = hashlib.sha256()
    while part := file.read(2**20):  # type: ignore[attr-defined]
        found.update(part)
    return found.hexdigest()
