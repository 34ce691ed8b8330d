"""What a user can do wrong, said in one line: what, the numbers, what to do. Exit status 2, never a traceback."""

from __future__ import annotations

import errno
from collections.abc import Sequence

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(ValueError):
    """A mistake the user can mend. message: what is wrong, with its numbers; hint: what to do about it. silent: another
    process has said it."""

    silent = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return " ".join(text.split())


class ConfigError(UserError):
    """Everything that is wrong with a configuration, one fault a line."""

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        super().__init__(where)
        self.faults = list(faults)

    def __str__(self) -> str:
        faults = [" ".join(fault.split()) for fault in self.faults]
        if len(faults) == 1:
            return f"{self.message}: {faults[0]}"
        return "\n".join([f"{self.message}: {len(faults)} faults", *(f"  - {fault}" for fault in faults)])


def is_disk_full(error: BaseException) -> bool:
    """Whether writing failed for want of space; safetensors reports it as text only."""
    if isinstance(error, OSError):
        return error.errno in NO_SPACE
    return type(error).__name__ == "SafetensorError" and any(
        sign in str(error) for sign in ("No space left", "StorageFull", "os error 28", "os error 27", "File too large")
    )


def why_not_written(error: BaseException) -> str | None:
    """What kept a file from being written, in a few words; None where the error is of another kind."""
    if is_disk_full(error):
        where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return f"no space left on the device{where}"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error) if type(error).__name__ == "SafetensorError" else None
