"""Words of a text that stand in what a run was trained on, where `reformer novelty` has made the index of that."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from reformer_cli.novelty.copies import Copy, find_copies
from reformer_cli.novelty.index import FOLDER, TextIndex
from reformer_cli.runs.run import Run
from reformer_cli.serve.requests import BadRequest

MOST = 1_000_000  # characters that are compared at once


@lru_cache(maxsize=4)
def _opened(folder: Path, made: int) -> TextIndex:
    """made: when, so that one that was made anew is opened anew; opening checks all of it."""
    return TextIndex(folder)


def copied(run: Run, text: str) -> list[dict[str, Any]] | str:
    """Copies of five words and more in order, characters [start, end), or why there are none. Raises BadRequest, and
    UserError for an index that is damaged."""
    if len(text) > MOST:
        raise BadRequest(f"{len(text):,} characters are compared in parts of at most {MOST:,}", "text")
    about = run.path / FOLDER / "index.json"
    if not about.is_file():
        return f"there is no index of what {run.path.name} was trained on: `reformer novelty` makes it"
    index = _opened(about.parent, about.stat().st_mtime_ns)
    if index.about.get("digest") != run.config.corpus_digest:
        return f"the index of {run.path.name} is of another text than it was trained on: remove {FOLDER}/ in its folder"
    return [_told(copy) for copy in find_copies(index, text)]


def _told(copy: Copy) -> dict[str, Any]:
    place = copy.place
    around = " ".join((place.before, place.copied, place.after)).strip()
    found = {"start": copy.start, "end": copy.stop, "words": copy.words}
    return found | {"source": Path(place.name).name, "line": place.line, "around": around}
