"""A program that tokenises with two processes, in 30 jobs of which it can be stopped at any."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

from reformer_cli.config.schema import DataConfig
from reformer_cli.data import dataset, scan, shards, tokenize
from reformer_cli.tokenizers import base


def tokenise(text: str, wait_at: int, limit: int) -> None:
    """Print a line before each job's tokens are written; wait for ever at that one. limit: bytes of a file, as on a
    disk that is full then."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    base.CHUNK, tokenize.JOB, tokenize.COMMIT, shards.ALONE, scan.ALONE = 5_000, 10_000, 40_000, 0, (0, 0)
    jobs, writer = 0, tokenize._Writer.add

    def add(*arguments: Any) -> None:
        nonlocal jobs
        jobs += 1
        print("job", flush=True)
        while jobs == wait_at:
            time.sleep(1)
        writer(*arguments)

    tokenize._Writer.add = add  # type: ignore[method-assign]
    data = DataConfig(corpus=(text,), vocab_size=400, tokenizer="bpe", num_workers=2)
    found = dataset.open_dataset(data, lambda said: print(said, file=sys.stderr, flush=True))
    print(len(found.tokens.train), flush=True)
