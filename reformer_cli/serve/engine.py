"""One thread that computes for everybody: texts are decoded together, join and leave between two tokens, and what is
long (a prompt, a score) goes on a slice at a time between them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from reformer_cli.sampling.sampler import draw_each
from reformer_cli.serve.library import Library, Loaded
from reformer_cli.serve.metrics import Metrics
from reformer_cli.serve.texts import Event, Text

TOGETHER, MORE = 0.03, 0.005  # seconds of tokens that are sent at once, and more for each text: smooth to a reader

Work = Generator[Any, None, Any]  # goes on a slice at a time; what it returns is the result


class Full(Exception):
    """There is no place, and no room to wait for one. seconds: when to try again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the server is busy; try again in {seconds} s")
        self.seconds = seconds


class Outbox:
    """What readers are told, handed over to their event loop (there is one) at once: to wake it is dear, and so is what
    it then sends, which takes the cores that the next token needs."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.AbstractEventLoop, Callable[[Any], None], Any]] = []
        self._urgent, self._last = False, 0.0

    def put(self, loop: asyncio.AbstractEventLoop, tell: Callable[[Any], None], what: Any, urgent: bool) -> None:
        """tell(what) is called in the loop's thread, after `flush`. urgent: after the next one."""
        self._waiting.append((loop, tell, what))
        self._urgent |= urgent

    def flush(self, texts: int = 0) -> None:
        """Hand over all of it, unless something was lately and nothing is urgent. texts: that are being written."""
        now = time.monotonic()
        if not self._urgent and now - self._last < TOGETHER + MORE * texts:
            return
        waiting, self._waiting, self._urgent, self._last = self._waiting, [], False, now
        if waiting:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                waiting[0][0].call_soon_threadsafe(lambda: [tell(what) for _, tell, what in waiting])


