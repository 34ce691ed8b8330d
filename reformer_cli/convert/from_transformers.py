"""A folder of transformers' as a run of ours: config, weights and tokenizer, all checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from reformer import ReformerConfig, ReformerLM
from reformer.rehash import draw_rotations
from torch import Tensor

from reformer_cli.config.schema import DataConfig, RunConfig
from reformer_cli.convert.config_from_transformers import Mapped, map_config
from reformer_cli.convert.tensor_names import HEAD_BIASES, MASKS, Row, rows
from reformer_cli.convert.weights_files import CONFIG, Weights, open_weights, read_json
from reformer_cli.runs.origin import Origin
from reformer_cli.runs.run import Run
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.tokenizers.load import deserialise
from reformer_cli.utils.errors import ConfigError, UserError
from reformer_cli.utils.files import write_folder
from reformer_cli.utils.format import as_size

# Ours, where the folder is an export of ours, before theirs.
TOKENIZERS = ("reformer_tokenizer.model", "spiece.model", "tokenizer.model")
CODINGS = ("bytes", "bytes+2")


@dataclass(frozen=True)
class Incoming:
    """A model that has been read, ready to become a run. notes: what the user should know, a sentence each."""

    config: ReformerConfig
    context: int
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer
    notes: list[str]

    @property
    def parameters(self) -> int:
        return sum(t.numel() for name, t in self.tensors.items() if not name.endswith("rotations"))


def read_folder(folder: Path, seed: int, free: int, tokenizer: str | None = None) -> Incoming:
    """Everything of a folder. seed: draws rotations where it sets none; free: bytes of memory there are; tokenizer: a
    coding or a file, where the folder's own is not to be used. Raises UserError, all faults of a kind at once."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder" if folder.exists() else f"no folder {folder}")
    mapped = map_config(read_json(folder / CONFIG), str(folder / CONFIG), seed)
    notes = list(mapped.notes)
    found = find_tokenizer(folder, mapped, tokenizer, notes)
    tensors = convert(mapped, open_weights(folder), free, notes)
    return Incoming(mapped.model, mapped.context, tensors, found, notes)


def write_run(path: Path, incoming: Incoming, origin: Origin) -> Run:
    """The run directory, complete or not at all."""
    config = RunConfig(model=incoming.config, data=DataConfig(context=max(2, incoming.context)))

    def fill(aside: Path) -> None:
        run = Run.create(aside, config, incoming.tokenizer)
        run.save_weights(incoming.tensors)
        origin.write(aside)

    write_folder(path, fill)
    return Run.open(path)


