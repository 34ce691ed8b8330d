"""What keeps a server from starting, in one line; and a whole life of one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from builders.programs import Program


def test_what_keeps_it_from_starting(reformer: Program, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = reformer("serve", "--run", run, "--port", taken.getsockname()[1]).error
        assert "is in use; choose another with --port" in error
    assert "cannot listen on 192.0.2.1" in reformer("serve", "--run", run, "--host", "192.0.2.1").error
    assert "is not an address" in reformer("serve", "--run", run, "--origin", "write.example.org").error
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'reformer-cli[serve]'" in reformer("serve", "--run", run).error


def test_a_run_without_weights(reformer: Program, run: Path) -> None:
    (run / "model.safetensors").unlink()
    assert "no weights yet" in reformer("serve", "--run", run, "--port", 0).error


def test_ctrl_c_saves_sessions(run: Path, tmp_path: Path) -> None:
    """curl's part is here too: a stream is cut off, and its session goes on in `reformer generate`."""
    line = [sys.executable, "-m", "reformer_cli", "serve", "--run", "run", "--port", "0"]
    server = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), server.stderr
    wanted = {"prompt": "the cat", "session": "mine", "max_tokens": 90_000, "stream": True, "dry_multiplier": 0}
    never_ending = {"logit_bias": {"256": -100}}  # the end of a text: one that has ended could not go on below
    body = json.dumps(wanted | never_ending)
    asked = ["curl", "-sN", f"{url}v1/completions", "-H", "content-type: application/json", "-d", body]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline().startswith("data: {")
        server.send_signal(signal.SIGINT)
        assert "[DONE]" in curl.stdout.read()
    _, said = server.communicate(timeout=30)
    assert server.returncode == 0, said
    assert "1 session saved in sessions/" in said
    assert "Traceback" not in said
    kept = tmp_path / "sessions" / "run" / "mine.safetensors"
    again = [*line[:3], "generate", "--run", "run", "--session", str(kept), "--max-tokens", "3"]
    assert subprocess.run(again, cwd=tmp_path, capture_output=True, env=os.environ).returncode == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
