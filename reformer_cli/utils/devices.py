"""The device that a command works on: which, its free memory, and what computes a model there."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from reformer_cli.utils.errors import UserError

if TYPE_CHECKING:
    from reformer import ReformerConfig


def pick_device(name: str) -> str:
    """auto -> cuda or cpu. Raises UserError for a device that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}", "use auto, cpu, cuda, cuda:N or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {name!r} is not supported", "use auto, cpu, cuda, cuda:N or mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {name!r} is not there: it is the GPU of an Apple computer", "use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs", "use --device cpu"
        )
    return name


def free_memory(device: str) -> int:
    """Bytes that are free on a device. An Apple GPU shares the main memory, of which it takes a part at most."""
    if device.startswith("cpu"):
        import psutil

        return int(psutil.virtual_memory().available)
    import torch

    if device.startswith("mps"):
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(torch.cuda.mem_get_info(device)[0])


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the system after each use.

    A training step frees and asks again for the same large tensors; the page faults of that were a third of its time
    (LOG.md, 2026-11-23). Elsewhere than on glibc nothing happens.
    """
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for parameter, value in ((m_mmap_threshold, 2**25), (m_trim_threshold, 2**31 - 1), (m_top_pad, 2**26)):
        mallopt(parameter, value)


def backend_reason(config: ReformerConfig, device: str) -> tuple[str, str]:
    """(what computes this model there, why). Raises UserError for a backend that cannot be had."""
    import torch
    from reformer.backends.dispatch import explain

    try:
        return explain(config.backend, torch.device(device))
    except ValueError as error:
        raise UserError(str(error), "set model.backend to auto, in a run's config.yaml") from None
