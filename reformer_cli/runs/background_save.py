"""Writing in the background: training hands over a copy and goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from reformer_cli.utils.console import warn
from reformer_cli.utils.errors import UserError, why_not_written

MOST_FAILURES = 3  # writes in a row, before a run gives up


class Writer:
    """Does one job at a time, in a thread where `background`, else at once.

    A job that fails for want of space or the like is reported, and training goes on: the next may succeed. After
    MOST_FAILURES in a row, and at the end of the run, it is an error. tell: shows a warning; kept: whether there is a
    checkpoint.
    """

    def __init__(
        self, background: bool, tell: Callable[[str], None] = warn, kept: Callable[[], bool] = lambda: True
    ) -> None:
        self.background, self.tell, self.kept = background, tell, kept
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._told: BaseException | None = None  # of the last job, if that was not done and a warning said so
        self._failures = 0

    @property
    def busy(self) -> bool:
        """Whether another job would have to wait."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, job: Callable[[], None]) -> None:
        """Do it after the one under way."""
        self.collect()

        def work() -> None:
            try:
                job()
                self._failures, self._told = 0, None
            except BaseException as error:
                self._error = error

        if self.background:
            # A daemon, so that a second Ctrl-C need not wait for it: what it writes is put in place at the end or not.
            self._thread = threading.Thread(target=work, name="checkpoint", daemon=True)
            self._thread.start()
        else:
            work()
            self.collect()

    def collect(self, final: bool = False) -> None:
        """Wait for the job under way and see what became of it. Raises UserError for one that could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error or (self._told if final else None), None
        if error is None:
            return
        reason = why_not_written(error)
        if reason is None:
            raise error
        self._failures, self._told = self._failures + 1, error
        if final or self._failures >= MOST_FAILURES:
            known = "the last one is whole" if self.kept() else "it would have been the first"
            hint = f"{known}; make room, then go on with --resume"
            raise UserError(f"a checkpoint could not be written: {reason}", hint)
        self.tell(f"a checkpoint could not be written: {reason}; training goes on, and the next is tried as usual")
