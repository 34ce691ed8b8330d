"""A server with a tiny model, in this process, on a port of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from builders.models import small

from reformer_cli.config.schema import RunConfig
from reformer_cli.runs.run import Run
from reformer_cli.serve.app import create_app
from reformer_cli.serve.engine import Engine
from reformer_cli.serve.library import Library
from reformer_cli.serve.making import Service
from reformer_cli.serve.metrics import Metrics
from reformer_cli.serve.security import Rules
from reformer_cli.serve.sessions import Sessions
from reformer_cli.tokenizers.base import ByteTokenizer


def make_run(path: Path, **changes) -> Run:
    """A run of random weights whose tokens are bytes."""
    model = small(vocab_size=257, **changes)
    run = Run.create(path, RunConfig(model=model.config), ByteTokenizer())
    run.save_weights(model.state_dict())
    run.unlock()
    return run


@dataclass
class Served:
    url: str
    service: Service
    client: httpx.Client

    def post(self, path: str, **body) -> dict:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def text(self, prompt: str, **body) -> str:
        return self.post("/v1/completions", prompt=prompt, **body)["choices"][0]["text"]


@contextmanager
def served(
    folder: Path, token: str | None = None, origins=(), max_batch: int = 4, max_queue: int = 8, **changes
) -> Iterator[Served]:
    """A server of one run, called run, whose working folder this is."""
    before = Path.cwd()
    os.chdir(folder)
    run = make_run(folder / "runs" / "run", **changes)
    library, metrics = Library(run), Metrics()
    engine = Engine(library, metrics, max_batch, max_queue)
    service = Service(library, engine, metrics, Sessions())
    engine.on_end = service.sessions.keep
    engine.start()
    app = create_app(service, Rules("127.0.0.1", token, origins))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
            yield Served(url, service, client)
    finally:
        engine.stop()
        engine.join()
        server.should_exit = True
        thread.join()
        os.chdir(before)