def convert(mapped: Mapped, weights: Weights, free: int, notes: list[str]) -> dict[str, Tensor]:
    """Our tensors of a model, in float32. Raises ConfigError that lists every tensor missing, unknown or misshapen."""
    config, shapes = mapped.model, weights.shapes()
    table = list(rows(config))
    wanted = {name: shape for row in table for name, shape in row.theirs}
    faults = [f"{name} {list(shape)} is missing" for name, shape in wanted.items() if name not in shapes]
    faults += [
        f"{name} is {list(shapes[name])}, the config makes it {list(shape)}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    extra = {name: shape for name, shape in shapes.items() if name not in wanted}
    faults += [
        f"{name} {list(shape)} is unknown" for name, shape in extra.items() if not _is_known(name, shape, config)
    ]
    if faults:
        raise ConfigError(f"{weights.where} does not fit its config", faults)
    if (needed := 8 * sum(map(_numbers, wanted.values()))) > free:
        raise UserError(f"reading {weights.where} needs {as_size(needed)} of memory, {as_size(free)} are free")
    tensors = {row.ours: _joined(row, weights) for row in table}
    tensors |= _rotations(config, weights)
    if (bias := _bias(mapped, weights, set(extra), notes)) is not None:
        tensors["head.bias"] = bias
    if bad := sorted(name for name, t in tensors.items() if not bool(t.isfinite().all())):
        raise UserError(f"{weights.where} holds values that are not finite numbers: {', '.join(bad)}")
    return tensors


def _is_known(name: str, shape: tuple[int, ...], config: ReformerConfig) -> bool:
    """Tensors that some version of transformers writes beside those that make a model."""
    if name in HEAD_BIASES:
        return shape == (config.vocab_size,)
    return name.startswith("reformer.encoder.layers.") and name.endswith(MASKS) and shape in ((), (1,))


def _numbers(shape: tuple[int, ...]) -> int:
    found = 1
    for n in shape:
        found *= n
    return found


def _joined(row: Row, weights: Weights) -> Tensor:
    parts = [_read(weights, name).reshape(-1, *shape[-1:]) for name, shape in row.theirs]
    whole = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
    return whole if len(row.theirs[0][1]) > 1 else whole.flatten()


def _read(weights: Weights, name: str) -> Tensor:
    found = weights.get(name)
    if not found.is_floating_point():
        raise UserError(f"{weights.where}: {name} is {found.dtype}, not floating point numbers")
    return found.detach().float()


def _rotations(config: ReformerConfig, weights: Weights) -> dict[str, Tensor]:
    """As transformers draws them, in the type of the layer's vectors, at every call."""
    with torch.device("meta"):
        shapes = {name: b.shape for name, b in ReformerLM(config).named_buffers() if name.endswith("rotations")}
    found = {}
    for name, shape in shapes.items():
        layer = name.split(".")[1]
        like = weights.get(f"reformer.encoder.layers.{layer}.attention.self_attention.query_key.weight")
        found[name] = draw_rotations(shape, config.seed, like.dtype).float()
    return found


def _bias(mapped: Mapped, weights: Weights, extra: set[str], notes: list[str]) -> Tensor | None:
    """The head's bias where there is one and the version that wrote the folder adds it."""
    # The public checkpoints hold the trained one as that of the decoder; later versions tie the two.
    name = next((n for n in reversed(HEAD_BIASES) if n in extra), None)
    if name is None or not bool((bias := _read(weights, name)).any()):
        return None
    if mapped.biased:
        notes.append(f"{name} is added to the logits, as by the version that wrote it; transformers 5 leaves it out")
        return bias.clone()
    notes.append(f"{name} is not zero and not used, as in transformers 5")
    return None


def find_tokenizer(folder: Path, mapped: Mapped, given: str | None, notes: list[str]) -> Tokenizer:
    """The tokenizer that goes with a folder. Raises UserError where there is none, or not of the model's size."""
    size = mapped.model.vocab_size
    if given in CODINGS:
        found = deserialise(f'{{"kind": "{given}"}}'.encode(), given)
    elif given is not None:
        found = _read_file(Path(given), mapped, notes)
    elif path := next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None):
        found = _read_file(path, mapped, notes)
    elif size == 258:
        found = deserialise(b'{"kind": "bytes+2"}', "bytes+2")
        notes.append("no tokenizer, and 258 tokens: bytes + 2, as in the enwik8 model")
    else:
        other = " (tokenizer.json cannot be read)" if (folder / "tokenizer.json").is_file() else ""
        raise UserError(
            f"{folder} has no spiece.model{other}", f"name a tokenizer: --tokenizer FILE or {' or '.join(CODINGS)}"
        )
    if found.vocab_size != size:
        raise UserError(
            f"the tokenizer has {found.vocab_size:,} tokens, the model {size:,}", "they do not belong together"
        )
    return found


def _read_file(path: Path, mapped: Mapped, notes: list[str]) -> Tokenizer:
    """A tokenizer of ours, or a sentencepiece model."""
    from reformer_cli.tokenizers.load import open_tokenizer
    from reformer_cli.tokenizers.sentencepiece import SentencePieceTokenizer, losses

    found = open_tokenizer(path)
    if not isinstance(found, SentencePieceTokenizer):
        return found
    size = mapped.model.vocab_size
    wanted = mapped.end if mapped.end is not None and found.separates(mapped.end) else None
    if wanted is None and mapped.end is not None:
        notes.append(f"eos_token_id {mapped.end} is an ordinary token of {path.name}; {found.end} separates documents")
    if size >= len(found.pieces):  # fewer are refused where sizes are compared
        found = SentencePieceTokenizer(found.model, str(path), wanted, size)
    lost = losses(found, "One line,  two spaces,\na tab\tand «é中»")
    if lost:
        notes.append(
            f"{path.name} loses what it does not know (of a test text {lost}): reformer tokenizer inspect TEXT"
        )
    return found
