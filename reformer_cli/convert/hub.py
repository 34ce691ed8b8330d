"""Models by their id on the Hugging Face hub, through its own library, which is an extra."""

from __future__ import annotations

import re
from pathlib import Path

from reformer_cli.utils.errors import UserError

# What a model is read from; no code that lies beside it is fetched.
WANTED = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
]
WANTED += ["spiece.model", "tokenizer.model", "tokenizer.json"]
ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder of a model in the hub's cache, downloaded where it is not there. Raises UserError."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"{name} is no folder here, and to fetch it from the hub a library is missing",
            "pip install 'reformer-cli[hub]'",
        ) from None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except Exception as error:  # its errors come from three libraries
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{name} could not be fetched from the hub ({what})",
            "check the id and the network, or download the folder and name that",
        ) from None
