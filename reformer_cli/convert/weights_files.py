"""A model's folder from anywhere: config and weights are read as data, sizes checked; nothing is executed."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import as_size

CONFIG, SAFETENSORS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
LARGEST_JSON = 2**22  # bytes of a config or an index


class Weights(Protocol):
    """Tensors by name; shapes are known before any is read."""

    where: str

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""

    def get(self, name: str) -> Tensor:
        """One tensor, in main memory."""


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON file with an object in it. Raises UserError for anything else."""
    try:
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise UserError(f"{path} has {size:,} bytes, such a file at most {LARGEST_JSON:,}")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error or type(error).__name__})", "it is damaged") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, not an object with names and values")
    return content


def open_weights(folder: Path) -> Weights:
    """safetensors if there are any, in one file or in parts, else pytorch_model.bin. Raises UserError."""
    for single, kind in ((SAFETENSORS, SafeWeights), (PICKLED, PickledWeights)):
        index = folder / f"{single}.index.json"
        if (folder / single).is_file():
            return kind(folder / single)
        if index.is_file():
            return Parts(index, kind)
    raise UserError(f"{folder} has no weights", f"{SAFETENSORS} or {PICKLED} is what they are read from")


class SafeWeights:
    """One safetensors file."""

    def __init__(self, path: Path) -> None:
        self.where, self._shapes = str(path), {}
        try:
            self._file = safe_open(path, framework="pt")
            self._shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path} is not a safetensors file ({error})", "it is damaged") from None

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def get(self, name: str) -> Tensor:
        try:
            return self._file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.where}: {name} cannot be read ({error})", "the file is damaged") from None


class PickledWeights:
    """A file of torch.save, read by torch's loader of weights alone: any other object in it is refused, not made."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        size, zipped = path.stat().st_size, zipfile.is_zipfile(path)
        if zipped:
            _check_archive(path, size)
        try:
            # Without mmap a file of the old format, which the public checkpoints have, is read as a whole.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as error:  # a foreign file can make the unpickler raise anything
            raise UserError(
                f"{path} cannot be read as weights alone ({_reason(error)})", "it is damaged or unsafe"
            ) from None
        if not isinstance(content, dict) or not all(isinstance(x, str) for x in content):
            raise UserError(f"{path} holds {type(content).__name__}, not tensors by name")
        if others := [name for name, t in content.items() if not _is_plain(t)]:
            raise UserError(f"{path} holds what is no ordinary tensor: {_few(others)}")
        self._tensors: dict[str, Tensor] = content
        # A few bytes can be called a tensor of any size, by strides of 0.
        if (total := sum(t.numel() * t.element_size() for t in content.values())) > 2 * size:
            raise UserError(
                f"{path} claims to hold {as_size(total)} and has {as_size(size)}", "it is not to be trusted"
            )

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(t.shape) for name, t in self._tensors.items()}

    def get(self, name: str) -> Tensor:
        return self._tensors[name]


class Parts:
    """Weights in several files, and the index that says which tensor is in which."""

    def __init__(self, index: Path, kind: type[SafeWeights] | type[PickledWeights]) -> None:
        self.where = str(index)
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
            raise UserError(f"{index} has no weight_map of names and files")
        files = sorted(set(places.values()))
        if odd := [f for f in files if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", f)]:
            raise UserError(f"{index} names what is no file of its folder: {_few(odd)}", "it is not to be trusted")
        if missing := [f for f in files if not (index.parent / f).is_file()]:
            raise UserError(f"{index.parent} lacks {_few(missing)}, which {index.name} names")
        self._parts = [kind(index.parent / f) for f in files]

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for part in self._parts:
            found.update(part.shapes())
        return found

    def get(self, name: str) -> Tensor:
        return next(part for part in self._parts if name in part.shapes()).get(name)


def _check_archive(path: Path, size: int) -> None:
    """torch stores its records as they are; packed ones could swell to any size when read."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path} is not a whole archive ({error})", "it is damaged") from None
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > size:
        raise UserError(
            f"{path} is packed or claims more than its {as_size(size)}", "torch.save does not write such files"
        )


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _reason(error: Exception) -> str:
    """The part of torch's long message that says what was found."""
    text = " ".join(str(error).split())
    found = re.search(r"Unsupported (?:global|operand|class)[^.]*?[:]? (?:GLOBAL )?[\w.]+", text)
    return (found.group() if found else text[:150]) or type(error).__name__


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
