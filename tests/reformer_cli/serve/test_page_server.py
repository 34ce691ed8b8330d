"""The page in Chromium against the real server: what it asks for is what the server offers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from builders.browser import text_of, visit
from builders.servers import make_run, served

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


def test_every_request_is_answered(browser: Any, tmp_path: Any) -> None:
    with served(tmp_path, max_batch=8) as server:
        make_run(tmp_path / "runs" / "other")
        page = visit(browser.new_page(), f"{server.url}/")
        refused: list[tuple[str, int]] = []
        page.on("response", lambda found: refused.append((found.url, found.status)) if found.status >= 400 else None)
        page.set_default_timeout(10_000)
        expect(page.locator("#model")).to_have_value("run")
        page.get_by_label("wild").check()
        expect(page.locator("#temperature-say")).to_have_text("1.10, bold")  # as the server says it
        page.get_by_label("How much it writes at a time").select_option("One sentence")
        page.locator("#text").click()
        page.keyboard.insert_text("The \U0001f40b swam. " * 20)
        page.keyboard.press("Control+Enter")
        expect(page.locator("#go")).to_have_text("Stop")
        expect(page.locator("#go")).to_have_text("Go on", timeout=60_000)
        expect(page.locator("#say")).to_have_text("")  # no error
        assert len(text_of(page)) > 242
        page.keyboard.press("Tab")
        expect(page.locator("#ways-list button").first).to_be_focused()
        page.keyboard.press("1")
        page.get_by_role("button", name="Look closer").click()
        page.get_by_role("button", name="Shade surprising words").click()
        expect(page.locator("#shade-legend")).to_be_visible()
        page.get_by_role("button", name="Underline copied words").click()
        expect(page.locator("#copies-say")).to_have_text(re.compile(r"[a-z]\.$"))
        page.locator("#text").focus()
        page.keyboard.press("Control+Home")
        for _ in "The x swam. The x sw":
            page.keyboard.press("ArrowRight")
        page.get_by_role("button", name="What did it remember here?").click()
        expect(page.locator("#remembered-say")).to_have_text(re.compile(r"looked back to|hashed heads"))
        page.get_by_role("navigation").get_by_role("button", name="Texts").click()
        for form in ("md", "docx"):
            with page.expect_download():
                page.get_by_role("button", name=f"(.{form})").click()
        page.get_by_role("button", name="Models").click()
        page.get_by_role("button", name="Write with both").click()
        expect(page.locator("#compare-say")).to_have_text("Both have written.", timeout=60_000)
        assert refused == []
        assert server.client.get("/api/runs/run/metrics?since=-1").json() == {"rows": [], "training": False}
        before = text_of(page)
        server.service.documents.__init__()  # as after a restart: the text must be sent again
        page.locator("#text").focus()
        page.keyboard.press("Control+Home")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#go")).to_have_text("Stop")
        expect(page.locator("#go")).to_have_text("Go on", timeout=60_000)
        assert text_of(page).endswith(before)
        assert page.faults == []
