"""Chat logs and lists of texts in JSON, as programs export them: a message a line or paragraph, after who wrote it.

Known are lists of messages with `role` and `content`, alone or under `messages` or `conversations`; ChatGPT's
conversations.json, the branch of each that was seen last; Telegram's result.json, and what has `messages` like it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from reformer_cli.data.formats.base import WHICH, Document, NoText, field_text, whole
from reformer_cli.data.formats.jsonl import read_jsonl
from reformer_cli.data.text_decoding import OpenFile, UnreadableText

LARGEST = 2**28  # bytes; what Python makes of them takes up to ten times as much
WHO = ("role", "from", "sender", "sender_name", "author", "user", "name")  # the first three alone make a list a talk
WHAT = ("content", "text", "value", "message", "body", "parts")
LISTS = ("messages", "conversations", "chats", "list")
UNSEEN = {"system", "tool"}  # roles whose messages nobody wrote to be read
DEEPEST = 5  # lists in objects in lists


def read_json(file: OpenFile) -> Iterator[Document]:
    """A conversation each; of a list of objects with the member `field`, each of these; of an object a line, .jsonl."""
    data = whole(file, LARGEST)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        if "Extra data" not in str(error):
            raise UnreadableText(
                f"{file.name} is not JSON ({str(error)[:200]})", "mend it, or export it again"
            ) from None
        yield from read_jsonl(replace(file, stream=io.BytesIO(data)))
        return
    number = 0
    for number, text in enumerate(_texts(found, file, False, DEEPEST), 1):
        name = f"{file.name}:{number}"
        yield Document(name, map(field_text, (text,), (name,), (file,)))
    if not number:
        what = f"{file.name} holds no conversation and no list of objects with a member {file.options.text_field!r}"
        raise NoText(what, WHICH, "JSON that holds no texts")


def _texts(found: Any, file: OpenFile, named: bool, depth: int) -> Iterator[Any]:
    """named: the list stands under a name of LISTS."""
    if depth and isinstance(found, list):
        who = WHO if named else WHO[:3]
        talk = [message for message in found if isinstance(message, dict) and _said(message) is not None]
        if any(message.get(name) for message in talk for name in who):
            yield _written(talk)
            return
        for entry in found:
            yield from _texts(entry, file, named, depth - 1)
    elif depth and isinstance(found, dict):
        if isinstance(mapping := found.get("mapping"), dict):
            yield _written(_branch(mapping, found.get("current_node")))
        elif file.options.text_field in found:
            yield found[file.options.text_field]
        else:
            for name in LISTS:
                if isinstance(found.get(name), (list, dict)):
                    yield from _texts(found[name], file, True, depth - 1)


def _branch(mapping: dict[str, Any], node: Any) -> list[Any]:
    """The messages from the first to a node of ChatGPT's tree; of all nodes, where it is not there."""
    nodes, passed = [], set()
    while isinstance(node, str) and node not in passed and isinstance(entry := mapping.get(node), dict):
        nodes.append(entry)
        passed.add(node)
        node = entry.get("parent")
    found = nodes[::-1] or [entry for entry in mapping.values() if isinstance(entry, dict)]
    return [message for entry in found if isinstance(message := entry.get("message"), dict)]


def _written(talk: list[Any]) -> str:
    """The talk as text: paragraphs where roles speak, lines where people chat."""
    end = "\n\n" if any("role" in m or isinstance(m.get("author"), dict) for m in talk) else "\n"
    said = [(_name(message), (_said(message) or "").strip()) for message in talk]
    return "".join(f"{who}: {text}{end}" if who else text + end for who, text in said if text and who not in UNSEEN)


def _name(message: dict[str, Any]) -> str:
    found = next((message[name] for name in WHO if message.get(name)), "")
    if isinstance(found, dict):
        found = next((found[name] for name in ("role", "name", "username") if found.get(name)), "")
    return found if isinstance(found, str) else ""


def _said(message: dict[str, Any]) -> str | None:
    """The words of a message; None where it has no place for them."""
    found = next((message[name] for name in WHAT if name in message), None)
    return _words(found, DEEPEST)


def _words(found: Any, depth: int) -> str | None:
    if isinstance(found, str):
        return found
    if isinstance(found, list) and depth:
        return "".join(_words(part, depth - 1) or "" for part in found)
    if isinstance(found, dict) and depth:
        return _words(next((found[name] for name in WHAT if name in found), None), depth - 1)
    return None
