"""What the page asks for."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from builders.servers import Served, served

from reformer_cli.data.text_chunks import read_text
from reformer_cli.serve.documents import PART


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with served(tmp_path_factory.mktemp("served")) as found:
        yield found


def test_runs_and_their_curves(server: Served) -> None:
    (about,) = server.client.get("/api/runs").json()["runs"]
    assert about["name"] == "run"
    assert about["training"] is False
    rows = [{"step": n, "tokens_per_second": 1.0, "bits_per_byte": 8.0 - n, "secret": "x"} for n in range(3)]
    log = server.service.library.folders()["run"] / "metrics.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n[]\n")
    found = server.client.get("/api/runs/run/metrics?since=0").json()
    assert [row["step"] for row in found["rows"]] == [1, 2]
    assert "secret" not in found["rows"][0]
    report = server.client.get("/api/runs/run/report")
    assert report.status_code == 200
    assert "sandbox allow-scripts" in report.headers["content-security-policy"]
    log.unlink()


def test_alternatives_are_completions(server: Served) -> None:
    found = server.post("/api/alternatives", prompt="The rain", n=3, max_tokens=12)
    assert len(set(found["texts"])) > 1
    for text, seed in zip(found["texts"], found["seeds"], strict=True):
        assert text == server.text("The rain", seed=seed, max_tokens=12)


def test_a_document_is_edited_piece_by_piece(server: Served) -> None:
    """Its text is cut into parts for the tokenizer; a prompt of it is the same text as one that is sent whole."""
    text = "".join(f"Line {n} of the text.\n" for n in range(PART // 4))
    assert server.post("/api/documents/a-1", **{"from": 0, "text": text})["length"] == len(text)
    server.post("/api/documents/a-1", **{"from": 5, "to": 6, "text": "zero é \U0001f600"})
    server.post("/api/documents/a-1", **{"from": 9000, "text": "Here it ends"})
    whole = (text[:5] + "zero é \U0001f600" + text[6:])[:9000] + "Here it ends"
    asked = {"seed": 1, "max_tokens": 10}
    assert server.text("", document="a-1", **asked) == server.text(whole, **asked)
    assert server.text("", document="a-1", at=100, **asked) == server.text(whole[:100], **asked)
    assert server.client.post("/api/documents/a-1", json={"from": 99_999, "text": ""}).status_code == 409
    assert server.client.delete("/api/documents/a-1").status_code == 200
    assert server.client.post("/v1/completions", json={"document": "a-1"}).status_code == 404


def test_probabilities_and_what_was_remembered(server: Served) -> None:
    text = "The cat sat on the mat. The cat"
    tokens = server.post("/api/probabilities", text=text)["tokens"]
    assert "".join(token["text"] for token in tokens) == text
    assert [token["start"] for token in tokens] == list(range(len(text)))
    assert all(token["logprob"] < 0 <= token["rank"] for token in tokens)
    places = server.post("/api/remembered", text=text, position=len(text) - 1)["places"]
    assert all(place["end"] < len(text) and place["distance"] > 0 for place in places)
    assert "unavailable" in server.post("/api/remembered", text="A", position=0)


def test_exports_are_read_back(server: Served, tmp_path) -> None:
    text = "One & <two>.\nA second line.\n\n# Not *bold*\x07"
    for form in ("txt", "md", "docx"):
        answer = server.client.post("/api/export", json={"text": text, "format": form, "title": "A title"})
        assert answer.status_code == 200
        (tmp_path / f"text.{form}").write_bytes(answer.content)
    assert (tmp_path / "text.txt").read_text() == f"A title\n\n{text}"
    assert "\\# Not \\*bold\\*" in (tmp_path / "text.md").read_text()
    assert "word/document.xml" in zipfile.ZipFile(io.BytesIO((tmp_path / "text.docx").read_bytes())).namelist()
    assert "One & <two>." in read_text(str(tmp_path / "text.docx"), False)
    assert server.client.post("/api/export", json={"text": text, "format": "../x"}).status_code == 400
