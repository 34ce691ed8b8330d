"""Checkpoints of a run: written aside and renamed, so each is there whole or not at all; checked before it is used.

checkpoints/step-NNNNNNNN/: tensors.safetensors (of a job that shards: several) and meta.json, which holds the digests
of the others and of itself. A folder may come from anyone: sizes, names and shapes are checked before a tensor is made.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer_cli.utils.console import warn
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import digest_file, open_aside, put_in_place, write_folder

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, TENSORS, META = "checkpoints", "tensors.safetensors", "meta.json"
LARGEST_META = 2**22  # bytes


class Checkpoints:
    """Those of one run. keep: how many of the newest stay, beside the one of the best validation."""

    def __init__(self, run: Path, keep: int) -> None:
        self.folder, self.keep = run / FOLDER, keep

    def save(self, step: int, tensors: dict[str, Tensor], meta: dict[str, Any], best: int | None) -> None:
        """Write one step, whole or not at all, then drop old ones. best: the step of the best validation."""
        from safetensors.torch import save_file

        def fill(folder: Path) -> None:
            save_file({name: t.contiguous() for name, t in tensors.items()}, folder / TENSORS)
            _describe(folder, step, meta)

        write_folder(self.at(step), fill)
        self._drop(step, best)

    def save_together(
        self, step: int, tensors: dict[str, Tensor], meta: dict[str, Any], best: int | None, is_main: bool,
        wait: Callable[[], None],
    ) -> None:  # fmt: skip
        """`save` of tensors that lie in parts in several processes, each of which writes its own."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        target = self.at(step)
        aside = open_aside(target, "shards") if is_main else target.with_name(f".{target.name}.shards.part")
        wait()
        # As safetensors: the library's own format keeps a pickled index.
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(aside), save_distributed=True))
        wait()
        if is_main:
            _describe(aside, step, meta)
            put_in_place(aside, target)
            self._drop(step, best)
        wait()

    def newest_whole(self, check: Callable[[dict[str, Any]], object] = lambda progress: None) -> Path | None:
        """The folder of the newest whole one; a damaged one is named and skipped for the one before.

        check: raises for a progress that cannot be gone on from. None where no checkpoint was ever
        written. Raises UserError where all are damaged.
        """
        found = self.all()
        for folder in found:
            try:
                check(read_meta(folder)["progress"])
                tensor_names(folder)
                if _digests(folder) != _content(folder)["sha256"]:
                    raise ValueError("the checksum differs")
                return folder
            except Exception as error:
                what = " ".join(str(error).split())[:300] or type(error).__name__
                warn(f"checkpoint {folder} is damaged ({what}); trying the one before")
        if found:
            raise UserError(
                f"none of the {len(found)} checkpoints under {self.folder} is whole", "start anew with another --run"
            )
        return None

    def all(self) -> list[Path]:
        """Newest first."""
        if self.folder.is_symlink():
            raise UserError(f"{self.folder} is a link", "a run directory keeps its own checkpoints; remove the link")
        found = [p for p in self.folder.glob("step-*") if p.is_dir() and not p.is_symlink()]
        return sorted(found, key=lambda p: p.name, reverse=True)

    def at(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def clean(self) -> None:
        """Remove what a process that was killed left half written. Only whoever has the run's lock may ask for it."""
        for left in self.folder.glob(".*.part"):
            shutil.rmtree(left, ignore_errors=True)

    def _drop(self, step: int, best: int | None) -> None:
        """All but the newest up to this step and the best. Later ones are of a past that a resume has left behind."""
        names = [p.name for p in self.all() if p.name <= self.at(step).name][: self.keep]
        names += [self.at(best).name] if best is not None else []
        for old in self.all():
            if old.name not in names:
                shutil.rmtree(old, ignore_errors=True)


def read_meta(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself beside its tensors. Raises ValueError if it was changed."""
    meta = _content(folder)["meta"]
    kinds = {"progress": dict, "random": dict, "metrics": int}
    if not isinstance(meta, dict) or any(not isinstance(meta.get(name), kind) for name, kind in kinds.items()):
        raise ValueError(f"{META} lacks {', '.join(kinds)}")
    return meta


def _content(folder: Path) -> dict[str, Any]:
    with open(folder / META, "rb") as file:
        data = file.read(LARGEST_META + 1)
    if len(data) > LARGEST_META:
        raise ValueError(f"{META} has more than {LARGEST_META:,} bytes")
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError(f"{META} is nested too deeply") from None
    if not isinstance(content, dict) or content.pop("self", None) != _digest(content):
        raise ValueError(f"the checksum of {META} differs")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _describe(folder: Path, step: int, meta: dict[str, Any]) -> None:
    content: dict[str, Any] = {"step": step, "sha256": _digests(folder), "meta": meta}
    (folder / META).write_text(json.dumps(content | {"self": _digest(content)}), "utf-8")


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: digest_file(path) for path in sorted(folder.glob("*.safetensors"))}


def tensor_names(folder: Path) -> set[str]:
    """Of all files of a checkpoint."""
    from safetensors import safe_open

    found: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= set(file.keys())
    return found


def read_tensors(folder: Path, tensors: dict[str, Tensor], together: bool) -> None:
    """Fill tensors, which may lie in parts, by name from a checkpoint's files, however many processes wrote them.

    together: whether several processes read it at once. Raises ValueError for names, shapes or types that it does not
    have.
    """
    from safetensors import SafetensorError, safe_open

    if together or not (folder / TENSORS).exists():
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
        from torch.distributed.checkpoint.state_dict_loader import load

        try:
            load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not together)
        except CheckpointException as error:
            raise ValueError(" ".join(str(error).split())[:500]) from None
        return
    try:
        with safe_open(folder / TENSORS, framework="pt") as file:
            missing = sorted(set(tensors) - set(file.keys()))
            if missing:
                raise ValueError(f"{', '.join(missing[:3])} {'are' if len(missing) > 1 else 'is'} missing")
            for name, tensor in tensors.items():
                shape = list(file.get_slice(name).get_shape())
                if shape != list(tensor.shape):
                    raise ValueError(f"{name} is {shape}, not {list(tensor.shape)}")
                found = file.get_tensor(name)
                if found.dtype != tensor.dtype:
                    raise ValueError(f"{name} is {found.dtype}, not {tensor.dtype}")
                if found.is_floating_point() and not bool(found.isfinite().all()):
                    raise ValueError(f"{name} holds values that are not finite numbers")
                tensor.copy_(found)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
