"""Work shared by several processes, its results in order and never many of them at once."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

from reformer_cli.utils.errors import UserError
from reformer_cli.utils.signals import without_interrupts

Job = TypeVar("Job")
Done = TypeVar("Done")
AHEAD = 3  # jobs for each process that are under way or wait for their turn

_work: Callable[[Any], Any]  # of a worker, made when it starts


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered(
    make: Callable[..., Callable[[Job], Done]], arguments: tuple[Any, ...], jobs: Iterable[Job], processes: int
) -> Iterator[Done]:
    """work(job) of each job, in order; work = make(*arguments), once in every process. 1 process: in this one.

    make, arguments, jobs and results go through pipes. Raises what work and `jobs` raise, UserError for a killed one.
    """
    if processes == 1:
        yield from map(make(*arguments), jobs)
        return
    # spawn, not fork: this process may hold threads and locks of torch.
    executor = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_start, initargs=(make, arguments)
    )
    waiting: deque[Future[Done]] = deque()
    try:
        for job in jobs:
            with without_interrupts():  # a worker is started as it is needed, and inherits that
                waiting.append(executor.submit(_run, job))
            if len(waiting) >= AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a process that read or tokenised the corpus was killed (by the system, for want of memory?)",
            "what is done is kept: run the same command again, perhaps with --set data.num_workers=1",
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _work
    parent = multiprocessing.parent_process()
    assert parent is not None
    # A worker waits for jobs on a pipe that its siblings hold open too: without this, they outlive a killed parent.
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _work = make(*arguments)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _run(job: Any) -> Any:
    return _work(job)
