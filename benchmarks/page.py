"""How the writing page bears a long text: what a key costs, in Chromium, with 3 MB of text open (600,000 words).

    PYTHONPATH=.:tests python benchmarks/page.py [--words 600000]

Of each key: the browser's processor time on the page (its tasks: script, style, layout; it does not count waiting), and
the time from the key to the frame that shows it, which on a busy machine counts the others too. Keys are typed at the
start, in the middle and at the end. Also: opening the text, and a continuation of 200 tokens streamed into it, of which
the processor time a token. Needs Playwright and Chromium. Prints a table; appends to results.csv.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import record
from builders.browser import chromium, visit
from builders.page_server import PageServer
from playwright.sync_api import expect, sync_playwright

TYPED = "It was a dark and stormy night, and the rain fell in torrents. "
FRAMES = """() => { window.frames_ = []; addEventListener("keydown", (event) => { const begun = event.timeStamp;
    requestAnimationFrame(() => setTimeout(() => frames_.push(performance.now() - begun))); }, true); }"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=600_000)
    words = parser.parse_args().words
    sentence = "There was a steaming mist in all the hollows, and it had roamed in its forlornness up the hill. "
    paragraph = sentence * 6 + "\n\n"
    book = paragraph * (words // len(paragraph.split()))
    server, rows = PageServer(), list[tuple[str, float]]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = visit(browser.new_context().new_page(), server.url)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})  # processor time, not the clock's
        used = task_seconds(session)
        page.set_input_files("#file", {"name": "book.txt", "mimeType": "text/plain", "buffer": book.encode()})
        page.wait_for_selector(".piece:nth-child(50)", state="attached")
        page.wait_for_timeout(3000)  # saved, counted
        rows.append(("open", used() * 1000))
        page.evaluate(FRAMES)
        page.locator("#text").focus()
        for place, go in places(page).items():
            go()
            page.wait_for_timeout(1500)
            rows += typed(page, session, place)
        server.words, server.pause = 200, 0.01
        used = task_seconds(session)
        page.keyboard.press("Control+Enter")
        expect(page.locator("#go")).to_have_text("Stop")
        expect(page.locator("#go")).to_have_text("Go on", timeout=60_000)
        rows.append(("continuation, a token", used() / server.words * 1000))
        browser.close()
    case = f"{len(book.split()):,} words, {len(book) / 1e6:.1f} MB"
    for what, value in rows:
        print(f"{what:50} {value:8.1f} ms")
    record.append("cpu", "page", [("reformer", case, what, value, "ms") for what, value in rows])


def places(page: Any) -> dict[str, Callable[[], None]]:
    middle = "(box) => { box.scrollTop = box.scrollHeight / 2; }"

    def in_the_middle() -> None:
        page.locator("#scroller").evaluate(middle)
        page.wait_for_timeout(300)
        page.mouse.click(300, 300)

    return {
        "start": lambda: page.keyboard.press("Control+Home"),
        "middle": in_the_middle,
        "end": lambda: page.keyboard.press("Control+End"),
    }


def task_seconds(session: Any) -> Callable[[], float]:
    """Tells the processor time that the page took since now."""

    def now() -> float:
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return float(metrics["TaskDuration"])

    begun = now()
    return lambda: now() - begun


def typed(page: Any, session: Any, place: str) -> list[tuple[str, float]]:
    page.evaluate("frames_.length = 0")
    used = task_seconds(session)
    for letter in TYPED:
        page.keyboard.press("Space" if letter == " " else letter)
        time.sleep(0.03)
    taken = used() / len(TYPED) * 1000
    page.wait_for_timeout(200)
    frames = sorted(page.evaluate("frames_"))
    return [
        (f"{place}: processor time a key", taken),
        (f"{place}: key to frame, median", statistics.median(frames)),
        (f"{place}: key to frame, 95 of 100", frames[int(0.95 * len(frames))]),
    ]


if __name__ == "__main__":
    main()
