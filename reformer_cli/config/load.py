"""From recipes, YAML files and `--set` to a checked configuration, and a run's config.yaml there and back. No torch."""

from __future__ import annotations

import dataclasses
import difflib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from reformer_cli.config.checks import complete_image_settings, conflicts
from reformer_cli.config.schema import SECTIONS, RunConfig, Settings
from reformer_cli.utils.errors import ConfigError, UserError
from reformer_cli.utils.safe_yaml import parse, parse_value, read_limited


def describe(section: str) -> Iterator[tuple[str, Any, str]]:
    """(name, default, description) of every setting of a section."""
    for name, info in vars(SECTIONS[section])["__pydantic_fields__"].items():
        if (section, name) != ("model", "vocab_size"):
            yield name, info.get_default(call_default_factory=True), info.description or ""


def config_names() -> dict[str, Path]:
    """The recipes that come with the program, by name."""
    for folder in (Path(__file__).parents[2] / "configs", Path(__file__).parents[1] / "configs"):
        if found := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in found}
    return {}


def load_config(source: str | None, overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None) -> Settings:
    """base, overlaid by a recipe's name or a YAML file, overlaid by `--set key=value`s; checked as a whole.

    Raises ConfigError that lists every unknown key, wrong type and impossible combination, UserError for a file that
    cannot be read.
    """
    faults: list[str] = []
    merged: Settings = {name: dict((base or {}).get(name, {})) for name in SECTIONS}
    if source is not None:
        _overlay(merged, _read(source), faults)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            faults.append(f"--set {text}: expected key=value, such as --set d_model=256")
            continue
        try:
            parsed = parse_value(value)
        except ValueError as error:
            faults.append(f"--set {reprlib.repr(text)}: the value is not YAML ({error})")
            continue
        if (place := _place(key.strip(), faults)) is not None:
            merged[place[0]][place[1]] = parsed
    _check(merged, faults, source)
    return merged


def resolve(settings: Mapping[str, Mapping[str, Any]], vocab_size: int, corpus_digest: str = "") -> RunConfig:
    """The complete configuration. Raises ConfigError with every fault."""
    faults: list[str] = []
    parts = _build(settings, vocab_size, faults)
    if faults:
        raise ConfigError("the configuration cannot be used", faults)
    return RunConfig(**parts, corpus_digest=corpus_digest)


def to_yaml(config: RunConfig) -> str:
    """As a run's config.yaml: every setting, defaults included."""
    sections = {name: _plain(dataclasses.asdict(getattr(config, name))) for name in SECTIONS}
    return yaml.safe_dump({"corpus_digest": config.corpus_digest} | sections, sort_keys=False, allow_unicode=True)


def from_yaml(text: str, where: str) -> RunConfig:
    """Read what `to_yaml` wrote; the file is untrusted. Raises UserError (ConfigError for its settings)."""
    content = parse(text, where, SECTIONS)
    digest = content.pop("corpus_digest", "")  # an exported model has none
    if not isinstance(digest, str):
        raise UserError(f"{where}: corpus_digest is no text", "it is not the config.yaml of a run")
    faults: list[str] = []
    merged: Settings = {name: {} for name in SECTIONS}
    vocab_size = content.get("model", {}).pop("vocab_size", None) if isinstance(content.get("model"), dict) else None
    _overlay(merged, content, faults)
    parts = _build(merged, vocab_size, faults)
    if faults:
        raise ConfigError(where, faults)
    return RunConfig(**parts, corpus_digest=digest)


def _read(source: str) -> dict[str, Any]:
    names = config_names()
    path = names.get(source, Path(source))
    if not path.is_file():
        raise UserError(f"no config {source!r}", f"give a YAML file or one of: {', '.join(names)}")
    return parse(read_limited(path, "a config is a YAML file"), str(path), SECTIONS)


def _overlay(merged: Settings, content: Mapping[Any, Any], faults: list[str]) -> None:
    """Put a file's sections over `merged`; unknown ones are left out and named."""
    for section, values in content.items():
        if section not in SECTIONS:
            leaf = _leaves().get(section, [])
            hint = f"; it belongs under `{leaf[0]}:`" if leaf else _near(str(section), SECTIONS)
            faults.append(f"unknown section {reprlib.repr(section)}{hint}")
        elif values is not None and not isinstance(values, dict):
            faults.append(f"{section}: expected a mapping, not {reprlib.repr(values)}")
        else:
            for key, value in (values or {}).items():
                if (place := _place(f"{section}.{key}", faults)) is not None:
                    merged[place[0]][place[1]] = value


def _leaves() -> dict[str, list[str]]:
    """Bare name -> the sections that have it."""
    found: dict[str, list[str]] = {}
    for section in SECTIONS:
        for name, _, _ in describe(section):
            found.setdefault(name, []).append(section)
    return found


def _place(key: str, faults: list[str]) -> tuple[str, str] | None:
    """`model.d_model`, or `d_model` alone where only one section has it -> (section, name)."""
    leaves = _leaves()
    section, dot, name = key.partition(".")
    if key == "model.vocab_size":
        faults.append("model.vocab_size follows from the tokenizer; set data.vocab_size")
    elif dot and section in SECTIONS:
        if section in leaves.get(name, []):
            return section, name
        elsewhere = f"; it belongs under `{leaves[name][0]}:`" if name in leaves else ""
        known = [n for n, sections in leaves.items() if section in sections]
        faults.append(f"unknown key {key}{elsewhere or _near(name, known, section + '.')}")
    elif not dot and len(leaves.get(key, [])) == 1:
        return leaves[key][0], key
    elif not dot and key in leaves:
        faults.append(f"{key} could be {' or '.join(f'{s}.{key}' for s in leaves[key])}; write the one you mean")
    else:
        faults.append(f"unknown key {key}{_near(name if dot else key, leaves)}")
    return None


def _near(name: str, known: Any, prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {prefix}{close[0]}?" if close else "; `reformer config show` prints them all"


def _check(merged: Settings, faults: list[str], source: str | None) -> None:
    _build(merged, 320, faults)  # any size will do: it is the tokenizer's to say
    if faults:
        raise ConfigError(f"config {source}" if source else "the settings", faults)


def _build(settings: Mapping[str, Mapping[str, Any]], vocab_size: Any, faults: list[str]) -> dict[str, Any]:
    parts = {}
    for name, kind in SECTIONS.items():
        values = dict(settings.get(name, {}))
        if name == "model":
            values["vocab_size"] = vocab_size
        if name == "data":
            faults += complete_image_settings(values)
        try:
            parts[name] = kind(**values)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                place = ".".join([name, *(str(part) for part in item["loc"][:1])])
                if item["type"] == "value_error":
                    faults += [f"{name}: {fault}" for fault in str(item["ctx"]["error"]).split("; ")]
                else:
                    what = item["msg"].replace("Input should", "should")
                    faults.append(f"{place}: {what}, not {reprlib.repr(item['input'])}")
        except TypeError as error:
            faults.append(f"{name}: {error}")
    faults += conflicts(parts)
    return parts


def _plain(value: Any) -> Any:
    """With lists for tuples, which YAML has no word for."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def as_yaml(value: Any) -> str:
    """As `--set key=value` reads it back."""
    text = json.dumps(list(value) if isinstance(value, (list, tuple)) else value, ensure_ascii=False)
    # In YAML, unlike JSON, two escapes never make one character; and names of files can hold halves of characters.
    return "".join(c if " " <= c <= "~" else f"\\U{ord(c):08x}" for c in text)
