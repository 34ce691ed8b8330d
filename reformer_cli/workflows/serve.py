"""A server that keeps models and their sessions warm; what can be refused is refused before any work."""

from __future__ import annotations

import errno
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from reformer_cli.runs.run import LOCK, WEIGHTS, Run, is_locked
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import backend_reason, keep_freed_memory, pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.workflows.words import rules_of

GRACE = 5  # seconds that open answers have to end after Ctrl-C
SWITCH = 0.0005  # seconds after which the thread that computes lets the one that answers in


@dataclass(frozen=True)
class Options:
    """What `reformer serve` was told. port 0: any that is free; origins: addresses under which a proxy offers it."""

    host: str = "127.0.0.1"
    port: int = 8017
    max_batch: int = 16
    max_queue: int = 64
    time_limit: float = 600.0
    origins: Sequence[str] = ()
    device: str = "auto"


def serve(run: Path | None, options: Options, announce: Callable[[str], None]) -> None:
    """Until Ctrl-C; announce(address) once it can be asked. Raises UserError for what keeps it from starting."""
    try:
        import prometheus_client  # noqa: F401
        import sse_starlette  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UserError(f"the server needs {error.name}", "pip install 'reformer-cli[serve]'") from None
    from reformer_cli.serve.app import create_app
    from reformer_cli.serve.engine import Engine
    from reformer_cli.serve.library import Library
    from reformer_cli.serve.making import Service
    from reformer_cli.serve.metrics import Metrics
    from reformer_cli.serve.security import Rules, is_loopback
    from reformer_cli.serve.sessions import Sessions

    faults = [o for o in options.origins if urlsplit(o).scheme not in ("http", "https") or urlsplit(o).path.strip("/")]
    if faults:
        raise UserError(f"--origin {faults[0]} is not an address", "for example --origin https://write.example.org")
    opened = _checked(run)
    keep_freed_memory()
    where = pick_device(options.device)
    backend_reason(opened.config.model, where)
    listening = _bind(options)
    try:
        library, metrics = Library(opened, where, rules_of), Metrics()
        library.get("")
        engine = Engine(library, metrics, options.max_batch, options.max_queue, options.time_limit)
        service = Service(library, engine, metrics, Sessions())
        engine.on_end = service.sessions.keep
        open_to_all = not is_loopback(options.host)
        token = secrets.token_urlsafe(24) if open_to_all or options.origins else None
        rules = Rules(options.host, token, [origin.rstrip("/") for origin in options.origins])
        config = uvicorn.Config(
            create_app(service, rules), log_level="warning", access_log=False, lifespan="off", server_header=False,
            timeout_graceful_shutdown=GRACE, timeout_keep_alive=30, h11_max_incomplete_event_size=65_536, ws="none",
        )  # fmt: skip

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                engine.stop()  # which ends every answer, so that there is nothing to wait for
                super().handle_exit(sig, frame)

        engine.start()
        sys.setswitchinterval(SWITCH)
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{host}:{listening.getsockname()[1]}/"
        announce(f"{address}#token={token}" if token else address)
        try:
            Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn hands it on once it has ended
            pass
        finally:
            engine.stop()
            engine.join()
            if saved := service.sessions.save():
                say(f"{saved} session{'s' if saved > 1 else ''} saved in {service.sessions.folder}/")
    finally:
        listening.close()


def _checked(run: Path | None) -> Run:
    """A run that can write."""
    opened = Run.open(run)
    if opened.config.data.image_size is not None:
        raise UserError(f"{opened.path} was trained on images", "they have `reformer generate`")
    if not (opened.path / WEIGHTS).is_file() and is_locked(opened.path / LOCK):
        raise UserError(
            f"{opened.path} is still training and has no weights yet", "wait for its first, or name another --run"
        )
    return opened


def _bind(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=256)
    except OSError as error:
        why = {errno.EADDRINUSE: "is in use", errno.EACCES: "needs more rights"}.get(error.errno or 0)
        if why is not None:
            raise UserError(f"port {options.port} {why}", "choose another with --port") from None
        raise UserError(f"cannot listen on {options.host}: {error.strerror}", "give this machine's --host") from None
