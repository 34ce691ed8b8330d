"""A model on disk: model.safetensors and the `model:` section of config.yaml. Nothing in it is executed.

The one file of the core that reads YAML; a folder may come from anyone, so sizes and names are checked first.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reformer.config import VERSION, ReformerConfig, as_of
from reformer.model import ReformerLM

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
LARGEST_CONFIG = 2**20  # bytes


def write_whole(path: Path, write: Any) -> None:
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


def save_weights(model: ReformerLM, path: Path) -> None:
    """Weights and rotations as safetensors, atomically; a tied matrix is stored once."""
    save_tensors({name: t.detach() for name, t in model.state_dict().items() if name not in _tied(model)}, path)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A model's weights and rotations by name, atomically."""
    whole, metadata = {name: t.contiguous() for name, t in tensors.items()}, {"format": "reformer"}
    write_whole(path, lambda aside: save_file(whole, aside, metadata=metadata | {"version": str(VERSION)}))


def save_pretrained(model: ReformerLM, folder: str | os.PathLike[str]) -> None:
    """See ReformerLM.save_pretrained."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    save_weights(model, target / WEIGHTS)
    save_config(model.config, target)


def save_config(config: ReformerConfig, folder: Path) -> None:
    """Write config.yaml, whole or not at all."""
    settings = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(config).items()}
    text = yaml.safe_dump({"version": VERSION, "model": settings}, sort_keys=False)
    write_whole(folder / CONFIG, lambda aside: Path(aside).write_text(text, "utf-8"))


def load_weights(config: ReformerConfig, path: Path, device: Any = "cpu") -> ReformerLM:
    """A model of this config with the weights of `path`. Raises ValueError naming everything that does not fit."""
    with torch.device("meta"):  # nothing is allocated before the file is known to fit
        model = ReformerLM(config)
    tied = _tied(model)
    wanted = {name: t for name, t in model.state_dict().items() if name not in tied}
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            names = set(file.keys())
            faults = [f"{n} is missing" for n in wanted if n not in names] + [
                f"{n} is unknown" for n in names - set(wanted)
            ]
            for name in names & set(wanted):
                if (shape := list(file.get_slice(name).get_shape())) != list(wanted[name].shape):
                    faults.append(f"{name} is {shape}, the config makes it {list(wanted[name].shape)}")
            if faults:
                raise ValueError(f"{path} does not fit its config: " + "; ".join(sorted(faults)))
            tensors = {name: file.get_tensor(name) for name in wanted}
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if bad := [name for name, t in tensors.items() if not t.is_floating_point() or not bool(t.isfinite().all())]:
        raise ValueError(f"{path} holds values that are not finite numbers: {', '.join(sorted(bad))}")
    tensors |= {name: tensors[source] for name, source in tied.items()}
    model.load_state_dict(tensors, assign=True)
    if config.tie_embeddings:
        model.head.weight = model.embedding
    return model.eval()


def from_pretrained(folder: str | os.PathLike[str], device: Any = "cpu") -> ReformerLM:
    """See ReformerLM.from_pretrained."""
    source = Path(folder)
    try:
        if (source / CONFIG).stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"{source / CONFIG} is larger than {LARGEST_CONFIG} bytes")
        settings = yaml.safe_load((source / CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{source} holds no {CONFIG}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{source / CONFIG} is not YAML: {error}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise ValueError(f"{source / CONFIG} has no section `model`")
    if not isinstance(version := settings.get("version"), int) or version > VERSION:
        raise ValueError(f"{source / CONFIG} has version {version!r}, this program reads up to {VERSION}: upgrade it")
    try:
        config = ReformerConfig(**as_of(version, settings["model"]))
    except (ValidationError, TypeError) as error:
        raise ValueError(f"{source / CONFIG}: {error}") from None
    return load_weights(config, source / WEIGHTS, device)


def _tied(model: ReformerLM) -> dict[str, str]:
    return {"head.weight": "embedding"} if model.config.tie_embeddings else {}
