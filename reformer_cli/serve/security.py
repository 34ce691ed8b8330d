"""Who may ask: the token, the Host and Origin of a request, its size and time; what a browser may do with answers."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reformer_cli.serve.metrics import Metrics

MOST_BYTES = 32 * 2**20  # of a request's body
MOST_SECONDS = 60  # in which a body must have come
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
OPEN = ("/", "/health", "/favicon.ico")  # without a token: files of the program itself, which tell nothing


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Rules:
    """token: what a request must show; None: nothing. host: what the server listens on. origins: addresses under which
    a proxy offers it, such as https://write.example.org."""

    host: str
    token: str | None = None
    origins: Sequence[str] = ()

    def refuses(self, scope: Scope) -> tuple[int, str] | None:
        """(status, why), or None."""
        headers = Headers(scope=scope)
        if not self._is_ours(headers.get("host", "")):
            return 421, "the Host of the request is not this server's"
        origin = headers.get("origin")
        own = {f"{scheme}://{headers.get('host', '')}" for scheme in ("http", "https")} | set(self.origins)
        if origin is not None and origin not in own:
            return 403, "requests from another origin are refused"
        if origin is None and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "requests from another site are refused"
        if scope["method"] not in ("GET", "HEAD", "POST", "DELETE"):
            return 405, "only GET, POST and DELETE are known"
        if scope["method"] == "POST" and not headers.get("content-type", "").startswith("application/json"):
            return 415, "Content-Type must be application/json"
        path = scope["path"]
        if self.token is not None and path not in OPEN and not path.startswith("/page/"):
            shown = headers.get("authorization", "")
            if not hmac.compare_digest(shown.encode(), f"Bearer {self.token}".encode()):
                return 401, "a token is required: Authorization: Bearer TOKEN, as `reformer serve` printed it"
        return None

    def _is_ours(self, host: str) -> bool:
        """DNS rebinding: a name that was made to point here is refused; with a token, an address is enough."""
        if host in {urlsplit(origin).netloc for origin in self.origins}:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self.host) or is_loopback(name):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return not is_loopback(self.host)


class Guard:
    """Applies the rules to every request, before anything else sees it."""

    def __init__(self, app: ASGIApp, rules: Rules, metrics: Metrics) -> None:
        self.app, self.rules, self.metrics = app, rules, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.answers.labels(message["status"]).inc()
                known = {name for name, _ in message["headers"]}
                added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in known]
                if b"cache-control" not in known:
                    added.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        if (refused := self.rules.refuses(scope)) is not None:
            await refusal(*refused)(scope, receive, guarded)
            return
        if scope["method"] == "POST":
            body = await _body(receive)
            if not isinstance(body, bytes):
                await refusal(*body)(scope, receive, guarded)
                return
            receive = _with_body(body, receive)
        await self.app(scope, receive, guarded)


async def _body(receive: Receive) -> bytes | tuple[int, str]:
    """All of it, or the status and why it is refused."""
    parts, size = [], 0
    try:
        with anyio.fail_after(MOST_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return 400, "the request was broken off"
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MOST_BYTES:
                    return 413, f"the request has more than {MOST_BYTES:,} bytes"
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        return 408, f"the request did not come in {MOST_SECONDS} s"


def _with_body(body: bytes, receive: Receive) -> Receive:
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


def refusal(
    status: int, message: str, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error in OpenAI's form."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    if status == 401:
        headers = {"www-authenticate": "Bearer"}
    return JSONResponse({"error": error}, status, headers)
