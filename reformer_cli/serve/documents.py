"""Long texts that a client edits piece by piece: only the change is sent, and only what changed is tokenised again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from reformer_cli.sampling.prompt import prepared
from reformer_cli.serve.library import Loaded
from reformer_cli.serve.requests import MOST_CHARACTERS, BadRequest, Edit
from reformer_cli.tokenizers.base import CUTS, Prompt

MOST = 32  # documents that are kept
PART = 4000  # characters of a part, at least


@dataclass
class Document:
    """text: all of it; parts: of each run's tokenizer, tokens of its beginning part by part."""

    text: str = ""
    parts: dict[str, OrderedDict[str, list[int]]] = field(default_factory=dict)


class Documents:
    """By id. The least recently used goes: its client sends it whole again."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Document] = OrderedDict()

    def edit(self, key: str, edit: Edit) -> int:
        """Its new length in characters. Raises BadRequest where there is no such place."""
        document = self._known.setdefault(key, Document())
        self._known.move_to_end(key)
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        length = len(document.text)
        stop = edit.to if edit.to is not None else length
        if not edit.start <= stop <= length:
            raise BadRequest(f"{edit.start} to {stop} is not in a document of {length} characters", "from", 409)
        document.text = document.text[: edit.start] + edit.text + document.text[stop:]
        if len(document.text) > MOST_CHARACTERS:
            document.text = ""
            raise BadRequest(f"a document has at most {MOST_CHARACTERS:,} characters", "text", 413)
        return len(document.text)

    def forget(self, key: str) -> None:
        """It is closed."""
        self._known.pop(key, None)

    def prompt(self, key: str, at: int | None) -> Callable[[Loaded, bool], Prompt]:
        """Its text up to a place, as a prompt. Raises BadRequest where there is none."""
        if (document := self._known.get(key)) is None:
            raise BadRequest(f"there is no document {key}", "document", 404)
        self._known.move_to_end(key)
        at = len(document.text) if at is None else at
        if at > len(document.text):
            raise BadRequest(f"{at} is beyond the {len(document.text)} characters of the document", "at", 409)
        text = document.text[:at]
        return lambda loaded, first: self._tokens(document, text, loaded, first)

    def _tokens(self, document: Document, text: str, loaded: Loaded, first: bool) -> Prompt:
        known = document.parts.setdefault(loaded.name, OrderedDict())
        ids: list[int] = []
        start = 0
        while len(text) - start > 2 * PART and (found := CUTS.search(text, start + PART, start + 2 * PART)):
            part = text[start : found.start()]
            if part not in known:
                known[part] = prepared(loaded.tokenizer, part, first=first and start == 0)[1].whole
            known.move_to_end(part)
            ids += known[part]
            start = found.start()
        while len(known) > 4 + 2 * (start // PART):
            known.popitem(last=False)
        rest = prepared(loaded.tokenizer, text[start:], first=first and start == 0)[1]
        return Prompt(text[-2000:], [*ids, *rest.ids], rest.spelt)
