"""Chromium with the writing page in it; tests that want it are left out where Playwright or the browser is not."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.page_server import PageServer

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
AXE = "axe-core@4.14.1"  # MPL-2.0; fetched, not kept here


def chromium() -> str:
    """The path of Debian's, or a skip."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    return found or pytest.skip("no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")  # not longer: while Playwright runs, nothing else in the process can use asyncio
def browser() -> Iterator[Any]:
    path = chromium()
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def _server() -> Iterator[PageServer]:
    one = PageServer()
    yield one
    one.shutdown()
    one.server_close()


@pytest.fixture
def server(_server: PageServer) -> PageServer:
    """One for all tests of a file; forgets what the one before did."""
    _server.reset()
    return _server


@pytest.fixture(scope="module")
def _context(browser: Any) -> Iterator[Any]:
    one = browser.new_context(accept_downloads=True, locale="en-GB")
    one.grant_permissions(["clipboard-read", "clipboard-write"])
    one.set_default_timeout(8000)
    one.new_page()
    yield one
    one.close()


def visit(tab: Any, url: str) -> Any:
    """The page in a tab, ready to write in. `faults` are what its scripts threw and what its policy refused."""
    tab.faults = []
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.on("console", lambda said: tab.faults.append(said.text) if "Content Security" in said.text else None)
    tab.goto(url)
    tab.wait_for_selector("html[data-ready]")
    return tab


@pytest.fixture
def page(_context: Any, server: PageServer) -> Iterator[Any]:
    """The page of a new user: nothing is kept in the browser."""
    tab, *others = _context.pages
    for other in others:
        other.close()
    tab.goto("about:blank")
    session = _context.new_cdp_session(tab)
    session.send("Storage.clearDataForOrigin", {"origin": server.url.rstrip("/"), "storageTypes": "all"})
    tab.goto(server.url + "health")
    tab.evaluate("sessionStorage.clear()")
    tab.set_viewport_size({"width": 1280, "height": 800})
    yield visit(tab, server.url)
    assert tab.faults == []


def text_of(page: Any) -> str:
    """What the editor shows, as the browser has it."""
    return str(page.evaluate("document.getElementById('text').textContent"))


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core; a skip where npm cannot fetch it."""
    folder: Path = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("no npm to fetch axe-core with")
    call = ["npm", "pack", AXE, "--prefer-offline", "--fetch-retries=0", "--silent"]
    if subprocess.run(call, cwd=folder, capture_output=True, timeout=60).returncode:
        pytest.skip("axe-core cannot be fetched")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()
