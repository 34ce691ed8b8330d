"""What is refused before anything is computed."""

from __future__ import annotations

import httpx
import pytest
from builders.servers import Served, served

from reformer_cli.serve import security
from reformer_cli.serve.security import Rules


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with served(tmp_path_factory.mktemp("served"), token="secret", origins=["https://write.example.org"]) as found:
        yield found


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "evil.example"}, 421),  # a name that was made to point at this machine
        ({"host": "write.example.org", "origin": "https://write.example.org"}, 200),
        ({"host": "localhost:1"}, 200),
        ({"host": "@localhost:1:2]"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),  # what a form of another site can send without being asked
        ({"authorization": "Bearer secres"}, 401),
        ({"authorization": ""}, 401),
    ],
)
def test_who_may_ask(server: Served, headers: dict[str, str], status: int) -> None:
    answer = server.client.post(
        "/tokenize", content=b'{"prompt": "A"}', headers={"content-type": "application/json", **headers}
    )
    assert answer.status_code == status, answer.text
    if status != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_the_page_needs_no_token_and_may_load_nothing_else(server: Served) -> None:
    answer = httpx.get(f"{server.url}/")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(f"{server.url}/api/runs").status_code == 401
    assert httpx.get(f"{server.url}/metrics").status_code == 401


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "run%00", "x" * 5000])
def test_no_name_reaches_the_file_system(server: Served, name: str) -> None:
    for path in (f"/page/{name}", f"/api/runs/{name}/report", f"/api/runs/{name}/metrics", f"/v1/models/{name}"):
        assert server.client.get(path).status_code in (400, 404)
    assert server.client.post(f"/api/documents/{name}", json={"text": ""}).status_code in (400, 404, 405)
    for body in ({"model": name}, {"session": name}, {"document": name}):
        assert server.client.post("/v1/completions", json={"max_tokens": 1, **body}).status_code in (400, 404)


def test_large_and_damaged_bodies(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MOST_BYTES", 1000)
    known = {"content-type": "application/json"}
    assert server.client.post("/tokenize", json={"prompt": "A" * 2000}).status_code == 413
    for body in (b"", b"{", b"[" * 900, b'{"prompt": 1}', b"\xff", b'{"prompt": "\\ud800"}', b'{"n": NaN}'):
        assert server.client.post("/v1/completions", content=body, headers=known).status_code == 400, body
    assert server.client.put("/tokenize", json={}).status_code == 405


@pytest.mark.parametrize(
    ("host", "asked", "ours"),
    [
        ("127.0.0.1", "192.168.1.5:8017", False),
        ("0.0.0.0", "192.168.1.5:8017", True),
        ("0.0.0.0", "evil.example", False),
        ("::1", "[::1]:8017", True),
        ("box.local", "box.local:8017", True),
    ],
)
def test_hosts(host: str, asked: str, ours: bool) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", asked.encode())]}
    assert (Rules(host).refuses(scope) is None) == ours
