"""What a corpus holds, before anything is trained on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reformer_cli.config.schema import DataConfig
from reformer_cli.data.dataset import open_dataset, options_of
from reformer_cli.data.scan import Scan, reread, scanned
from reformer_cli.data.shards import tokenised_before
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import printable


@dataclass(frozen=True)
class CorpusReport:
    """What was found: about, its figures by name; faults, a line for each text that cannot be read."""

    about: dict[str, Any]
    faults: list[str]
    images: bool

    def as_dict(self) -> dict[str, Any]:
        """Everything that is known of the corpus."""
        return self.about

    def __str__(self) -> str:
        return "\n".join(printable(f"{name:<12}{value:>16}  {note}") for name, value, note in self.rows())

    def rows(self) -> list[tuple[str, str, str]]:
        """(name, figure, note) of all that is there, for people."""
        about = self.about
        formats = ", ".join(f"{n:,} {ending or 'unknown'}" for ending, n in about["formats"].items())
        rows = [("files", f"{about['files']:,}", formats)]
        if self.images:
            rows.append(("images", f"{about['documents']:,}", f"{about['longest_document']:,} bytes each"))
        else:
            rows += [("documents", f"{about['documents']:,}", f"the longest {about['longest_document']:,} characters")]
            rows += [(name, f"{about[name]:,}", "of text") for name in ("bytes", "characters", "words")]
        rows += [
            ("tokens", f"{t['tokens']:,}", f"tokenised before: {t['kind']}, vocabulary of {t['vocab_size']:,}")
            for t in about["tokenised"]
        ]
        left_out = {"empty documents": about["empty_documents"], "unreadable": about["unreadable"]}
        rows += [("left out", f"{n:,}", why) for why, n in left_out.items() if n]
        rows += [
            ("encoding", f"{entry['files']:,}", f"{name}, at least {entry['confidence']:.0%} sure: {entry['such_as']}")
            for name, entry in about["encodings"].items()
        ]
        if about["cut"]:
            rows.append(("cut", f"{about['cut']:,}", "characters: Project Gutenberg's headers, licences and credits"))
        more = about["duplicates"]
        how = "left out" if more["dropped"] else "--set data.duplicates=drop leaves the later ones out"
        such = ", ".join(f"{text} in {before}" for text, before in more["such_as"][:3])
        each = [
            ("duplicates", more["texts"], f"texts that stand in others, such as {such}"),
            ("passages", more["passages"], f"in several texts, some {more['characters']:,} characters"),
            ("page heads", sum(more["heads"].values()), f"such as {next(iter(more['heads']), '')!r}"),
        ]
        rows += [(name, f"{n:,}", f"{what}; {how}") for name, n, what in each if n]
        if about["joined"]:
            how = "joined" if about["unwrap"] == "join" else "that --set data.unwrap=join would join"
            rows.append(("hard lines", f"{about['joined']:,}", f"within paragraphs, {how}"))
        if (replaced := about["replaced"])["places"]:
            name, how = ("converted", "such as") if self.images else ("replaced", "by U+FFFD, such as")
            rows.append((name, f"{replaced['places']:,}", f"{how} {replaced['such_as'][0]}"))
        rows += [
            ("skipped", f"{entry['files']:,}", f"{why}, such as {entry['such_as']}")
            for why, entry in about["skipped"].items()
        ]
        return rows


def inspect_corpus(
    texts: Sequence[str], data: DataConfig, tokenise: bool = False, report: Callable[[str], None] = say
) -> CorpusReport:
    """Read a corpus as `train` would. tokenise: and make its tokens, which `train` then finds.

    Raises UserError for what is not there; what cannot be read is in the report.
    """
    if tokenise and "-" in texts:
        raise UserError("--tokens reads a corpus twice, standard input comes once", "put the text in a file")
    data = dataclasses.replace(data, corpus=tuple(texts), validation=())
    options = options_of(data)
    if data.unwrap == "auto":
        options = dataclasses.replace(options, unwrap="count")
    with scanned(texts, options, data.num_workers, report) as found:
        if tokenise and (data.errors == "skip" or not found.n_faults):
            open_dataset(data, report)
        return CorpusReport(_figures(found), _faults(found), data.image_size is not None)


def read_corpus(
    texts: Sequence[str], data: DataConfig, write: Callable[[bytes], object], report: Callable[[str], None] = say
) -> list[str]:
    """Write the text of a corpus as `train` would read it, one document after another, each of which ends a line.

    Returns a line for each text that cannot be read. Raises UserError for what is not there, and for images.
    """
    if data.image_size is not None:
        raise UserError("images have no text to show", "leave --show or data.image_size out")
    with scanned(texts, options_of(data), data.num_workers, report) as found:
        for _, source, record in found.files():
            for _, _, _, pieces in reread(source, record, found.options):
                last = ""
                for piece in pieces:
                    write(piece.encode())
                    last = piece or last
                write(b"" if last.endswith("\n") else b"\n")
        return _faults(found)


def _faults(found: Scan) -> list[str]:
    return [*found.faults, *([f"and {n:,} more"] if (n := found.n_faults - len(found.faults)) else [])]


def _figures(found: Scan) -> dict[str, Any]:
    keep = ("tokens", "kind", "vocab_size")
    return {
        "files": found.files_read,
        "formats": dict(found.formats.most_common()),
        "documents": found.documents,
        "bytes": found.bytes,
        "characters": found.characters,
        "words": found.words,
        "longest_document": found.longest,
        "empty_documents": found.empty,
        "unreadable": found.n_faults,
        "replaced": {"places": found.replaced, "such_as": found.notes},
        "cut": found.cut,
        "encodings": {
            name: {"files": files, "confidence": sure, "such_as": which}
            for name, (files, sure, which) in sorted(found.encodings.items())
        },
        "duplicates": {
            "texts": found.duplicates.texts,
            "such_as": found.duplicates.names,
            "passages": found.duplicates.passages,
            "characters": found.duplicates.characters,
            "heads": found.duplicates.heads,
            "dropped": found.options.duplicates == "drop",
        },
        "joined": found.joined,
        "unwrap": found.options.unwrap,
        "skipped": {why: {"files": n, "such_as": found.examples[why]} for why, n in found.skipped.most_common()},
        "tokenised": [{name: manifest[name] for name in keep} for manifest in tokenised_before(found.digest)],
        "digest": found.digest,
    }
