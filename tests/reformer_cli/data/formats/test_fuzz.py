"""Damaged files of every format: each is read or gets one line that says why not; none a traceback, a long wait or much
memory.

Guards against what libraries do with what their authors did not think of: their own errors, endless loops, lists as
long as a number in the file says.
"""

from __future__ import annotations

import random
import resource
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from builders.formats import samples
from builders.reading import silent

from reformer_cli.data.scan import read_file, scanned
from reformer_cli.data.sources import Source
from reformer_cli.data.text_decoding import Options

SECONDS = 20  # that one small file may take; on a busy machine, a thousand times what it takes
MEMORY = 2**29  # bytes that all of them together may take more than the whole ones did
NUMBERS = (0, 1, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def damaged(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """In one to three ways."""
    for _ in range(draw.randint(1, 3)):
        size = len(data)
        start, stop = sorted(draw.randrange(size + 1) for _ in range(2))
        match draw.randrange(8):
            case 0:  # bits that flip
                found = bytearray(data)
                for _ in range(draw.randint(1, 8) if size else 0):
                    found[draw.randrange(size)] ^= 1 << draw.randrange(8)
                data = bytes(found)
            case 1:
                data = data[:stop]
            case 2:
                data = data[:start] + data[stop:]
            case 3:
                data = data[:start] + other[: draw.randrange(len(other) + 1)] + data[stop:]
            case 4:
                data = data[:stop] + data[start:stop] * draw.choice((1, 2, 50)) + data[stop:]
            case 5:
                data = data[:start] + draw.randbytes(draw.randint(1, 16)) + data[start:]
            case 6:  # a number in it, such as the sizes and places in a zip archive
                signs = [data.find(sign) for sign in (b"PK\1\2", b"PK\5\6", b"PK\3\4", b"ustar") if sign in data]
                at = min(size, draw.choice(signs) + draw.randrange(46) if signs and draw.random() < 0.8 else start)
                data = data[:at] + struct.pack("<I", draw.choice(NUMBERS))[: draw.choice((2, 4))] + data[at + 4 :]
            case _:  # what its format nests or repeats
                data = data[:start] + draw.choice((b"{", b"<a>", b"[", b"\\emph{", b'"', b"<p>")) * 2000 + data[start:]
    return data


@contextmanager
def at_most(seconds: int, what: str) -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise AssertionError(f"{what} took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(folder: Path, first: int, count: int) -> None:
    """Inputs by number, so that one that fails can be made again: fuzz(folder, number, 1)."""
    whole = samples()
    endings = [*whole]
    for ending, data in whole.items():  # so that libraries are loaded, and what they need is there
        read(folder, ending, data, "strict")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, first + count):
        draw = random.Random(number)
        ending = endings[number % len(endings)]
        data = damaged(whole[ending], whole[draw.choice(endings)], draw)
        with at_most(SECONDS, f"input {number} ({ending})"):
            read(folder, ending, data, draw.choice(("strict", "replace")), str(number))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY, f"{grown:,} bytes of memory"


def read(folder: Path, ending: str, data: bytes, errors: str, name: str = "whole") -> None:
    path = folder / f"{name}{ending}"
    path.write_bytes(data)
    packed = next((end for end in (".gz", ".zst") if ending.endswith(end)), "")
    kind = "." + ending.removesuffix(packed).split(".")[-1]
    source = Source(str(path), str(path), kind, packed, len(data), "", 0.0, named=True)
    begun = time.process_time()
    try:
        record = read_file(source, Options(errors=errors))  # type: ignore[arg-type]
    except Exception as error:
        raise AssertionError(f"input {name} ({ending})") from error
    assert record.faults or name != "whole" or record.words, ending
    assert all("; " in fault and "\n" not in fault for fault in record.faults), record.faults
    assert time.process_time() - begun < SECONDS
    path.unlink()


def test_damaged_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 0, 1000)


@pytest.mark.slow
def test_five_thousand_damaged_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 1000, 5000)


def test_a_thousand_files_of_which_twenty_are_faulty(tmp_path: Path) -> None:
    """980 are read; each of the 20 is named with what is wrong and what to do."""
    whole = [*samples().items()]
    plain = [(ending, data) for ending, data in whole if not ending.startswith((".zip", ".tar"))]
    for n in range(980):
        ending, data = plain[n % len(plain)]
        (tmp_path / f"{n:04}{ending}").write_bytes(data)
    broken = {".docx": b"no zip", ".epub": b"PK\3\4", ".pdf": b"%PDF-1.4", ".txt": b"a\0b", ".rtf": b"x", ".json": b"{",
              ".srt": b"words", ".jsonl": b"no", ".txt.gz": b"\x1f\x8b\x08", ".odt": b"PK\3\4"}  # fmt: skip
    for n, (ending, data) in enumerate([*broken.items()] * 2):
        (tmp_path / f"bad{n:02}{ending}").write_bytes(data)
    with scanned([str(tmp_path)], Options(errors="skip"), 1, silent) as scan:
        assert scan.files_read == 1000
        assert scan.n_faults == len(scan.faults) == 20
        assert sum(1 for _, _, record in scan.files() if record.words and not record.n_faults) == 980
        assert sum("bad" in fault and "; " in fault for fault in scan.faults) == 20
