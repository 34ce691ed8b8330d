"""From a folder of texts to tokens on disk: us, and sentencepiece alone with as many threads.

    python benchmarks/tokenise.py [--megabytes 1000] [--processes 2] [--folder DIR --keep] [--systems NAME...]

The corpus is made of lines of the novels beside the checkout (of the built-in text where they are not there), drawn
at random, every fifth with a word that no other line has: real text has new words at any length too. Files of 1 KB to
4 MB. Both have the same vocabulary, made beforehand, and read from the system's cache. Each has a process of its own;
peak memory is the largest sum over all its processes of what they hold (PSS), without torch, which neither needs.
Prints ratios; appends to results.csv. With --keep the folder stays, and a further call measures it again.

us: what `reformer train` does before its first step: the texts are read once for faults, counts and a digest, and
once to be tokenised. sentencepiece: its own `encode(lines, num_threads)`, a file at a time, ids written as 16-bit
numbers; line ends are lost, and nothing is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import sentencepiece

from reformer_cli.config.schema import DataConfig
from reformer_cli.data.dataset import open_dataset
from reformer_cli.data.sources import python_reference
from reformer_cli.tokenizers.load import load_tokenizer
from reformer_cli.tokenizers.train_subword import train_subwords

MB, MIB = 10**6, 2**20
VOCABULARY = 8192
NOVELS = Path(__file__).parents[2] / "shared" / "corpora"


def make_corpus(folder: Path, size: int) -> None:
    """Write about `size` bytes of text and the vocabulary of both."""
    lines = _lines()
    model = train_subwords(["".join(lines)], VOCABULARY, kind="bpe").serialise()
    (folder / "tokenizer.model").write_bytes(model)
    draw, number = random.Random(0), 0
    while size > 0:
        wanted = min(size, round(10 ** draw.uniform(3, 6.6)))
        found = draw.choices(lines, k=1 + wanted * len(lines) // sum(map(len, lines)))
        for n in range(0, len(found), 5):
            found[n] = f"{draw.getrandbits(40):x} {found[n]}".translate(LETTERS)
        data = "".join(found).encode()
        place = folder / "texts" / f"{number // 1000:03}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_bytes(data)
        size, number = size - len(data), number + 1


LETTERS = str.maketrans("0123456789", "ghijklmnop")


def _lines() -> list[str]:
    texts = [path.read_text("utf-8-sig") for path in sorted(NOVELS.glob("*.txt"))] or [python_reference()]
    return [line for text in texts for line in text.splitlines(keepends=True)]


def ours(folder: Path, processes: int) -> dict[str, float]:
    """Seconds to the first batch, and of a second start."""
    data = DataConfig(corpus=(str(folder / "texts"),), tokenizer="bpe", num_workers=processes)
    tokenizer = load_tokenizer(folder / "tokenizer.model")
    found = {}
    for name in ("seconds", "second start"):
        began = time.monotonic()
        tokens = open_dataset(data, lambda _: None, tokenizer).tokens
        found[name] = time.monotonic() - began
    return found | {"tokens": len(tokens.train) + len(tokens.validation)}


def theirs(folder: Path, processes: int) -> dict[str, float]:
    """Seconds of sentencepiece alone."""
    began, count = time.monotonic(), 0
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    with open(folder / "tokens.bin", "wb") as file:
        for path in sorted((folder / "texts").glob("*/*.txt")):
            lines = path.read_text("utf-8").split("\n")
            for ids in processor.encode(lines, num_threads=processes):
                file.write(np.array(ids, np.uint16).tobytes())
                count += len(ids)
        file.flush()
        os.fsync(file.fileno())
    return {"seconds": time.monotonic() - began, "tokens": count}


SYSTEMS: dict[str, Callable[[Path, int], dict[str, float]]] = {"reformer": ours, "sentencepiece": theirs}


def measured(system: str, folder: Path, processes: int) -> dict[str, float]:
    """A system in a process of its own, with its peak memory."""
    command = [sys.executable, __file__, "--system", system, "--folder", str(folder), "--processes", str(processes)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, _held(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = child.communicate()
    done.set()
    watcher.join()
    if child.returncode:
        raise SystemExit(f"{system} failed")
    return json.loads(out) | {"peak": peak}


def _held(pid: int) -> int:
    """Bytes that a process and those it started hold; what they share counts once."""
    total = 0
    try:
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().pss
    except psutil.Error:
        pass
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / f"tokenise-{os.getpid()}")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=[*SYSTEMS])
    parser.add_argument("--system", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.system:
        print(json.dumps(SYSTEMS[options.system](options.folder, options.processes)))
        return
    try:
        if not options.folder.exists():
            options.folder.mkdir()
            make_corpus(options.folder, options.megabytes * MB)
        compare(options.folder, options.systems, options.processes)
    finally:
        if not options.keep:
            shutil.rmtree(options.folder)


def compare(folder: Path, systems: list[str], processes: int) -> None:
    """Measure, print, record."""
    sizes = [path.stat().st_size for path in (folder / "texts").glob("*/*.txt")]
    case = f"{sum(sizes) / MB:.0f} MB, {len(sizes)} files, vocabulary {VOCABULARY}, {processes} processes"
    print(case)
    rows, seconds = [], {}
    for name in systems:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        found = measured(name, folder, processes)
        seconds[name] = found["seconds"]
        speed, peak = sum(sizes) / MB / found["seconds"], found["peak"] / MIB
        rows += [(name, case, "throughput", speed, "MB/s"), (name, case, "peak memory", peak, "MiB")]
        print(f"{name:14} {speed:8.1f} MB/s {peak:8.0f} MiB {found['tokens']:,} tokens")
        if again := found.get("second start"):
            rows.append((name, case, "second start", again, "s"))
            print(f"{name:14} {again:8.1f} s for a second start")
    if len(seconds) == 2:
        print(f"ratio {seconds['sentencepiece'] / seconds['reformer']:.2f}")
    if rows:
        import record  # only here: it brings torch, which the processes of both would load too

        record.append("cpu", "tokenise", rows)


if __name__ == "__main__":
    main()
