"""The model card, README.md of an export: what it was trained on, its figures, its licence, how to load it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from reformer import ReformerConfig

from reformer_cli.config.schema import RunConfig
from reformer_cli.runs.origin import Origin
from reformer_cli.runs.run import METRICS, Run
from reformer_cli.tokenizers.base import Tokenizer

UNKNOWN = "unknown"
SIGN = "A Reformer language model, exported by `reformer export"
LOAD = {
    "transformers": "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    'model = AutoModelForCausalLM.from_pretrained("FOLDER")\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")',
    "safetensors": 'from reformer import ReformerLM\n\nmodel = ReformerLM.from_pretrained("FOLDER")',
    "state-dict": "import torch\nimport yaml\nfrom reformer import ReformerConfig, ReformerLM\n\n"
    'config = ReformerConfig(**yaml.safe_load(open("FOLDER/config.yaml"))["model"])\nmodel = ReformerLM(config)\n'
    'model.load_state_dict(torch.load("FOLDER/state_dict.pt", weights_only=True))\nmodel.eval()',
}
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+ -]{0,63}")


@dataclass(frozen=True)
class Licences:
    """license: of the weights, an SPDX id or the hub's name of one; data: of the text they were trained on."""

    license: str = UNKNOWN
    data: str = UNKNOWN

    def faults(self) -> list[str]:
        """Names that could not stand in a card."""
        named = (("--license", self.license), ("--data-license", self.data))
        return [f"{option} {name!r} is no name of a licence" for option, name in named if not _LICENCE.fullmatch(name)]


def model_card(run: Run, tokenizer: Tokenizer, parameters: int, form: str, licences: Licences, notes: list[str]) -> str:
    """Markdown with the hub's front matter. form: what the folder is: a key of LOAD; notes: of the export."""
    c, trained = run.config, figures(run.path)
    front: dict[str, Any] = {"license": licences.license.lower(), "pipeline_tag": "text-generation"}
    front |= {"library_name": "transformers" if form == "transformers" else "reformer"}
    front["tags"] = ["reformer", "causal-lm", "long-context"]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {run.path.resolve().name}",
        f"{SIGN} --format {form}`.",
        f"## Training data\n\n{_data(c, Origin.read(run.path))}\n\nLicence of the data: {licences.data}.",
        f"## Figures\n\n{_table(trained) if trained else 'No figures were kept with the run.'}",
        f"## Model\n\n{_table(_sizes(c, tokenizer, parameters))}",
        *([f"## Notes\n\n{chr(10).join('- ' + note for note in notes)}"] if notes else []),
        f"## Use\n\n```python\n{LOAD[form]}\n```",
        f"## Licence\n\nOf the weights: {licences.license}. Of the training data: {licences.data}.",
    ]
    return "\n\n".join(parts) + "\n"


def is_exports(card: Path) -> bool:
    """Whether a file is a card that an export wrote."""
    try:
        with open(card, encoding="utf-8") as file:
            return SIGN in file.read(4096)
    except (OSError, UnicodeDecodeError):
        return False


def figures(run: Path) -> dict[str, str]:
    """What the run's metrics say of its best weights, for people."""
    best: dict[str, Any] | None = None
    steps, loss = 0, None
    try:
        lines = (run / METRICS).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    for line in lines:
        try:
            record = json.loads(line)
            steps = max(steps, int(record.get("step", 0)))
        except (ValueError, AttributeError, TypeError):
            continue  # a line that a full disk cut short
        loss = record.get("loss", loss)
        found = record.get("val_bits_per_byte")
        if isinstance(found, (int, float)) and (best is None or found < best["val_bits_per_byte"]):
            best = record
    rows = {"training steps": f"{steps:,}"} if steps else {}
    if best is not None:
        rows["held-out bits/byte"] = f"{best['val_bits_per_byte']:.4f} (step {best.get('step', '?')})"
        rows["held-out tokens scored"] = f"{best.get('val_tokens', 0):,}"
    if isinstance(loss, (int, float)):
        rows["last training loss"] = f"{loss:.4f} nats/token"
    return rows


def _data(config: RunConfig, origin: Origin | None) -> str:
    """Names without their folders: where a text lay on someone's disk is nobody's business."""
    names = [spec if spec == "-" or ":" in spec else Path(spec).name for spec in config.data.corpus]
    said = [f"{', '.join(names)}, SHA-256 of the text {config.corpus_digest or UNKNOWN}."] if names else []
    if names:
        said.append(f"{config.data.val_fraction:.0%} of each document was held out.")
    if origin is not None:
        kept = origin.name.rstrip("/").split("/")[-1] if Path(origin.name).is_absolute() else origin.name
        began = "imported from transformers' format" if origin.kind == "transformers" else "the weights of another run"
        said.append(f"{'Training began with' if names else 'Not trained here:'} {kept}, {began}.")
    return " ".join(said) or "Not known to this program."


def _sizes(config: RunConfig, tokenizer: Tokenizer, parameters: int) -> dict[str, str]:
    m = config.model
    lossless = "" if tokenizer.lossless else ", not lossless"
    return {
        "parameters": f"{parameters:,}",
        "layers": f"{_layers(m)}, d_model {m.d_model}, {m.n_heads} heads x {m.d_head}",
        "attention": f"{m.n_hashes} hash rounds, buckets {m.hash_rounds}",
        "context in training": f"{config.data.context:,} tokens",
        "tokenizer": f"{tokenizer.kind}, {tokenizer.vocab_size:,} tokens{lossless}",
    }


def _layers(m: ReformerConfig) -> str:
    among = f"; {len(m.group_layers)} of them on groups of {m.shorten_factor} tokens" if m.shorten_factor > 1 else ""
    return f"{m.n_layers} ({', '.join(m.attn_layers)}{among})"


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
