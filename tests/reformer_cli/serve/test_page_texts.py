"""The page in Chromium: texts that are kept, files, two tabs, a server that is away, a token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from builders.browser import text_of, visit
from builders.page_server import PageServer

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


def write(page: Any, text: str) -> None:
    page.locator("#text").click()
    page.keyboard.press("Control+End")
    page.keyboard.insert_text(text)


def saved(page: Any) -> None:
    expect(page.locator("#saved")).to_have_text("· saved")


def panel(page: Any, name: str) -> None:
    page.get_by_role("navigation").get_by_role("button", name=name).click()


def test_texts_are_kept_in_the_browser(page: Any, server: PageServer) -> None:
    page.get_by_label("Title of this text").fill("One")
    write(page, "first text")
    saved(page)
    panel(page, "Texts")
    page.get_by_role("button", name="New text").click()
    expect(page.locator("#text")).to_have_text("")
    write(page, "second text")
    saved(page)
    page.reload()
    expect(page.locator("#text")).to_have_text("second text")
    expect(page.locator("#words")).to_have_text("2 words")
    panel(page, "Texts")
    expect(page.locator("#text-list li")).to_have_count(2)
    page.locator("#text-list").get_by_text("One").click()
    expect(page.locator("#text")).to_have_text("first text")
    expect(page.get_by_label("Title of this text")).to_have_value("One")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete One").click()
    expect(page.locator("#text")).to_have_text("second text")
    expect(page.locator("#text-list li")).to_have_count(1)


def test_a_page_that_is_closed_at_once_loses_nothing(page: Any, server: PageServer) -> None:
    # What was typed in the second before was gone: a page that goes does nothing that it would have to wait for.
    write(page, "one ")
    page.reload()
    write(page, "two ")
    page.reload()
    expect(page.locator("#text")).to_have_text("one two")
    other = visit(page.context.new_page(), server.url)
    saved(other)
    write(page, "three")
    write(other, "four")
    saved(page)
    other.reload()  # it knows of the other tab's words, and keeps both
    page.reload()
    panel(page, "Texts")
    expect(page.locator("#text-list li")).to_have_count(2)


def test_what_a_closed_page_left_is_taken_over_once(page: Any, server: PageServer) -> None:
    """The page that went may write into the store after the next one has looked there."""
    left = '{"id": "left", "title": "Left", "revision": 2, "changed": 1, "text": "last words", "words": 2}'
    page.evaluate("left => localStorage.setItem('reformer.left', left)", left)
    page.reload()
    panel(page, "Texts")
    page.locator("#text-list").get_by_text("Left").click()
    expect(page.locator("#text")).to_have_text("last words")
    assert page.evaluate("localStorage.getItem('reformer.left')") is None


def test_a_file_is_opened_and_saved(page: Any, server: PageServer) -> None:
    panel(page, "Texts")
    old = "“Éléphants”\r\n\r\nwalk".encode("windows-1252")  # as older programs write; line ends of Windows
    page.set_input_files("#file", {"name": "zoo.txt", "mimeType": "text/plain", "buffer": old})
    expect(page.get_by_label("Title of this text")).to_have_value("zoo")
    assert text_of(page) == "“Éléphants”\n\nwalk"
    for name, begins in (("txt", "“Éléphants”\n\nwalk".encode()), ("md", b"PK"), ("docx", b"PK")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"(.{name})").click()
        assert download.value.suggested_filename == f"zoo.{name}"
        assert Path(download.value.path()).read_bytes().startswith(begins)
    assert [body["format"] for body in server.bodies("/api/export")] == ["md", "docx"]
    page.set_input_files("#file", {"name": "a.docx", "mimeType": "x/y", "buffer": b"PK\3\4\0\0"})
    expect(page.locator("#say")).to_contain_text("no plain text")


def test_two_tabs_of_one_text(page: Any, server: PageServer) -> None:
    # The tab that saved last would overwrite what the other one wrote.
    write(page, "begun")
    saved(page)
    other = visit(page.context.new_page(), server.url)
    expect(other.locator("#text")).to_have_text("begun")
    write(other, " there")
    saved(other)
    expect(page.locator("#text")).to_have_text("begun there")
    write(page, " A")
    write(other, " B")  # both before either is saved
    page.bring_to_front()
    expect(page.locator("#say, #saved").filter(has_text=re.compile("saved|kept")).first).to_be_visible()
    saved(other)
    saved(page)
    texts = sorted((text_of(page), text_of(other)))
    assert texts == ["begun there A", "begun there B"]
    panel(page, "Texts")
    expect(page.locator("#text-list")).to_contain_text("(from another tab)")


def test_storage_that_is_full_or_closed_is_said(page: Any, server: PageServer) -> None:
    full = page.context.new_page()
    full.add_init_script("IDBObjectStore.prototype.put = () => { throw new DOMException('', 'QuotaExceededError'); }")
    visit(full, server.url)
    write(full, "too much")
    expect(full.locator("#say")).to_contain_text("storage is full. Save your text to a file")
    closed = page.context.new_page()
    closed.add_init_script("""IDBFactory.prototype.open = () => { throw new DOMException('', 'SecurityError'); };
        Storage.prototype.setItem = () => { throw new DOMException('', 'SecurityError'); };""")
    visit(closed, server.url)
    expect(closed.locator("#say")).to_contain_text("keeps nothing")
    write(closed, "still written")
    expect(closed.locator("#text")).to_have_text("still written")
    simple = page.context.new_page()
    simple.add_init_script("IDBFactory.prototype.open = () => { throw new DOMException('', 'SecurityError'); }")
    visit(simple, server.url)
    write(simple, "in localStorage")
    saved(simple)
    simple.reload()
    expect(simple.locator("#text")).to_have_text("in localStorage")
    for tab in (full, closed, simple):
        tab.close(run_before_unload=False)


def test_a_server_that_goes_and_comes_back(page: Any, server: PageServer) -> None:
    # It has forgotten the text then: going on must send it again. Meanwhile one sentence, and nothing is lost.
    write(page, "Then")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile("word4"))
    page.context.set_offline(True)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#offline")).to_contain_text("Your text is safe in this browser")
    page.keyboard.type(" mine")
    saved(page)
    panel(page, "Texts")
    with page.expect_download():
        page.get_by_role("button", name="(.txt)").click()
    page.get_by_role("button", name="(.docx)").click()
    expect(page.locator("#say")).to_contain_text("Plain text (.txt) can always be saved")
    page.context.set_offline(False)
    server.documents.clear()
    page.locator("#text").focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile("mine word0.*word4"))
    expect(page.locator("#offline")).to_be_hidden()
    assert server.bodies("/api/documents/")[-1]["from"] == 0


def test_errors_are_one_sentence(page: Any, server: PageServer) -> None:
    server.answers["/v1/completions"] = lambda _: (429, {"error": {"message": "busy"}})
    write(page, "Then")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#say")).to_have_text(
        "Others are writing just now, and there is no free place. Try again in 7 s."
    )
    server.answers["/v1/completions"] = lambda _: (400, {"error": {"message": "there is no run 'x'"}})
    page.keyboard.press("Control+Enter")
    expect(page.locator("#say")).to_have_text("there is no run 'x'")
    expect(page.locator("#go")).to_have_text("Go on")


def test_a_token_is_asked_for_once(page: Any, server: PageServer) -> None:
    server.token = "secret"
    page.reload()
    field = page.get_by_role("textbox", name="Token")
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#token-heading")).to_have_text("That token is not the right one")
    field.fill("secret")
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_have_value("starter")
    page.reload()
    expect(page.locator("#model")).to_have_value("starter")
    expect(page.locator("#token")).to_be_hidden()
    linked = visit(page.context.new_page(), server.url + "#token=secret")
    expect(linked.locator("#model")).to_have_value("starter")
    assert "secret" not in linked.url
