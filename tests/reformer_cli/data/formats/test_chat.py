"""Chat logs in JSON, as programs export them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.formats import CHAT, WORDS, chatgpt
from builders.reading import faults, read

SAID = WORDS.strip()


def of(tmp_path: Path, data: Any) -> list[str]:
    (tmp_path / "c.json").write_text(json.dumps(data))
    return [*read(tmp_path / "c.json").values()]


@pytest.mark.parametrize("form", [CHAT, {"messages": CHAT}, [{"messages": CHAT}], {"conversations": [CHAT]}])
def test_roles(tmp_path: Path, form: Any) -> None:
    assert of(tmp_path, form) == [f"user: {SAID}\n\nassistant: Was it?\n\n"]


def test_chatgpt(tmp_path: Path) -> None:
    """The branch that was seen last, without what the system was told; without its end, all."""
    (talk,) = data = chatgpt([("system", "You are"), ("user", "Hi"), ("assistant", "Ho")])
    assert of(tmp_path, data) == ["user: Hi\n\nassistant: Ho\n\n"]
    talk["current_node"] = "lost"  # type: ignore[index]
    assert "not this" in of(tmp_path, data)[0]
    talk["current_node"] = "1"  # type: ignore[index]
    talk["mapping"]["1"]["parent"] = "1"  # type: ignore[index]
    talk["mapping"]["1"]["message"]["author"] = {"role": "user"}  # type: ignore[index]
    assert of(tmp_path, data) == ["user: You are\n\n"]


def test_messengers(tmp_path: Path) -> None:
    talk = {"messages": [
        {"type": "service", "actor": "Ann"}, {"from": "Ann", "text": ["See ", {"type": "link", "text": "this"}]},
        {"from": None, "text": "who?"}, {"sender": "Bo", "message": "Yes"}, {"author": {"name": "Cy"}, "content": "No"},
    ]}  # fmt: skip
    assert "Ann: See this" in of(tmp_path, talk)[0]
    assert len(of(tmp_path, {"chats": {"list": [talk, {"name": "b", "messages": [{"from": "B", "text": "x"}]}]}})) == 2
    assert of(tmp_path, {"messages": [{"from": "A", "text": "x"}, {"from": "B", "text": "y"}]}) == ["A: x\nB: y\n"]


def test_lists_of_texts(tmp_path: Path) -> None:
    assert of(tmp_path, [{"text": "one", "author": "A"}, {"text": "two"}]) == ["one", "two"]
    (tmp_path / "c.json").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert [*read(tmp_path / "c.json").values()] == ["one", "two"]


def test_other_json(tmp_path: Path) -> None:
    """Named outright it is a fault; the package.json beside texts is left out."""
    for data in ({"name": "a package"}, [1, 2], "words", [[[[[[[[CHAT]]]]]]]]):
        with pytest.raises(Exception, match="holds no conversation and no list of objects with a member 'text'"):
            of(tmp_path, data)
    (tmp_path / "a.txt").write_text("Text.")
    assert [*read(tmp_path).values()] == ["Text."]
    for broken in ("{", "[" * 100_000, '[{"text": 5}]', "\xff"):
        (tmp_path / "c.json").write_text(broken, "latin-1")
        assert len(faults(tmp_path / "c.json")) == 1
    (tmp_path / "c.json").write_text('[{"text": "\\ud800"}]')
    assert [*read(tmp_path / "c.json").values()] == ["\ufffd"]
