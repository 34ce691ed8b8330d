"""Sizes, times, tables and text of strangers, for people to read."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """On one line, with what is no text spelt out: file names can hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_size(count: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def as_time(seconds: float) -> str:
    """1:02:03 or 4:05."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def span(found: tuple[float, float] | None, digits: int = 4) -> str:
    """An interval for people; empty where there is none."""
    return f"{found[0]:,.{digits}f} to {found[1]:,.{digits}f}" if found is not None else ""


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table for people: the first `left` columns are flush left, the others right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def ago(seconds: float) -> str:
    """How long something has been, to a reader's needs."""
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if (n := int(seconds // size)) >= 1:
            return f"{n:,} {unit}{'s' if n > 1 else ''} ago"
    return "just now"
