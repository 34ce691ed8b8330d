"""Text to token files: the same by any number of processes, whatever stops it half-way, and for hostile text."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import forked
from builders.reading import silent, tokens_of
from builders.tokenising import tokenise

from reformer_cli.config.schema import DataConfig
from reformer_cli.data import shards, tokenize
from reformer_cli.data.dataset import open_dataset
from reformer_cli.data.scan import Changed
from reformer_cli.data.shards import TokenFiles
from reformer_cli.data.sources import python_reference
from reformer_cli.tokenizers import base
from reformer_cli.tokenizers.train_subword import train_subwords
from reformer_cli.utils.errors import UserError

BPE = train_subwords([python_reference()[:60_000]], 400)
CHANGED = "files.txt"


@pytest.fixture(autouse=True)
def _small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small corpus takes many jobs, several commits, and documents that no job holds whole."""
    monkeypatch.setattr(tokenize, "JOB", 4_000)
    monkeypatch.setattr(tokenize, "JOB_TEXTS", 30)
    monkeypatch.setattr(tokenize, "COMMIT", 9_000)
    monkeypatch.setattr(base, "CHUNK", 1_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Long and short documents, some in one file, with names of all kinds."""
    text, books = python_reference(), tmp_path / "books"
    books.mkdir()
    for n, size in enumerate((20_000, 1, 700, 9_000, 0, 3)):
        (books / f"{n}é.txt").write_text(text[n * 1000 : n * 1000 + size])
    rows = [json.dumps({"text": text[n * 50 : n * 50 + n % 90]}) for n in range(200)]
    (books / "rows.jsonl").write_text("\n".join(rows))
    (books / "end.txt").write_text(text[60_000:90_000])
    return books


def same(a: TokenFiles, b: TokenFiles) -> bool:
    rows = [[(w.name, w.span, w.context_start, w.context_stop) for w in x.spans] for x in (a, b)]
    return np.array_equal(a.train, b.train) and np.array_equal(a.validation, b.validation) and rows[0] == rows[1]


def test_every_character_is_in_one_part(folder: Path, tmp_path: Path) -> None:
    tokens = tokens_of([folder], BPE, tmp_path / "t")
    texts = [p.read_text() for p in sorted(folder.glob("*.txt"))]
    texts[-1:-1] = []
    everything = BPE.decode(np.concatenate([tokens.train, tokens.validation]).astype(np.int32))
    rows = [json.loads(line)["text"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert len(everything) == sum(map(len, texts + rows))
    assert (np.asarray(tokens.train) == BPE.end).sum() == tokens.documents == sum(map(bool, texts + rows))
    for held in tokens.spans:
        before = BPE.decode(np.asarray(tokens.train[held.context_start : held.context_stop], np.int32))
        rest = BPE.decode(np.asarray(tokens.validation[held.span.start : held.span.stop], np.int32))
        assert tokens.train[held.context_start] == BPE.end
        name, _, row = held.name.partition(".jsonl:")
        assert before + rest == (rows[int(row) - 1] if row else Path(name).read_text())
        counts = (len(rest), len(rest.encode()), len(rest.split()))
        assert (held.span.characters, held.span.bytes, held.span.words) == counts


def test_several_processes_write_the_same(folder: Path, tmp_path: Path) -> None:
    assert same(tokens_of([folder], BPE, tmp_path / "a"), tokens_of([folder], BPE, tmp_path / "b", processes=2))


def test_it_goes_on_from_any_stop(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after one job, four, seven ..., each time with what is not committed half written."""
    whole = tokens_of([folder], BPE, tmp_path / "whole")
    add, left = tokenize._Writer.add, 0

    def stopping(self: Any, *arguments: Any) -> None:
        nonlocal left
        if left == 0:
            self.files["train.bin"].write(b"scrap")
            self.files[tokenize.SPANS].write(b"scrap")
            raise KeyboardInterrupt
        left -= 1
        add(self, *arguments)

    monkeypatch.setattr(tokenize._Writer, "add", stopping)
    stops = 0
    for jobs in itertools.count(1, 3):
        before, left, so_far = -1, jobs, stops
        while True:
            try:
                found = tokens_of([folder], BPE, tmp_path / str(jobs))
                break
            except KeyboardInterrupt:
                stops += 1
            committed = tokenize.State.read(tmp_path / f".{jobs}.part").characters
            # Where so few jobs are less than a commit, it would begin again and again.
            before, left = committed, jobs if committed > before else 10**9
        assert same(found, whole)
        if stops == so_far:
            break
    assert stops > 10


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A text of 30 jobs."""
    path = tmp_path / "big.txt"
    path.write_text(python_reference()[:300_000])
    return path


def start(big: Path, wait_at: int = 10**9, limit: int = resource.RLIM_INFINITY, **how: Any) -> forked.Forked:
    return forked.start(tokenise, str(big), wait_at, limit, cwd=big.parent, **how)


def stopped_at(job: int, big: Path, **how: Any) -> forked.Forked:
    """The program where it waits before that job's tokens are written."""
    process = start(big, job, **how)
    while process.out.count(b"job") < job:
        assert process.process.is_alive(), process.err
        time.sleep(0.01)
    return process


def children(parent: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{parent}\n" in path.read_text():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def await_end(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{n}").exists() for n in processes):
        assert time.monotonic() < deadline, "processes outlive the program"
        time.sleep(0.05)


