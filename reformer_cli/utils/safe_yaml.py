"""YAML from anyone: plain values only, of limited size, nothing that is repeated by reference or built by a tag."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from reformer_cli.utils.errors import UserError

LARGEST = 2**20  # bytes of a config file


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # A thousand bytes of aliases of aliases stand for a billion values.
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"alias in line {self.peek_event().start_mark.line + 1}; write the value out")
        return super().compose_node(parent, index)


def parse_value(text: str) -> Any:
    """Any YAML. Raises ValueError that says in one line what is wrong."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # a date that does not exist, a number of thousands of digits
        raise ValueError(" ".join(str(error).split())) from None


def parse(text: str, where: str, sections: Iterable[str]) -> dict[str, Any]:
    """A mapping. Raises UserError for anything else."""
    try:
        content = parse_value(text)
    except ValueError as error:
        raise UserError(f"{where} is not YAML of plain values: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where} is not a mapping", f"expected sections {', '.join(sections)}")
    return content


def read_limited(path: Path, hint: str) -> str:
    """The text of a config file. Raises UserError if it is too long for one, or no text."""
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UserError(f"{path} has more than {LARGEST:,} bytes, which a config has at most", hint)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start})", hint) from None
