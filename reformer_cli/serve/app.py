"""The web application: both APIs, the page's files, and one form for whatever goes wrong."""

from __future__ import annotations

from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from reformer_cli.serve.engine import Full
from reformer_cli.serve.making import ClientGone, Service, error_answer
from reformer_cli.serve.openai_api import OpenAI
from reformer_cli.serve.own_api import OwnAPI
from reformer_cli.serve.requests import BadRequest
from reformer_cli.serve.security import Guard, Rules, refusal
from reformer_cli.utils.errors import UserError

KINDS = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


def page_files() -> dict[str, tuple[bytes, str]]:
    """Name -> (content, type) of what the page is made of, read once: no request names a file on disk."""
    folder = files("reformer_cli.serve") / "page"
    if not folder.is_dir():
        return {}
    found = {}
    for file in folder.iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None and file.is_file():
            found[file.name] = (file.read_bytes(), kind)
    return found


def create_app(service: Service, rules: Rules) -> ASGIApp:
    """Everything behind the guard."""
    known = page_files()

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in known:
            return refusal(404, "there is no such file")
        content, kind = known[name]
        return Response(content, 200, {"cache-control": "no-cache"}, kind)

    async def health(request: Request) -> Response:
        engine = service.engine
        used = len(engine.reading) + len(engine.writing)
        return JSONResponse({"status": "ok", "places_used": used, "waiting": len(engine.waiting)})

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.page(), 200, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def failed(request: Request, error: Exception) -> Response:
        answer: Response = error_answer(error)
        return answer

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refusal(error.status_code, f"{error.detail}: {request.method} {request.url.path}")

    routes = [
        Route("/", page), Route("/page/{name}", page), Route("/health", health), Route("/metrics", metrics),
        *OpenAI(service).routes(), *OwnAPI(service).routes(),
    ]  # fmt: skip
    told = dict.fromkeys((BadRequest, Full, UserError, ClientGone, Exception), failed)
    app = Starlette(routes=routes, exception_handlers={**told, HTTPException: http_error})
    return Guard(app, rules, service.metrics)