class Engine(threading.Thread):
    """max_batch: texts that are read or written at once; max_queue: that wait for it; time_limit: seconds that one may
    take."""

    def __init__(
        self, library: Library, metrics: Metrics, max_batch: int = 16, max_queue: int = 64, time_limit: float = 600.0
    ) -> None:
        super().__init__(name="engine", daemon=True)
        self.library, self.metrics = library, metrics
        self.max_batch, self.max_queue, self.time_limit = max_batch, max_queue, time_limit
        self.waiting: deque[Text] = deque()
        self.reading: deque[tuple[Text, Work]] = deque()
        self.writing: list[Text] = []
        self.works: deque[tuple[Work, Future[Any]]] = deque()
        # Of a text, and of whether it was being written, without a fault.
        self.on_end: Callable[[Text, bool], None] = lambda text, whole: None
        self.outbox = Outbox()
        self._lock, self._stopping = threading.Condition(), False

    def submit(self, texts: list[Text]) -> None:
        """Make these texts. Raises Full where they would not all find room to wait."""
        with self._lock:
            places = self.max_batch - len(self.reading) - len(self.writing)
            if len(self.waiting) + len(texts) > max(0, places) + self.max_queue:
                raise Full(max(1, round(self.metrics.usual_seconds() * (1 + len(self.waiting) / self.max_batch))))
            self.waiting.extend(texts)
            self._lock.notify()

    def call(self, work: Work) -> Future[Any]:
        """Do this between tokens; cancelling what is returned ends it."""
        future: Future[Any] = Future()
        with self._lock:
            if len(self.works) >= self.max_queue:
                raise Full(1)
            self.works.append((work, future))
            self._lock.notify()
        return future

    def stop(self) -> None:
        """Finish the token that is being made, tell everybody, and end."""
        with self._lock:
            self._stopping = True
            self._lock.notify()

    def run(self) -> None:
        while True:
            while not self._wanted and self.library.get_ready():
                pass
            with self._lock:
                while not self._wanted:
                    self._lock.wait()
                if self._stopping:
                    break
                while self.waiting and len(self.reading) + len(self.writing) < self.max_batch:
                    text = self.waiting.popleft()
                    self.reading.append((text, self._read(text)))
            self._drop()
            read = self._read_on()
            self._work_on()
            self._write()
            self.outbox.flush(len(self.writing))
            self.metrics.places.set(len(self.reading) + len(self.writing))
            self.metrics.queue.set(len(self.waiting))
            with self._lock:
                if not (read or self.writing or self.works or self.waiting or self._stopping):
                    self._lock.wait(0.02)  # all wait for what is made aside
        for text in [*self.waiting, *(text for text, _ in self.reading), *self.writing]:
            self._end(text, "interrupted")
        self.outbox.flush()

    @property
    def _wanted(self) -> bool:
        return bool(self._stopping or self.waiting or self.reading or self.writing or self.works)

    def _read(self, text: Text) -> Work:
        loaded = self.library.get(text.ask.run)
        yield from text.reading(loaded)

    def _drop(self) -> None:
        """Whoever has gone, or whose time is over, leaves his place."""
        now = time.monotonic()
        for text in [*self.waiting, *(text for text, _ in self.reading), *self.writing]:
            if text.cancelled or now - text.began > self.time_limit:
                self._end(text, "cancelled" if text.cancelled else "length")

    def _end(self, text: Text, reason: str | None = None, error: Exception | None = None) -> None:
        """A text leaves, wherever it is."""
        with self._lock:
            if text in self.waiting:
                self.waiting.remove(text)
        self.reading = deque(pair for pair in self.reading if pair[0] is not text)
        whole = text in self.writing and error is None
        if text in self.writing:
            self.writing.remove(text)
        if error is not None:
            text.begun = None  # what it had may be torn
        text.leave()
        self.on_end(text, whole)
        if whole:
            text.close(reason)
        else:
            text.tell(Event(finish_reason=reason, error=error))
        self.metrics.ended(text, error)

    def _read_on(self) -> bool:
        """One slice of one prompt; in turns. Those that wait for another to read the same, or for what is made aside,
        are passed over. Whether there was one that did not."""
        for _ in range(len(self.reading)):
            text, work = self.reading[0]
            self.reading.rotate(-1)
            try:
                if next(work):
                    continue
            except StopIteration:
                self.reading.remove((text, work))
                self.writing.append(text)
                if text.ask.config.max_tokens == 0:
                    self._end(text, "length")
            except Exception as error:
                self._end(text, error=error)
            return True
        return False

    def _work_on(self) -> None:
        if not self.works:
            return
        work, future = self.works.popleft()
        if future.cancelled():
            return
        try:
            next(work)
        except StopIteration as done:
            with suppress(InvalidStateError):  # cancelled meanwhile: its client hung up
                future.set_result(done.value)
        except Exception as error:
            with suppress(InvalidStateError):
                future.set_exception(error)
        else:
            self.works.append((work, future))

    def _write(self) -> None:
        """One more token of every text that has read its prompt, those of a model together."""
        by_model: dict[str, list[Text]] = {}
        for text in self.writing:
            by_model.setdefault(text.ask.run, []).append(text)
        for texts in by_model.values():
            try:
                rows = next_logits(texts)
            except Exception as error:  # the states of all of them are torn
                for text in texts:
                    self._end(text, error=error)
                continue
            drawn = draw_each([text.sampler for text in texts], rows)
            self.metrics.tokens.inc(len(texts))
            for text, row, one in zip(list(texts), rows, drawn, strict=True):
                try:
                    if isinstance(one, Exception):
                        raise one
                    text.push(one.tokens[0], one.logprobs[0], row)
                    if text.ended:
                        self._end(text)
                except Exception as error:  # its own: the others go on
                    self._end(text, error=error)


def next_logits(texts: list[Text]) -> Tensor:
    """Of the next token of each text of one model, float [texts, vocab_size]: with the bits that each has alone."""
    samplers = [text.sampler for text in texts]
    states = [sampler.state for sampler in samplers if sampler.state is not None]
    with torch.inference_mode():
        logits = samplers[0].model.extend_each(torch.cat([sampler.pending for sampler in samplers]), states)
    return logits.float()


def loaded_work(library: Library, name: str, work: Callable[[Loaded], Work]) -> Work:
    """Work of a model by its name."""
    loaded = library.get(name)
    yield
    return (yield from work(loaded))