def test_killed_at_any_moment_and_started_again(big: Path) -> None:
    """With SIGKILL; its workers must not stay either."""
    draw = random.Random(1)
    for _ in range(2):
        process = stopped_at(draw.randrange(5, 10), big)
        time.sleep(draw.random() / 10)
        workers = children(process.pid)
        process.process.kill()
        process.wait()
        await_end(workers)
    last = start(big)
    assert last.wait() == 0, last.err
    assert "going on where that was stopped" in last.err
    assert last.out.count(b"job") < 30  # the committed ones are not done again
    found = open_dataset(_data(big), silent)
    shutil.rmtree(shards.cache_folder() / "tokens")
    assert same(found.tokens, open_dataset(_data(big), silent).tokens)


def _data(big: Path) -> DataConfig:
    return DataConfig(corpus=(str(big),), vocab_size=400, tokenizer="bpe")


def test_ctrl_c_ends_all_processes_without_a_traceback_from_any(big: Path) -> None:
    """A terminal sends it to every process of the program."""
    process = stopped_at(5, big, new_session=True)
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    await_end(workers)
    assert process.err.count("Traceback") == 1, process.err  # the program's own, which has no main() to catch it
    assert "SpawnProcess" not in process.err


def test_a_full_disk_loses_nothing_and_says_where(big: Path) -> None:
    """Files may not grow beyond a limit, as on a full disk; the next try goes on."""
    process = start(big, limit=150_000)
    assert process.wait() != 0
    assert f"[Errno {errno.EFBIG}] File too large: '" in process.err
    assert "train.bin'" in process.err
    again = start(big)
    assert again.wait() == 0, again.err
    assert "going on where that was stopped" in again.err


def test_a_corpus_that_changes_meanwhile_is_not_half_old_half_new(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rewriting(parts: Any, start: Any) -> Iterator[Any]:
        for n, text in enumerate(original(parts, start)):
            if n == 3:
                (folder / "end.txt").write_text("other")
            yield text

    original = tokenize._texts
    monkeypatch.setattr(tokenize, "_texts", rewriting)
    with pytest.raises(Changed, match=r"end.txt changed while it was read"):
        tokens_of([folder], BPE, tmp_path / "t")
    assert not [*tmp_path.glob(".t.part")]


def test_two_programs_at_once_do_the_work_once(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    data = DataConfig(corpus=(str(folder),), tokenizer="bytes")
    threads = [threading.Thread(target=lambda: open_dataset(data, said.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("tokenising" in text for text in said) == 1
    assert len([*(shards.cache_folder() / "tokens").glob("*/train.bin")]) == 1
    assert not [*(shards.cache_folder() / "tokens").glob(".*")]


@pytest.mark.parametrize("size", [2_000_000, pytest.param(100_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("word", ["", "word "], ids=["no spaces", "words"])
def test_one_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, word: str) -> None:
    """sentencepiece alone takes gigabytes for a line of a hundred megabytes."""
    monkeypatch.undo()
    (tmp_path / "line.txt").write_text((word or "abcdé")[:5] * (size // 5), "utf-8")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokens = tokens_of([tmp_path / "line.txt"], BPE, tmp_path / "t")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150_000  # KiB, whatever the size
    assert len(tokens.train) > size // 5
    start = np.asarray(tokens.train[:5000], np.int32)
    assert (tmp_path / "line.txt").read_text("utf-8").startswith(BPE.decode(start).rstrip("\ufffd"))


def test_an_unreadable_text_stops_before_anything_is_tokenised(folder: Path) -> None:
    """And with data.errors=skip it alone is left out, in all that follows."""
    (folder / "bad.txt").write_bytes(b"one\ntwo\xff")
    with open(folder / "rows.jsonl", "a") as file:
        file.write("\nnot json\n")
    data = DataConfig(corpus=(str(folder),), tokenizer="bytes")
    with pytest.raises(UserError) as caught:
        open_dataset(data, silent)
    assert "bad.txt is not utf-8: byte 7 (line 2) is 0xff" in str(caught.value)
    assert "--set data.errors=skip" in str(caught.value)
    assert "(and 1 more: `reformer corpus` lists them)" in str(caught.value)
    skipping = open_dataset(DataConfig(corpus=(str(folder),), tokenizer="bytes", errors="skip"), silent)
    (folder / "bad.txt").unlink()
    rows = (folder / "rows.jsonl").read_text().replace("\nnot json\n", "")
    (folder / "rows.jsonl").write_text(rows)
    mended = open_dataset(data, silent)
    assert mended.digest == skipping.digest
    assert same(mended.tokens, skipping.tokens)
