"""OpenAI's API, as far as a base model has it: models, completions, chat as joined text; tokenize as vLLM has it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reformer_cli.serve.making import Making, Service, error_answer, unless_gone
from reformer_cli.serve.requests import BadRequest, Chat, Completion, Detokenize, Drawn, Tokenize, parsed
from reformer_cli.serve.scores import Scored, score
from reformer_cli.serve.texts import Event

AS_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # made once: it is as dear as a chunk


@dataclass
class Choice:
    """One text as it grows: what completions say of it."""

    index: int
    pieces: list[str]
    echo: str = ""
    scored: list[Scored] = field(default_factory=list)
    logprobs: int | None = None
    offset: int = 0

    def chunk(self, events: Sequence[Event]) -> dict[str, Any]:
        """A choice of a chunk, in the form of completions."""
        text, ended = "".join(event.text for event in events), reason(events[-1].finish_reason)
        found = {"index": self.index, "text": text, "logprobs": None, "finish_reason": ended}
        if self.logprobs is not None:
            found["logprobs"] = self._of_events(events)
        return found

    def _of_events(self, events: Sequence[Event]) -> dict[str, Any]:
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for event in events:
            if event.token is not None:
                piece = self.pieces[event.token]
                top = {self.pieces[token]: value for token, value in event.top} | {piece: event.logprob}
                for name, value in zip(found, (piece, event.logprob, top, self.offset), strict=True):
                    found[name].append(value)
                self.offset += len(piece)
        return found

    def of_prompt(self) -> dict[str, Any]:
        """The prompt's own tokens, where it is echoed."""
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for one in self.scored:
            found["tokens"].append(one.text)
            found["token_logprobs"].append(one.logprob)
            found["top_logprobs"].append({self.pieces[t]: v for t, v in one.top} if one.top else None)
            found["text_offset"].append(one.start)
        self.offset = len(self.echo)
        return found


def reason(found: str | None) -> str | None:
    """OpenAI knows stop and length."""
    return {"end": "stop", "interrupted": "length", "cancelled": "length"}.get(found or "", found)


class OpenAI:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self.service, self.began = service, int(time.time())

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.models), Route("/v1/models/{name}", self.model),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
        ]  # fmt: skip

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self.service.library.folders()]})

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._model(self.service.name(request.path_params["name"])))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.began, "owned_by": "reformer"}

    async def tokenize(self, request: Request) -> Response:
        body = parsed(Tokenize, await request.body())
        tokenizer = self.service.library.run(self.service.name(body.model)).tokenizer()
        tokens = tokenizer.encode(body.prompt).tolist()
        return JSONResponse({"tokens": tokens, "count": len(tokens)})

    async def detokenize(self, request: Request) -> Response:
        body = parsed(Detokenize, await request.body())
        tokenizer = self.service.library.run(self.service.name(body.model)).tokenizer()
        if not all(0 <= token < tokenizer.vocab_size for token in body.tokens):
            raise BadRequest(f"tokens are from 0 to {tokenizer.vocab_size - 1}", "tokens")
        return JSONResponse({"prompt": tokenizer.decode(np.array(body.tokens, np.int32))})

    async def completions(self, request: Request) -> Response:
        body = parsed(Completion, await request.body())
        prompts: list[Any] = body.prompt if isinstance(body.prompt, list) else [body.prompt]
        if prompts and isinstance(prompts[0], int):
            prompts = [prompts]
        if not prompts:
            raise BadRequest("prompt is an empty list", "prompt")
        asks = self.service.asks(body, prompts, body.logprobs or 0)
        choices = []
        for n, ask in enumerate(asks):
            pieces = (await self.service.call(request, ask.run, _pieces)) if body.logprobs is not None else []
            choices.append(Choice(n, pieces, logprobs=body.logprobs))
        if body.echo:
            for n in range(len(prompts)):
                text, scored = await self.service.call(
                    request, body.model, _echo(asks[n * body.n].prompt, body.logprobs)
                )
                for choice in choices[n * body.n : (n + 1) * body.n]:
                    choice.echo, choice.scored = text, scored
        making = self.service.submit(asks)
        answer = Answer("cmpl-", "text_completion", asks[0].run, choices, making)
        if body.stream:
            return stream(answer.chunks(body))
        return JSONResponse(await unless_gone(request, answer.whole()))

    async def chat(self, request: Request) -> Response:
        body = parsed(Chat, await request.body())
        if body.max_completion_tokens is not None:
            assert body.model_extra is not None
            body.model_extra["max_tokens"] = body.max_completion_tokens
        asks = self.service.asks(body, [body.prompt], body.top_logprobs)
        pieces = (await self.service.call(request, asks[0].run, _pieces)) if body.logprobs else []
        choices = [Choice(n, pieces, logprobs=body.top_logprobs if body.logprobs else None) for n in range(body.n)]
        answer = ChatAnswer("chatcmpl-", "chat.completion", asks[0].run, choices, self.service.submit(asks))
        if body.stream:
            return stream(answer.chunks(body))
        return JSONResponse(await unless_gone(request, answer.whole()))


