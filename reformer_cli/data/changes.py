"""How a corpus differs from what it was: the names of its files and digests of what they held lie beside its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from reformer_cli.data.scan import Scan

CHANGED = "files.txt"
DIGITS = 16  # of a file's digest: enough to tell two of them apart
NAMED = 3  # files that are named


def write_files(path: Path, scans: Sequence[Scan]) -> None:
    """A line for each file with text: digest and name."""
    with open(path, "w", encoding="ascii") as file:
        file.writelines(f"{digest} {json.dumps(name)}\n" for digest, name in _files(scans))


def _files(scans: Sequence[Scan]) -> Iterator[tuple[str, str]]:
    for scan in scans:
        for _, source, record in scan.files():
            if record.bytes:
                yield record.digest.hex()[:DIGITS], source.name


def describe_changes(folder: Path | None, scans: Sequence[Scan]) -> str:
    """Which files are other, new or gone, as the end of a sentence; "" where that is not known."""
    try:
        lines = (folder / CHANGED).read_text("ascii").splitlines() if folder is not None else []
        old = {json.loads(line[DIGITS + 1 :]): line[:DIGITS] for line in lines}
    except (OSError, ValueError):
        old = {}
    if not old:
        return ""
    found: list[str] = []
    for digest, name in _files(scans):
        before = old.pop(name, None)
        if before != digest:
            found.append(f"{name} {'is new' if before is None else 'is other'}")
    found += [f"{name} is gone" for name in old]
    more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return f": {', '.join(found[:NAMED])}{more}" if found else ""
