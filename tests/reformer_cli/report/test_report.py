"""The page of a run: whole in itself, honest about what was logged, and nothing in it is taken for HTML."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from builders.programs import TINY, Program

from reformer_cli.report.axes import byte_ticks, ticks, time_ticks
from reformer_cli.report.records import MOST_POINTS, Series, read_records

TITLES = (
    "Loss, nats per token", "Bits per byte of text", "Learning rate", "Speed, tokens per second", "Memory",
    "Gradient norm", "Bucket balance, effective buckets",
)  # fmt: skip


@pytest.fixture
def watched(reformer: Program, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of twelve steps with samples."""
    monkeypatch.setattr("reformer_cli.workflows.training_run.SAMPLE_TOKENS", 5)
    more = ["--set", "eval.every=4", "--set", "context_schedule=[[16,0.5]]"]
    result = reformer("train", text, *TINY, *more, "--steps", 12, "--run", tmp_path / "run")
    assert result.status == 0, result.err
    return tmp_path / "run"


def test_the_page_has_everything(reformer: Program, watched: Path) -> None:
    result = reformer("report", watched)
    assert result.status == 0, result.err
    page = (watched / "report.html").read_text()
    assert str(watched / "report.html") in result.err
    for title in (*TITLES, "Context, tokens"):
        assert f"<figcaption>{title}</figcaption>" in page
    assert page.count('<svg class="tokens"') == page.count('<svg class="seconds"') == len(TITLES) + 1
    for name in ("Samples", "Evaluations", "Configuration", "context_schedule", "[[16, 0.5]]"):
        assert name in page
    best = min(r.get("val_bits_per_byte", 99) for r in records(watched))
    assert f"<b>{best:.3f}</b><span>best held-out bits/byte</span>" in page
    assert "<b>12</b><span>steps</span>" in page


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_nothing_is_fetched(reformer: Program, watched: Path) -> None:
    page = reformer("report", watched, "--output", "-").out
    assert not re.search(r"https?:|//[a-z]|\bsrc=|href=|@import|url\(", page)
    assert "default-src 'none'" in page


def test_what_a_run_says_is_text(reformer: Program, watched: Path) -> None:
    """Samples, problems and names of a shared run may hold anything."""
    evil = "</pre><script>alert(1)</script>"
    with open(watched / "metrics.jsonl", "a") as file:
        for record in (
            {"step": 13, "sample": evil},
            {"step": 13, "loss": None, "tokens_per_second": 1, "skipped": evil},
            {"step": 13, "val_bits_per_byte": 1.5, evil: 2},
            {"step": 13, "val_bits_per_byte": float("nan"), "effective_buckets": [[1], "x", None, True]},
            {"step": 10**400, "loss": 10**400, "tokens_per_second": 10**400},
            {"step": "12", "sample": 5},
            [1, 2],
        ):
            file.write(json.dumps(record) + "\n")
        file.write('{"step": 1, "loss"\n' + "[" * 100_000 + "\n\0\n")
    with open(watched / "metrics.jsonl", "ab") as file:
        file.write(b"\xff\xfe\n")
    result = reformer("report", watched, "--output", "-")
    assert result.status == 0, result.err
    assert evil not in result.out
    assert "&lt;script&gt;alert(1)" in result.out
    assert not re.search(r"[^a-z]nan[^a-z]", result.out, re.IGNORECASE)


def test_the_plot(reformer: Program, watched: Path) -> None:
    out = reformer("report", "--run", watched, "--plot").out
    assert "bits/byte: ⠤ training" in out
    assert "●" in out
    assert out.count("┤") == 16
    assert not (watched / "report.html").exists()


def test_runs_that_have_not_begun(reformer: Program, watched: Path) -> None:
    (watched / "metrics.jsonl").unlink()
    assert "No step was logged yet" in reformer("report", watched, "--output", "-").out
    assert "no step was logged yet" in reformer("report", watched, "--plot").out


def test_mistakes(reformer: Program, watched: Path) -> None:
    assert "two runs" in reformer("report", watched, "--run", watched).error
    assert "is not a run directory" in reformer("report", "nowhere").error
    assert "there is no folder no" in reformer("report", watched, "--output", "no/such/place.html").error
    assert "--plot writes no page" in reformer("report", watched, "--plot", "--output", "x.html").error


def test_long_runs_are_thinned_to_their_means() -> None:
    series = Series("x")
    for n in range(10_007):
        series.add(n, n / 10, float(n % 2))
    thin = series.thin()
    assert len(thin.y) == MOST_POINTS
    assert all(0.4 < y < 0.6 for y in thin.y)
    assert thin.tokens == sorted(thin.tokens)
    assert series.smooth().y[-1] == pytest.approx(0.5, abs=0.05)


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert time_ticks(0, 7300) == [0, 1800, 3600, 5400, 7200]
    assert byte_ticks(0, 2**30)[:3] == [0, 200 * 2**20, 400 * 2**20]
    assert ticks(1.0, 1.0001)[0] >= 1.0


def test_seconds_of_a_step_are_accounted_for(watched: Path) -> None:
    found = read_records(watched / "metrics.jsonl")
    assert found.total("step_seconds") > 0
    assert found.steps == 12
    assert found.tokens == 12 * 64
    assert len(found.samples) == len(found.validations) == 3


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


def first_pixel(png: Path) -> tuple[int, ...]:
    """Of a screenshot: the page's background."""
    data, place, packed = png.read_bytes(), 8, b""
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            packed += data[place + 8 : place + 8 + size]
        place += 12 + size
    return tuple(zlib.decompress(packed)[1:4])  # no filter changes the first pixel


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize(("scheme", "light"), [(1, True), (0, False)])
def test_in_a_browser(reformer: Program, watched: Path, tmp_path: Path, scheme: int, light: bool) -> None:
    assert reformer("report", watched).status == 0
    page = watched / "report.html"
    page.write_text(
        page.read_text().replace("const tip", "addEventListener('error', () => document.title = 'broken');const tip")
    )
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--blink-settings=preferredColorScheme={scheme}",
    ]
    shot = tmp_path / "shot.png"
    run = {
        "capture_output": True,
        "timeout": 120,
        "cwd": tmp_path,
        "env": {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    }
    subprocess.run([*command, "--window-size=900,900", f"--screenshot={shot}", page.as_uri()], check=True, **run)
    assert (first_pixel(shot)[0] > 200) == light
    dom = subprocess.run([*command, "--dump-dom", page.as_uri()], check=True, **run).stdout.decode()
    assert "<title>run</title>" in dom  # no script failed
    assert dom.count("<figure>") == len(TITLES) + 1
