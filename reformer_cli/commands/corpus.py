"""`reformer corpus`: what a corpus holds, before anything is trained on it."""

from __future__ import annotations

import dataclasses
import json as json_
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.commands.config import SetOption
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import ConfigError, UserError

if TYPE_CHECKING:
    from reformer_cli.data.scan import Scan


def corpus(
    texts: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS...", help="Files, folders, - (standard input), gutenberg:ID, python-reference."),
    ],
    set_: SetOption = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the files; default utf-8.")] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Tokenise it too, as `train` would, which then need not do it.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read a corpus as `train` would: what it holds, what is left out, and all that cannot be read (then status 2)."""
    from reformer_cli.config.load import load_config, resolve
    from reformer_cli.data.dataset import open_dataset, options_of
    from reformer_cli.data.scan import scanned

    if tokens and "-" in texts:
        raise UserError("--tokens reads a corpus twice, standard input comes once", "put the text in a file")
    data = resolve(load_config(None, set_ or ()), 320).data
    data = dataclasses.replace(data, corpus=tuple(texts), validation=(), encoding=encoding or data.encoding)
    with scanned(texts, options_of(data), data.num_workers, say) as found:
        if tokens and (data.errors == "skip" or not found.n_faults):
            open_dataset(data, say)
        about = describe(found)
        faults = [*found.faults, *([f"and {n:,} more"] if (n := found.n_faults - len(found.faults)) else [])]
    typer.echo(json_.dumps(about) if json else table(about, data.image_size is not None))
    if faults and data.errors != "skip":
        raise ConfigError("texts that cannot be read", faults)


def describe(found: Scan) -> dict[str, Any]:
    """Everything that is known of a corpus."""
    from reformer_cli.data.shards import tokenised_before

    keep = ("tokens", "kind", "vocab_size")
    return {
        "files": found.formats.total(),
        "formats": dict(found.formats.most_common()),
        "documents": found.documents,
        "bytes": found.bytes,
        "characters": found.characters,
        "words": found.words,
        "longest_document": found.longest,
        "empty_documents": found.empty,
        "unreadable": found.n_faults,
        "replaced": {"places": found.replaced, "such_as": found.notes},
        "skipped": {why: {"files": n, "such_as": found.examples[why]} for why, n in found.skipped.most_common()},
        "tokenised": [{name: manifest[name] for name in keep} for manifest in tokenised_before(found.digest)],
        "digest": found.digest,
    }


def table(about: dict[str, Any], images: bool = False) -> str:
    """The same for people."""
    from reformer_cli.utils.format import printable

    formats = ", ".join(f"{n:,} {ending}" for ending, n in about["formats"].items())
    rows = [("files", f"{about['files']:,}", formats)]
    if images:
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
    if (replaced := about["replaced"])["places"]:
        name, how = ("converted", "such as") if images else ("replaced", "by U+FFFD, such as")
        rows.append((name, f"{replaced['places']:,}", f"{how} {replaced['such_as'][0]}"))
    rows += [
        ("skipped", f"{entry['files']:,}", f"{why}, such as {entry['such_as']}")
        for why, entry in about["skipped"].items()
    ]
    return "\n".join(printable(f"{name:<12}{value:>16}  {note}") for name, value, note in rows)
