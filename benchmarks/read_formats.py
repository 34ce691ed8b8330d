"""Megabytes of text a second and core that are read from books in epub and docx, and the memory that it takes.

python benchmarks/read_formats.py TEXT...: plain texts that the books are made of, in a folder that is removed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from html import escape
from pathlib import Path

import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from builders.formats import docx, epub, paragraphs

from reformer_cli.data.scan import scanned
from reformer_cli.data.text_decoding import Options

CHAPTER = 100  # paragraphs of a page


def made(ending: str, text: str) -> bytes:
    """A book of the text's paragraphs."""
    blocks = [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]
    if ending == ".docx":
        return docx(paragraphs(*blocks))
    parts = [blocks[n : n + CHAPTER] for n in range(0, len(blocks), CHAPTER)]
    return epub({f"{n}.xhtml": "".join(f"<p>{escape(b)}</p>\n" for b in part) for n, part in enumerate(parts)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+", type=Path)
    rows = []
    texts = parser.parse_args().texts
    for ending in (".epub", ".docx"):
        with tempfile.TemporaryDirectory() as folder:
            for n, text in enumerate(texts):
                (Path(folder) / f"{n}{ending}").write_bytes(made(ending, text.read_text("utf-8", "replace")))
            begun = time.process_time()
            with scanned([folder], Options(), 1, lambda _: None) as scan:
                assert not scan.faults, scan.faults
                speed = scan.bytes / (time.process_time() - begun) / 1e6
            case = f"{len(texts)} books, {scan.bytes / 1e6:.0f} MB of text, one process"
            rows.append(("reformer", f"{ending}, {case}", "read", speed, "MB/s of processor time"))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            rows.append(("reformer", f"{ending}, {case}", "peak memory so far", peak, "MiB"))
    for row in rows:
        print(*row)
    record.append("cpu", "read_formats", rows)


if __name__ == "__main__":
    main()
