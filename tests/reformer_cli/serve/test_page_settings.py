"""The page in Chromium: how it writes, what is said of it, and that a text is a text."""

from __future__ import annotations

import re
from typing import Any

import pytest
from builders.browser import visit
from builders.page_server import PageServer

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

WRITTEN = " word0 word1 word2 word3 word4."


def write(page: Any, text: str) -> None:
    page.locator("#text").click()
    page.keyboard.insert_text(text)


def test_it_may_read_the_end_alone(page: Any, server: PageServer) -> None:
    # On a slow machine a novel takes minutes to read; where its end begins stays, or it would be read each time.
    page.get_by_label("How much of your text it reads first").select_option("The last 2,000 words")
    lines = "".join(f"line {n} of a long text\n" for n in range(3000))
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": lines.encode()})
    expect(page.locator("#words")).to_have_text("18,000 words")
    page.locator("#text").focus()
    page.keyboard.press("Control+End")
    for end in (lines, lines + WRITTEN):
        page.keyboard.press("Control+Enter")
        expect(page.locator("#text")).to_have_text(re.compile(re.escape(WRITTEN) + "$"))
        expect(page.locator("#go")).to_have_text("Go on")
        prompt = server.bodies("/v1/completions")[-1]["prompt"]
        assert end.endswith(prompt)
        assert 12_000 <= len(prompt) < 18_000
        assert prompt.startswith("line ")
    first, second = (body["prompt"] for body in server.bodies("/v1/completions"))
    assert second == first + WRITTEN
    assert server.bodies("/api/documents/") == []


def test_text_of_a_model_is_text(page: Any, server: PageServer) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(1)</script>&amp;"
    server.answers["/api/runs"] = lambda _: {"runs": [{"name": evil, "text": evil, "steps": 1, "bits_per_byte": 1.0,
        "age_seconds": 1, "loaded": True, "training": False}], "first": evil}  # fmt: skip
    server.answers["/api/alternatives"] = lambda _: {"texts": [evil]}
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.get_by_role("button", name="Models").click()
    expect(page.locator("#run-list")).to_contain_text(evil)
    write(page, evil)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_contain_text(f"{evil} {evil}0")
    page.keyboard.press("Tab")
    expect(page.locator("#ways-list")).to_contain_text(evil)
    assert page.locator("img, body script").count() == 0


def test_settings_say_how_it_writes_and_are_kept(page: Any, server: PageServer) -> None:
    write(page, "Then")
    page.get_by_label("careful").check()
    expect(page.locator("#temperature-say")).to_have_text("0.70, calm")
    page.locator("#temperature").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_label("How much it writes at a time").select_option("About 100 words")
    page.get_by_text("Finer settings").click()
    page.get_by_label("Leave out the unlikeliest words").fill("0.8")
    page.get_by_label("Avoid repeating itself").fill("1.2")
    page.get_by_label("Number to draw by").fill("7x7")
    page.locator("#model").select_option("sea")
    page.get_by_label("light", exact=True).check()
    page.get_by_label("Size of the text").fill("24")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile("sea4"))
    body = server.bodies("/v1/completions")[0]
    wanted = {
        "preset": "careful",
        "temperature": 0.75,
        "top_p": 0.8,
        "dry_multiplier": 1.2,
        "seed": 77,
        "max_words": 100,
    }
    assert wanted.items() <= body.items()
    assert "stop_at" not in body
    assert body["model"] == "sea"
    again = visit(page.context.new_page(), server.url)
    expect(again.locator("#temperature-say")).to_have_text("0.75, calm")
    expect(again.locator("html")).to_have_attribute("data-theme", "light")
    expect(again.locator("#model")).to_have_value("sea")
    assert again.evaluate("getComputedStyle(document.getElementById('text')).fontSize") == "24px"
    again.get_by_role("button", name="Back to how it was").click()
    expect(again.locator("#temperature-say")).to_have_text("0.95, lively")


def test_what_is_written_is_said_sentence_by_sentence(page: Any, server: PageServer) -> None:
    # A screen reader that is told each token says none.
    write(page, "Then")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#written")).to_have_text(WRITTEN.strip())
    assert page.locator("#written").get_attribute("aria-live") == "polite"


def test_pieces_are_the_text(page: Any) -> None:
    # The text is kept in pieces: each edit must do what it does to one string, and lines must end where pieces do.
    assert (
        page.evaluate("""async () => {
        const { Text, unitsIn } = await import("/page/text.js");
        let seed = 1;
        const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
        const part = () => ["word ", "line\\n", "\\u{1f40b}", "", "x".repeat(random(9000)),
            "a b\\n\\n".repeat(random(3000))][random(6)];
        let plain = "";
        const text = new Text();
        for (let n = 0; n < 250; n += 1) {
            const from = random(plain.length + 1), fresh = part();
            const to = Math.min(plain.length, from + random(n % 9 ? 20 : 30000));
            text.replace(from, to, fresh);
            plain = plain.slice(0, from) + fresh + plain.slice(to);
            const at = random(plain.length + 1);
            if (text.whole() !== plain || text.length !== plain.length) return `text differs after ${n}`;
            if (text.slice(from, at) !== (at > from ? plain.slice(from, at) : "")) return `slice differs after ${n}`;
            const whole = !/[\\udc00-\\udfff]/.test(plain[at] ?? "");
            if (whole && text.points(at) !== [...plain.slice(0, at)].length) return `points differ after ${n}`;
            if (whole && unitsIn(plain, text.points(at)) !== at) return `units differ after ${n}`;
            const wrong = text.pieces.some((piece, k) => piece.length > 40000 || (k && !piece));
            if (wrong) return `a piece is wrong after ${n}`;
        }
        return "same";
    }""")
        == "same"
    )
