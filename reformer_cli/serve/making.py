"""From a request to texts of the engine, and from their events to an answer, for both APIs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.types import Message

from reformer_cli.sampling.prompt import prepared
from reformer_cli.sampling.sampler import fresh_seed
from reformer_cli.serve.documents import Documents
from reformer_cli.serve.engine import Engine, Full, Outbox, loaded_work
from reformer_cli.serve.library import Library, Loaded, UnknownRun
from reformer_cli.serve.metrics import Metrics
from reformer_cli.serve.requests import BadRequest, Drawn
from reformer_cli.serve.security import refusal
from reformer_cli.serve.sessions import Sessions
from reformer_cli.serve.texts import Ask, Event, Text
from reformer_cli.tokenizers.base import Prompt
from reformer_cli.utils.errors import UserError


@dataclass
class Service:
    """What requests are answered with."""

    library: Library
    engine: Engine
    metrics: Metrics
    sessions: Sessions
    documents: Documents = field(default_factory=Documents)

    def name(self, model: str) -> str:
        """Of a run; the first one where none is named. Raises BadRequest for one that is not there."""
        if model and model not in self.library.folders():
            raise BadRequest(f"The model {model!r} does not exist", "model", 404, "model_not_found")
        return model or self.library.first

    async def call(self, request: Request, model: str, work: Any) -> Any:
        """What work(loaded) returns, done between tokens; given up where the client goes away."""
        future = asyncio.wrap_future(self.engine.call(loaded_work(self.library, self.name(model), work)))
        return await unless_gone(request, future)

    def asks(self, body: Drawn, prompts: Sequence[str | list[int]], logprobs: int = 0) -> list[Ask]:
        """body.n texts after each of the prompts, or after a document. Raises BadRequest."""
        config, run = body.sampling(), self.name(body.model)
        seed = config.seed if config.seed is not None else fresh_seed()
        configs = [dataclasses.replace(config, seed=(seed + k) % 2**63) for k in range(body.n)]
        if body.session is not None and (body.n > 1 or len(prompts) > 1):
            raise BadRequest("a session is of one text", "session")
        ids = {token: value for token, value in body.logit_bias.items() if token.isdecimal()}
        texts = [(text, value) for text, value in body.logit_bias.items() if text not in ids]
        found = []
        for prompt in prompts:
            ask = Ask(
                run, self._prompt(body, prompt), config, body.stop or (), body.until, texts,
                {int(token): value for token, value in ids.items()}, logprobs, body.session,
            )  # fmt: skip
            found += [dataclasses.replace(ask, config=one) for one in configs]
        return found

    def _prompt(self, body: Drawn, prompt: str | list[int]) -> Any:
        """(loaded, first) -> Prompt."""
        if body.document is not None:
            return self.documents.prompt(body.document, body.at)
        if isinstance(prompt, str):
            return lambda loaded, first: prepared(loaded.tokenizer, prompt, first=first, as_typed=body.as_typed)[1]

        def ids(loaded: Loaded, first: bool) -> Prompt:
            if wrong := [token for token in prompt if not 0 <= token < loaded.tokenizer.vocab_size]:
                size = loaded.tokenizer.vocab_size
                raise BadRequest(f"token {wrong[0]} is not among the {size:,} of this model", "prompt")
            given = prompt[1:] if first and prompt[:1] == [loaded.tokenizer.end] else prompt
            return Prompt(loaded.tokenizer.decode(np.array(given[-1000:], np.int32)), given)

        return ids

    def submit(self, asks: Sequence[Ask]) -> Making:
        """Begin. Raises Full, and BadRequest for a session that is in use."""
        making = Making(self.engine.outbox)
        texts = [Text(ask, making.tell(n), self.sessions.goes_on) for n, ask in enumerate(asks)]
        keys: set[tuple[str, str]] = {(ask.run, ask.session) for ask in asks if ask.session is not None}
        if keys & self.sessions.busy:
            raise BadRequest("this session is being written by another request", "session", 409)
        for text in texts:
            first = next(other for other in texts if other.ask.prompt is text.ask.prompt)
            if first is not text and text.ask.session is None:
                text.leader = first
                first.followers.append(text)
        making.texts = texts
        self.engine.submit(texts)
        self.sessions.busy |= keys
        return making


class Making:
    """Texts of one request while they are made."""

    def __init__(self, outbox: Outbox) -> None:
        self.texts: list[Text] = []
        self._outbox, self._loop = outbox, asyncio.get_running_loop()
        self._queue = asyncio.Queue[tuple[int, Event]]()

    def tell(self, n: int) -> Any:
        begun = False

        def told(event: Event) -> None:
            nonlocal begun
            urgent, begun = not begun or event.finish_reason is not None or event.error is not None, True
            self._outbox.put(self._loop, self._queue.put_nowait, (n, event), urgent)

        return told

    async def events(self) -> AsyncIterator[tuple[int, list[Event]]]:
        """Of all texts, those together that have come, until each has ended. Whoever leaves early cancels them. Raises
        what went wrong."""
        left = len(self.texts)
        try:
            while left:
                come: dict[int, list[Event]] = {}
                waiting = [await self._queue.get()]
                while not self._queue.empty():
                    waiting.append(self._queue.get_nowait())
                for n, event in waiting:
                    if event.error is not None:
                        raise event.error
                    left -= event.finish_reason is not None
                    come.setdefault(n, []).append(event)
                for pair in come.items():
                    yield pair
        finally:
            self.cancel()

    def cancel(self) -> None:
        for text in self.texts:
            text.cancel()


async def unless_gone(request: Request, wanted: Any) -> Any:
    """The result of an awaitable; where the client goes away first, it is cancelled, and this raises ClientGone."""
    task = asyncio.ensure_future(wanted)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def _gone(request: Request) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await request.receive()


def error_answer(error: Exception) -> Any:
    """What a client is told of what went wrong."""
    if isinstance(error, BadRequest):
        return refusal(error.status, str(error), error.param, error.code)
    if isinstance(error, Full):
        return refusal(429, str(error), None, "rate_limit_exceeded", {"retry-after": str(error.seconds)})
    if isinstance(error, UnknownRun):
        return refusal(404, str(error), "model", "model_not_found")
    if isinstance(error, ClientGone):
        return refusal(499, "the client went away")
    if isinstance(error, UserError):
        return refusal(400, str(error))
    return refusal(500, f"{type(error).__name__} in the server")
