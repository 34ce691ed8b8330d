"""What several commands need: the device, fast memory, text from users, numbers for people."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.utils.errors import UserError, tell

if TYPE_CHECKING:
    from pydantic import ValidationError
    from reformer import ReformerConfig, ReformerLM

    from reformer_cli.runs.run import Run

RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="Run directory; default: the newest under runs/.")
]
BucketsOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        max=65_536,
        help="Buckets of the hash round that looks far back (about buckets x window tokens), also for a model without "
        "one: an even multiple of the other rounds'; as many as those: none.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.")
]


def say(text: str) -> None:
    """A line for the user's eyes; stdout is for text alone."""
    tell(text)


def pick_device(name: str) -> str:
    """auto -> cuda or cpu. Raises UserError for a device that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}", "use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported", "use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs", "use --device cpu"
        )
    return name


def free_memory(device: str) -> int:
    """Bytes that are free on a device."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the system after each use.

    A training step frees and asks again for the same large tensors; the page faults of that were a third of its time
    (LOG.md). Elsewhere than on glibc nothing happens.
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
    from reformer.backends import gpu
    from reformer.backends.native import library

    if config.backend == "torch":
        return "torch", "as the config asks"
    if config.backend == "triton" or (config.backend == "auto" and not device.startswith("cpu")):
        why = gpu.problem(torch.device(device))
        if not why:
            return "triton", "kernels compiled for this GPU"
        if config.backend == "triton":
            raise UserError(
                f"backend triton cannot be used: {why}", "set model.backend to auto, in a run's config.yaml"
            )
        return "torch", why
    if device.startswith("cpu") and library.library() is not None:
        return "native", "C compiled for this CPU"
    why = library.problem() if device.startswith("cpu") else "this is a GPU"
    if config.backend == "native":
        raise UserError(f"backend native cannot be used: {why}", "set model.backend to auto, in a run's config.yaml")
    return "torch", why


def load_model(run: Run, device: str) -> ReformerLM:
    """A run's best weights, once it is known that something there can compute them."""
    backend_reason(run.config.model, device)
    return run.load_model(device)


def read_text(path: str) -> str:
    """A text file, or standard input for `-`, as UTF-8. Raises UserError for anything else."""
    from reformer_cli.data.text_decoding import decode

    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"no file {path!r}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        return decode(data, "standard input" if path == "-" else path, "utf-8")
    except UserError as error:  # --encoding, which a corpus is read with, is no option here
        raise UserError(error.message, "convert it: iconv -f latin1 -t utf-8") from None


def option_faults(error: ValidationError) -> UserError:
    """What is wrong with command line options, all in one line."""
    faults: list[str] = []
    for item in error.errors(include_url=False):
        name: Any = item["loc"][0] if item["loc"] else "?"
        faults.append(
            f"--{str(name).replace('_', '-')} {item['input']}: {item['msg'].replace('Input should', 'should')}"
        )
    return UserError("; ".join(faults))
