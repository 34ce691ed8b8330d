"""Work shared by processes: what goes wrong in one of them is told as if it were this one."""

from __future__ import annotations

import os

import pytest

from reformer_cli.utils import workers
from reformer_cli.utils.errors import UserError


def killed(_: int) -> int:
    os.kill(os.getpid(), 9)
    return 0


def make_killed() -> object:
    return killed


def test_a_killed_process_is_one_line() -> None:
    """A pool of multiprocessing would wait for it for ever."""
    with pytest.raises(UserError, match=r"was killed .* what is done is kept"):
        list(workers.ordered(make_killed, (), iter(range(5)), 2))


def make_failing() -> object:
    return failing


def failing(n: int) -> int:
    if n == 3:
        raise UserError(f"job {n} is wrong", "mend it")
    return n * n


@pytest.mark.parametrize("processes", [1, 2])
def test_mistakes_in_other_processes_are_told_as_in_this_one(processes: int) -> None:
    results = workers.ordered(make_failing, (), iter(range(9)), processes)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(UserError, match="job 3 is wrong; mend it"):
        next(results)
