"""A text that can be gone on with another day: what `reformer generate --session FILE` keeps, in safetensors.

The decoding state, the tokens, what was shown of them, and the random state, with a fingerprint of the model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from reformer import ReformerLM
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch.nn.utils.rnn import pad_sequence

from reformer_cli.sampling.generate import Sample
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import write_file

FORMAT = "reformer session 1"


def fingerprint(model: ReformerLM) -> str:
    """SHA-256 of what decides a model's outputs: its configuration and every weight."""
    found = hashlib.sha256(json.dumps(dataclasses.asdict(model.config), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def save(path: Path, texts: Sampler, made: list[Sample], output: Path | None) -> None:
    """Keep everything needed to go on, whole or not at all: an older file stays until this one is complete. output:
    the file that the text is written to, if any."""
    state = texts.state or texts.model.new_state(len(texts.histories))
    tensors = {f"state.{name}": t.contiguous() for name, t in state.tensors().items()}
    rows = [torch.tensor(h.tokens, dtype=torch.int32) for h in texts.histories]
    tensors["tokens"] = pad_sequence(rows, batch_first=True)
    tensors["lengths"] = torch.tensor([len(row) for row in rows])
    tensors["pending"] = texts.pending.cpu().contiguous()
    tensors["generators"] = torch.stack([generator.get_state() for generator in texts.generators])
    tensors["mirostat"] = torch.tensor([h.mirostat or torch.nan for h in texts.histories], dtype=torch.float64)
    tensors["made"] = torch.tensor([len(m.tokens) for m in made])
    tensors["start"] = torch.tensor([m.start for m in made])
    tensors["shown"] = torch.tensor([m.stream.shown for m in made])
    tensors["ended"] = torch.tensor([m.finish_reason == "end" for m in made])
    about = {"format": FORMAT, "model": fingerprint(texts.model), "device": texts.pending.device.type}
    about["after"] = json.dumps([history.after for history in texts.histories])
    if output is not None:
        about["output"] = str(output.resolve())
    write_file(path, to_bytes(tensors, about))


def load(path: Path, texts: Sampler, made: list[Sample]) -> Path | None:
    """Stand where `save` was called, and say to which file the text was written: no other one may be added to. Raises
    UserError for what cannot be gone on with."""
    about: dict[str, Any] = {}
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except Exception as error:  # the library raises several kinds
        raise UserError(f"{path} is not a session, or damaged ({_line(error)})", "choose another --session") from None
    if about.get("format") != FORMAT:
        raise UserError(f"{path} is not a session of this program", "choose another --session")
    if about.get("model") != fingerprint(texts.model):
        raise UserError(
            f"{path} is another model's session",
            "give the --run and --far-buckets that it was made with, or another --session",
        )
    try:
        _stand(tensors, texts, made, about)
    except UserError:
        raise
    except (KeyError, ValueError, RuntimeError, TypeError, IndexError) as error:
        raise UserError(f"{path} is damaged ({_line(error)})", "choose another --session") from None
    return Path(about["output"]) if "output" in about else None


def _stand(tensors: dict[str, Any], texts: Sampler, made: list[Sample], about: dict[str, Any]) -> None:
    tokens, pending, size = tensors["tokens"], tensors["pending"], texts.model.config.vocab_size
    samples = len(texts.histories)
    if tokens.shape[0] != samples:
        raise UserError(
            f"the session has {tokens.shape[0]} texts, --num-samples is {samples}", "give the same --num-samples"
        )
    if tokens.dtype != torch.int32 or pending.dtype != torch.int64 or list(pending.shape) != [samples, 1]:
        raise ValueError("tokens of another kind")
    for ids in (tokens, pending):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise ValueError(f"tokens beyond vocab_size {size}")
    state = {name.removeprefix("state."): t for name, t in tensors.items() if name.startswith("state.")}
    texts.state = texts.model.load_state(state)
    lengths = tensors["lengths"].tolist()
    if texts.state.batch != samples or texts.state.seen.tolist() != [n - 1 for n in lengths]:
        raise ValueError("its state and its tokens are not of one text")
    texts.pending = pending.to(texts.pending.device)
    if about.get("device") == texts.pending.device.type:  # else drawn anew from the seed
        for generator, kept in zip(texts.generators, tensors["generators"], strict=True):
            generator.set_state(kept.clone())  # of a part of a tensor, torch reads the whole
    for history, surprise in zip(texts.histories, tensors["mirostat"].tolist(), strict=True):
        history.mirostat = surprise if math.isfinite(surprise) else None
    numbers = [tensors[name].tolist() for name in ("start", "made", "shown", "ended")]
    whole = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
    rows = zip(whole, texts.histories, made, json.loads(about["after"]), *numbers, strict=True)
    for row, history, one, after, start, n, shown, ended in rows:
        if not 0 <= start <= start + n <= len(row) or shown < 0:
            raise ValueError(f"{n} tokens made of {len(row)} after {start}, {shown} characters shown")
        history.extend(row)
        history.after = [int(token) for token in after]
        if not all(0 <= token < size for token in history.after):
            raise ValueError(f"tokens beyond vocab_size {size}")
        one.stand(row[:start], row[start : start + n], shown, ended)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
