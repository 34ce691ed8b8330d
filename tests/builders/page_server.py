"""A stand-in for the server behind the writing page: it answers at once, and as a test wants it to.

Files and policy are the real ones; what it writes is counted words, so that a test knows which must come.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import reformer_cli

PAGE = Path(reformer_cli.__file__).parent / "serve" / "page"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
RUNS = [
    {"name": "starter", "text": "English novels", "steps": 12000, "bits_per_byte": 1.71, "age_seconds": 90000,
     "loaded": True, "training": False},
    {"name": "sea", "text": "moby.txt", "steps": 300, "bits_per_byte": 2.2, "age_seconds": 30, "loaded": False,
     "training": True},
]  # fmt: skip


class PageServer(ThreadingHTTPServer):
    """seen: (path, body) of each request. words: how many a continuation has; pause: seconds between two of them."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.reset()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def reset(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.documents: dict[str, str] = {}
        self.token: str | None = None
        self.words, self.pause, self.steps = 5, 0.0, 3
        self.answers: dict[str, Callable[[Any], Any]] = {}  # path -> what it says instead, or (status, that)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def bodies(self, path: str) -> list[Any]:
        return [body for there, body in self.seen if there.startswith(path)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up is no error."""

    def context(self, body: Any) -> str | None:
        """The text that a request goes on from; None: of a document that is not known."""
        if "document" not in body:
            return str(body["prompt"])
        text = self.documents.get(body["document"])
        return None if text is None else text[: body["at"]]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"  # one connection for the page's many files

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        name = "index.html" if path == "/" else path.removeprefix("/page/")
        if path == "/" or (path.startswith("/page/") and "/" not in name and (PAGE / name).is_file()):
            return self._send(200, (PAGE / name).read_bytes(), KINDS[Path(name).suffix])
        if path == "/health":
            return self._json({"status": "ok"})
        self._answer(path, None)
        return None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self.path, body)

    def _answer(self, path: str, body: Any) -> None:
        token = self.server.token
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            return self._error(401, "a token is required")
        self.server.seen.append((path, body))
        if path in self.server.answers:
            answer = self.server.answers[path](body)
            return self._json(*(reversed(answer) if isinstance(answer, tuple) else (answer,)))
        if path == "/v1/completions":
            return self._complete(body)
        if path.startswith("/api/documents/"):
            name = path.rpartition("/")[2]
            old = self.server.documents.get(name, "")
            if body["from"] > len(old):
                return self._error(409, "this document begins later")
            self.server.documents[name] = old[: body["from"]] + body["text"]
            return self._json({"length": len(self.server.documents[name])})
        return self._api(path, body)

    def _api(self, path: str, body: Any) -> None:
        if path == "/api/runs":
            return self._json({"runs": RUNS, "first": "starter"})
        if path == "/api/presets":
            names = {
                "plain": {},
                "careful": {"temperature": 0.7, "top_p": 0.9},
                "wild": {"temperature": 1.1},
                "verse": {},
            }
            return self._json({"presets": [{"name": n, "said": "", "numbers": v} for n, v in names.items()]})
        if path == "/api/alternatives":
            if self.server.context(body) is None:
                return self._error(404, "no such document")
            return self._json({"texts": [f" way {n + 1}." for n in range(body["n"])]})
        if path == "/api/probabilities":
            return self._json({"tokens": list(_tokens(body["text"]))})
        if path == "/api/copies":
            at = body["text"].find("Call me")
            copy = {
                "start": at,
                "end": at + 15,
                "words": 3,
                "source": "moby.txt",
                "line": 12,
                "around": "Call me Ishmael. Some",
            }
            return self._json({"copies": [copy] if at >= 0 else []})
        if path == "/api/remembered":
            places = [
                {"start": 0, "end": 4, "weight": 0.5, "distance": 40},
                {"start": 5, "end": 9, "weight": 0.1, "distance": 30},
            ]
            return self._json({"places": places})
        if path == "/api/export":
            return self._send(200, b"PK" + body["text"].encode(), "application/octet-stream")
        if path.endswith("/metrics"):
            self.server.steps += 1
            rows = [
                {"step": n, "bits_per_byte": 3 / (1 + n), "val_bits_per_byte": 2.0} for n in range(self.server.steps)
            ]
            return self._json({"rows": rows})
        if path.endswith("/report"):
            return self._send(200, b"<title>report</title>", "text/html")
        return self._error(404, "there is nothing here")

    def _complete(self, body: Any) -> None:
        context = self.server.context(body)
        if context is None:
            return self._error(404, "no such document")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        name = body["model"] if body["model"] != "starter" else "word"
        for n in range(self.server.words):
            self._event({"choices": [{"index": 0, "text": f" {name}{n}", "finish_reason": None}]})
            time.sleep(self.server.pause)
        self._event({"choices": [{"index": 0, "text": ".", "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")
        return None

    def _event(self, data: Any) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def _error(self, status: int, message: str) -> None:
        self._json({"error": {"message": message, "type": "invalid_request_error"}}, status)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", POLICY)
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(data)


def _tokens(text: str) -> Iterator[dict[str, Any]]:
    """Each word a token; one of more than five letters is a surprise."""
    at = 0
    for word in text.split(" "):
        logprob = -0.1 if len(word) <= 5 else -8.0
        yield {
            "text": word,
            "start": at,
            "end": at + len(word),
            "logprob": logprob,
            "rank": 0 if len(word) <= 5 else 899,
        }
        at += len(word) + 1
