"""A model on disk: model.safetensors and the `model:` section of config.yaml. Nothing in it is executed.

The one file of the core that reads YAML; a folder may come from anyone, so sizes and names are checked first.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reformer.config import ReformerConfig

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
LARGEST_CONFIG = 2**20  # bytes
SCALE = ".scale"
SMALL = 4096  # numbers of a matrix below which eight bits save nothing
Shapes = Mapping[str, torch.Size]
ShapesOf = Callable[[ReformerConfig, Collection[str]], Shapes]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """write(aside), then fsync and rename: `path` is the old file or the whole new one, whatever happens."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.touch()
        mode = aside.stat().st_mode
        write(aside)
        with open(aside, "rb+") as file:
            os.chmod(aside, mode)  # what any file gets here: safetensors lets its owner alone read what it writes
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write(
    config: ReformerConfig, tensors: dict[str, Tensor], folder: str | os.PathLike[str], int8: bool = False
) -> None:
    """Both files, each whole or not at all; the folder is made. int8: see `write_tensors`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_tensors(tensors, target / WEIGHTS, int8)
    write_config(config, target)


def read(
    folder: str | os.PathLike[str], shapes_of: ShapesOf, device: torch.device | str = "cpu"
) -> tuple[ReformerConfig, dict[str, Tensor]]:
    """What `write` wrote. shapes_of: of the tensors that a config asks for, given the names that there are. Raises
    ValueError if the folder is not whole, or naming everything that does not fit."""
    config = read_config(Path(folder))
    return config, read_tensors(Path(folder) / WEIGHTS, lambda names: shapes_of(config, names), device)


def write_tensors(tensors: dict[str, Tensor], path: Path, int8: bool = False) -> None:
    """Weights and rotations by name, atomically. int8: matrices in eight bits, see `in_int8`."""
    whole = {name: t.contiguous() for name, t in (in_int8(tensors) if int8 else tensors).items()}
    write_whole(path, lambda aside: save_file(whole, aside, metadata={"format": "reformer"}))


def in_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each matrix [m, n] as int8 of the same name and a scale for each row, float32 [m], of the name with SCALE behind
    it: its largest number is 127. Everything else as it is."""
    found: dict[str, Tensor] = {}
    for name, t in tensors.items():
        if t.ndim == 2 and t.numel() >= SMALL:
            scale = t.float().abs().amax(1) / 127
            found[name] = (t.float() / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8)
            found[name + SCALE] = scale
        else:
            found[name] = t
    return found


def write_config(config: ReformerConfig, folder: Path) -> None:
    """Write config.yaml, whole or not at all."""
    settings = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(config).items()}
    text = yaml.safe_dump({"model": settings}, sort_keys=False)
    write_whole(folder / CONFIG, lambda aside: Path(aside).write_text(text, "utf-8"))


def read_tensors(
    path: Path, shapes_of: Callable[[Collection[str]], Shapes], device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Tensors of the names and shapes that are asked for, given the names that there are; matrices in int8 as float32.
    Raises ValueError naming everything that does not fit."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            names = set(file.keys())
            shapes = dict(shapes_of(names))
            rows = {n + SCALE: shapes[n][:1] for n in names & set(shapes) if file.get_slice(n).get_dtype() == "I8"}
            shapes |= rows
            faults = [f"{n} is missing" for n in shapes if n not in names]
            faults += [f"{n} is unknown" for n in names - set(shapes)]
            for name in names & set(shapes):
                if (shape := list(file.get_slice(name).get_shape())) != list(shapes[name]):
                    faults.append(f"{name} is {shape}, the config makes it {list(shapes[name])}")
            if faults:
                raise ValueError(f"{path} does not fit its config: " + "; ".join(sorted(faults)))
            tensors = {name: file.get_tensor(name) for name in shapes}
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    for scale in rows:
        name = scale.removesuffix(SCALE)
        if tensors[name].ndim == 2:
            tensors[name] = tensors[name] * tensors[scale].float()[:, None]
    if bad := [name for name, t in tensors.items() if not t.is_floating_point() or not bool(t.isfinite().all())]:
        raise ValueError(f"{path} holds values that are not finite numbers: {', '.join(sorted(bad))}")
    return {name: t for name, t in tensors.items() if name not in rows}


def read_config(folder: Path) -> ReformerConfig:
    """The `model:` section of config.yaml, checked. Raises ValueError."""
    path = folder / CONFIG
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"{path} is larger than {LARGEST_CONFIG} bytes")
        settings = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {CONFIG}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise ValueError(f"{path} has no section `model`")
    try:
        return ReformerConfig(**settings["model"])
    except (ValidationError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
