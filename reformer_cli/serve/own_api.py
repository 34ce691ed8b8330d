"""What the page asks for, in JSON: runs, presets, alternatives, documents, and what the model thinks of a text."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reformer_cli.report.page import page
from reformer_cli.report.records import number, read_records
from reformer_cli.runs.run import METRICS
from reformer_cli.sampling.presets import PRESETS
from reformer_cli.serve.copied import copied
from reformer_cli.serve.export import TYPES, exported
from reformer_cli.serve.making import Service, unless_gone
from reformer_cli.serve.remembered import remembered
from reformer_cli.serve.requests import Alternatives, BadRequest, Edit, Export, OfPlace, OfText, parsed
from reformer_cli.serve.scores import score

SAID = {
    "plain": "Varied, and close to how the training text reads.",
    "careful": "Keeps to likely words and avoids repeating itself: calmer, with fewer surprises.",
    "wild": "Takes unlikely turns while it leaves out nonsense.",
    "verse": "Allows lines to come again, as refrains do.",
}
MOST_ROWS = 5000  # of a curve, at once
CURVE = ("step", "tokens", "seconds", "bits_per_byte", "val_bits_per_byte", "learning_rate", "tokens_per_second")


class OwnAPI:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def routes(self) -> list[Route]:
        post = {
            "/api/alternatives": self.alternatives, "/api/probabilities": self.probabilities,
            "/api/copies": self.copies, "/api/remembered": self.remembered, "/api/export": self.export,
            "/api/documents/{key}": self.edit,
        }  # fmt: skip
        get = {
            "/api/runs": self.runs, "/api/presets": self.presets, "/api/runs/{name}/report": self.report,
            "/api/runs/{name}/metrics": self.curve,
        }  # fmt: skip
        return [
            *(Route(path, handler) for path, handler in get.items()),
            *(Route(path, handler, methods=["POST"]) for path, handler in post.items()),
            Route("/api/documents/{key}", self.forget, methods=["DELETE"]),
        ]

    def runs(self, request: Request) -> Response:
        return JSONResponse({"runs": self.service.library.about(), "first": self.service.library.first})

    async def presets(self, request: Request) -> Response:
        found = [{"name": name, "numbers": numbers, "said": SAID[name]} for name, numbers in PRESETS.items()]
        return JSONResponse({"presets": found})

    async def alternatives(self, request: Request) -> Response:
        body = parsed(Alternatives, await request.body())
        making = self.service.submit(self.service.asks(body, [body.prompt]))
        texts = [""] * body.n

        async def all_of_them() -> None:
            async for n, events in making.events():
                texts[n] += "".join(event.text for event in events)

        await unless_gone(request, all_of_them())
        return JSONResponse({"texts": texts, "seeds": [text.sample.seed for text in making.texts]})

    async def probabilities(self, request: Request) -> Response:
        body = parsed(OfText, await request.body())

        def work(loaded: Any) -> Any:
            return (yield from score(loaded, loaded.tokenizer.encode(body.text).tolist()))

        found = await self.service.call(request, body.model, work)
        keys = ("text", "start", "end", "logprob", "rank")
        return JSONResponse({"tokens": [{key: getattr(one, key) for key in keys} for one in found]})

    async def copies(self, request: Request) -> Response:
        body = parsed(OfText, await request.body())
        run = self.service.library.run(self.service.name(body.model))
        found = await run_in_threadpool(copied, run, body.text)
        return JSONResponse({"unavailable": found} if isinstance(found, str) else {"copies": found})

    async def remembered(self, request: Request) -> Response:
        body = parsed(OfPlace, await request.body())
        found = await self.service.call(request, body.model, remembered(body.text, body.position))
        if isinstance(found, str):
            return JSONResponse({"unavailable": found})
        return JSONResponse({"places": [asdict(place) for place in found]})

    async def export(self, request: Request) -> Response:
        body = parsed(Export, await request.body())
        disposition = {"content-disposition": f'attachment; filename="text.{body.format}"'}
        return Response(exported(body.text, body.format, body.title), 200, disposition, TYPES[body.format])

    async def edit(self, request: Request) -> Response:
        length = self.service.documents.edit(self._key(request), parsed(Edit, await request.body()))
        return JSONResponse({"length": length})

    async def forget(self, request: Request) -> Response:
        self.service.documents.forget(self._key(request))
        return JSONResponse({})

    def _key(self, request: Request) -> str:
        key = str(request.path_params["key"])
        if not (key.isascii() and key.replace("-", "").replace("_", "").isalnum() and len(key) <= 64):
            raise BadRequest("a document's id is of letters, digits, - and _", "document")
        return key

    def report(self, request: Request) -> Response:
        """The page of `reformer report`, which may run its own script and nothing else."""
        run = self.service.library.run(self.service.name(request.path_params["name"]))
        made = f"Written {time.strftime('%Y-%m-%d %H:%M')} by reformer {version('reformer-cli')}."
        text = page(run.path.resolve().name, run.config, read_records(run.path / METRICS), made)
        script = files("reformer_cli.report").joinpath("cursor.js").read_bytes()
        digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
        policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; frame-ancestors 'none'"
        return Response(text, 200, {"content-security-policy": f"{policy}; sandbox allow-scripts"}, "text/html")

    def curve(self, request: Request) -> Response:
        """Rows of metrics.jsonl after a step: {"rows": [...], "training": whether more are to come}."""
        name = self.service.name(request.path_params["name"])
        since = request.query_params.get("since", "-1")
        if not since.removeprefix("-").isdecimal() or len(since) > 12:
            raise BadRequest("since is a step", "since")
        about = next((one for one in self.service.library.about() if one["name"] == name), None)
        rows: list[dict[str, float]] = []
        path = self.service.library.run(name).path / METRICS
        with open(path if path.is_file() else os.devnull, "rb") as file:  # a run that was imported has none
            while (line := file.readline(2**20)) and len(rows) < MOST_ROWS:
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if not isinstance(record, dict) or (number(record.get("step")) or -1) <= int(since):
                    continue
                rows.append({key: value for key in CURVE if (value := number(record.get(key))) is not None})
        return JSONResponse({"rows": rows, "training": about is not None and about["training"]})
