"""Where a run's weights came from, kept beside them: origin.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from reformer_cli.utils.files import write_file

FILE = "origin.json"


@dataclass(frozen=True)
class Origin:
    """kind: `transformers` for an imported folder, `run` for another run; name: folder, hub id or run."""

    kind: str
    name: str

    def write(self, folder: Path) -> None:
        write_file(folder / FILE, json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """What a run says; None where it says nothing, or nothing readable."""
        try:
            content = json.loads((folder / FILE).read_text("utf-8"))
            return cls(str(content["kind"])[:200], str(content["name"])[:200])
        except (OSError, ValueError, KeyError, TypeError):
            return None