def _pieces(loaded: Any) -> Any:
    return loaded.pieces
    yield


def _echo(prompt: Any, logprobs: int | None) -> Any:
    """The prompt as the model is shown it, and its scores."""

    def work(loaded: Any) -> Any:
        known = prompt(loaded, True)
        text = loaded.tokenizer.decode(np.array(known.whole, np.int32))
        return text, (yield from score(loaded, known.whole, logprobs)) if logprobs is not None else []

    return work


@dataclass
class Answer:
    """Of a request for completions: whole, or in chunks."""

    prefix: str
    kind: str
    model: str
    choices: list[Choice]
    making: Making
    made: int = 0
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = self.prefix + uuid.uuid4().hex

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def usage(self) -> dict[str, int]:
        prompt = sum(len(text.ids) for text in self.making.texts)
        return {"prompt_tokens": prompt, "completion_tokens": self.made, "total_tokens": prompt + self.made}

    async def chunks(self, body: Drawn) -> AsyncIterator[ServerSentEvent]:
        """As server-sent events, the last [DONE]; what goes wrong meanwhile is one of them."""
        head = self.head(self.chunk_kind)
        try:
            for one in self.first():
                yield sent({**head, "choices": [one]})
            async for n, events in self.making.events():
                self.made += sum(event.token is not None for event in events)
                if (chunk := self.chunk(self.choices[n], events)) is not None:
                    yield sent({**head, "choices": [chunk]})
            if body.stream_options is not None and body.stream_options.include_usage:
                yield sent({**head, "choices": [], "usage": self.usage()})
            yield ServerSentEvent("[DONE]", sep="\n")
        except Exception as error:
            yield ServerSentEvent(error_answer(error).body.decode(), sep="\n")
        finally:
            self.making.cancel()

    chunk_kind = "text_completion"

    def first(self) -> list[dict[str, Any]]:
        found = []
        for choice in self.choices:
            if choice.echo or choice.scored:
                of_prompt = choice.of_prompt() if choice.logprobs is not None else None
                found.append({"index": choice.index, "text": choice.echo, "logprobs": of_prompt, "finish_reason": None})
        return found

    def chunk(self, choice: Choice, events: Sequence[Event]) -> dict[str, Any] | None:
        """None: there is nothing to be said yet."""
        if choice.logprobs is not None or any(event.text or event.finish_reason for event in events):
            return choice.chunk(events)
        return None

    async def whole(self) -> dict[str, Any]:
        """All of it at once."""
        found: list[dict[str, Any]] = [{"index": c.index, "text": "", "logprobs": None} for c in self.choices]
        for one in Answer.first(self):
            found[one["index"]].update(one)
        async for n, events in self.making.events():
            self.made += sum(event.token is not None for event in events)
            new: dict[str, Any] = self.choices[n].chunk(events)
            old = found[n]
            old["text"] += new["text"]
            old["finish_reason"] = new["finish_reason"]
            if new["logprobs"] is not None:
                old["logprobs"] = old["logprobs"] or {name: [] for name in new["logprobs"]}
                for name, values in new["logprobs"].items():
                    old["logprobs"][name] += values
        return {**self.head(self.kind), "choices": [self.choice(one) for one in found], "usage": self.usage()}

    def choice(self, found: dict[str, Any]) -> dict[str, Any]:
        """Of a whole answer, of that in the form of completions."""
        return found


class ChatAnswer(Answer):
    """The same in the form of chat."""

    chunk_kind = "chat.completion.chunk"

    def first(self) -> list[dict[str, Any]]:
        delta = {"role": "assistant", "content": ""}
        return [{"index": c.index, "delta": delta, "logprobs": None, "finish_reason": None} for c in self.choices]

    def chunk(self, choice: Choice, events: Sequence[Event]) -> dict[str, Any] | None:
        if (one := super().chunk(choice, events)) is None:
            return None
        delta = {"content": one["text"]} if one["finish_reason"] is None or one["text"] else {}
        return {
            "index": choice.index, "delta": delta, "logprobs": _of_chat(one["logprobs"]),
            "finish_reason": one["finish_reason"],
        }  # fmt: skip

    def choice(self, found: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": found.pop("text"), "refusal": None}
        return {**found, "message": message, "logprobs": _of_chat(found["logprobs"])}


def _of_chat(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """logprobs of completions in chat's form."""
    if found is None:
        return None

    def one(token: str, value: float) -> dict[str, Any]:
        return {"token": token, "logprob": value, "bytes": list(token.encode())}

    each = zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True)
    return {"content": [{**one(t, v), "top_logprobs": [one(*pair) for pair in top.items()]} for t, v, top in each]}


def sent(value: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(AS_JSON.encode(value), sep="\n")


def stream(chunks: AsyncIterator[ServerSentEvent]) -> EventSourceResponse:
    return EventSourceResponse(chunks, sep="\n", ping=15, send_timeout=60)
