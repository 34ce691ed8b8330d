"""The page in Chromium: writing, going on, taking back, ways to go on."""

from __future__ import annotations

import re
from typing import Any

import pytest
from builders.browser import text_of
from builders.page_server import PageServer

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

WRITTEN = " word0 word1 word2 word3 word4."


def write(page: Any, text: str) -> None:
    page.locator("#text").click()
    page.keyboard.insert_text(text)


def test_goes_on_at_the_cursor_and_takes_all_of_it_back(page: Any, server: PageServer) -> None:
    write(page, "Once and after")
    for _ in " and after":
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(f"Once{WRITTEN} and after")
    expect(page.locator("#go")).to_have_text("Go on")
    body = server.bodies("/v1/completions")[0]
    assert body["stream"]
    assert body["model"] == "starter"
    assert body["preset"] == "plain"
    assert body["stop_at"] == "paragraph"
    assert server.documents[body["document"]][: body["at"]] == "Once"
    page.keyboard.type("!")
    expect(page.locator("#text")).to_have_text(f"Once{WRITTEN}! and after")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(page.locator("#text")).to_have_text("Once and after")
    page.keyboard.press("Control+y")
    expect(page.locator("#text")).to_have_text(f"Once{WRITTEN} and after")
    page.get_by_role("button", name="Take back").click()
    expect(page.locator("#text")).to_have_text("Once and after")


def test_only_what_changed_is_sent(page: Any, server: PageServer) -> None:
    # A book sent again for each continuation would be megabytes a key.
    write(page, "A \U0001f40b swims. ")  # two UTF-16 units, one character: offsets would be off by one after it
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#text")).to_have_text(re.compile(r"word4\.$"))
    page.keyboard.type(" More")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile(r"More word0.*\.$"))
    first, second = server.bodies("/api/documents/")
    assert first == {"from": 0, "text": "A \U0001f40b swims. "}
    assert second == {"from": 11, "text": WRITTEN + " More"}
    assert server.bodies("/v1/completions")[1]["at"] == 11 + len(WRITTEN) + 5


def test_escape_and_typing_stop_it(page: Any, server: PageServer) -> None:
    server.words, server.pause = 200, 0.02
    write(page, "Go")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile("word3"))
    expect(page.locator("#go")).to_have_text("Stop")
    page.keyboard.press("Escape")
    expect(page.locator("#say")).to_have_text("Stopped.")
    stopped = text_of(page)
    page.wait_for_timeout(100)
    assert text_of(page) == stopped
    assert "word199" not in stopped
    page.keyboard.press("Control+z")
    expect(page.locator("#text")).to_have_text("Go")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile("word3"))
    page.keyboard.type("x")
    expect(page.locator("#text")).to_have_text(re.compile("x$"))
    expect(page.locator("#go")).to_have_text("Go on")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile("x word3|x word0 word1"))
    page.keyboard.press("Control+z")  # while it writes: stops, and takes that away
    expect(page.locator("#text")).to_have_text(re.compile("x$"))


def test_three_ways_side_by_side(page: Any, server: PageServer) -> None:
    write(page, "She")
    page.keyboard.press("Tab")
    ways = page.locator("#ways-list button")
    expect(ways).to_have_count(3)
    tops = {box["y"] for box in (way.bounding_box() for way in ways.all())}
    line = page.evaluate("document.getSelection().getRangeAt(0).getBoundingClientRect().bottom")
    assert len(tops) == 1
    assert tops.pop() > line
    expect(ways.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(ways.nth(1)).to_be_focused()
    page.keyboard.press("Tab")  # others
    expect(page.locator("#ways-list button:focus")).to_have_count(1)
    page.keyboard.press("2")
    expect(page.locator("#text")).to_have_text("She way 2.")
    expect(page.locator("#text")).to_be_focused()
    assert len(server.bodies("/api/alternatives")) == 2
    assert server.bodies("/api/alternatives")[0]["n"] == 3
    page.keyboard.press("Control+z")
    expect(page.locator("#text")).to_have_text("She")
    page.get_by_role("button", name="Suggest three").click()
    expect(ways.first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#ways")).to_be_hidden()
    page.keyboard.type("!")  # the cursor is back where it was
    expect(page.locator("#text")).to_have_text("She!")


def test_the_keyboard_can_leave_the_text(page: Any) -> None:
    # WCAG 2.1.2: Tab means something here, so another way out must be, and be told.
    write(page, "She")
    page.keyboard.press("Escape")
    expect(page.locator("#say")).to_have_text("Tab now leaves the text.")
    page.keyboard.press("Tab")
    expect(page.locator("#text")).not_to_be_focused()
    expect(page.locator("#ways")).to_be_hidden()
    page.locator("#text").focus()
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#text")).not_to_be_focused()
    assert "Escape, then Tab" in page.locator("#keys").text_content()


def test_edits_are_what_the_keys_say(page: Any) -> None:
    write(page, "one two three")
    page.keyboard.press("Control+Backspace")  # some browsers take the space before the word too
    assert text_of(page).strip() == "one two"
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("one two ")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.keyboard.type("last")
    assert text_of(page) == "one two \n\nlast"
    page.keyboard.press("Backspace")
    page.keyboard.press("Home")
    page.keyboard.press("Delete")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Backspace")
    assert text_of(page) == "one two \nas"
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+c")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Control+v")
    assert text_of(page) == "one two \nasone two \nas"
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+x")
    assert text_of(page) == ""
    page.keyboard.press("Control+v")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert text_of(page) == "one two \nasone two \nas"


def test_keys_reach_both_ends_of_a_long_text(page: Any) -> None:
    # Chromium put the cursor at the start of the last piece, which it had not laid out, and selected all but that.
    lines = "".join(f"line {n} of a long text\n" for n in range(4000)) + "end"
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": lines.encode()})
    expect(page.locator("#words")).to_have_text("24,001 words")
    page.locator("#text").focus()
    page.keyboard.press("Control+End")
    page.keyboard.type("!")
    expect(page.locator(".piece").last).to_be_in_viewport()
    page.keyboard.press("Control+Home")
    page.keyboard.type("?")
    assert text_of(page) == f"?{lines}!"
    page.keyboard.press("Control+Shift+End")
    page.keyboard.type("x")
    assert text_of(page) == "?x"
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+a")
    page.keyboard.type("y")
    assert text_of(page) == "y"


def test_an_empty_last_line_can_be_written_on(page: Any) -> None:
    # A browser shows no line after the last line end by itself: the cursor would stay on the line before.
    write(page, "one\n\n")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    page.keyboard.type("two")
    assert text_of(page) == "one\n\ntwo"


def test_an_input_method_writes_too(page: Any, server: PageServer) -> None:
    # What it composes cannot be caught before it is on the screen: the model would not know of it.
    write(page, "ab\ncd")
    page.keyboard.press("ArrowUp")
    session = page.context.new_cdp_session(page)
    for part in ("に", "にほ", "日本"):
        session.send("Input.imeSetComposition", {"text": part, "selectionStart": len(part), "selectionEnd": len(part)})
    session.send("Input.insertText", {"text": "日本"})
    assert text_of(page) == "ab日本\ncd"
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile("word4"))
    assert server.bodies("/api/documents/")[0]["text"] == "ab日本"
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert text_of(page) == "ab\ncd"
