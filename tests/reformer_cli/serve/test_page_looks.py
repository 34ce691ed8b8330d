"""The page in Chromium: closer looks at a text, models, and whether everybody can use it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from builders.browser import text_of, visit
from builders.page_server import PageServer

expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

PANELS = ("Texts", "How it writes", "Look closer", "Models", "Help")


def write(page: Any, text: str) -> None:
    page.locator("#text").click()
    page.keyboard.insert_text(text)


def panel(page: Any, name: str) -> None:
    page.get_by_role("navigation").get_by_role("button", name=name).click()


def marked(page: Any, name: str) -> list[str]:
    """What carries a mark."""
    return list(page.evaluate(f"[...(CSS.highlights.get('{name}') ?? [])].map((range) => range.toString())"))


def test_surprising_words_are_shaded(page: Any, server: PageServer) -> None:
    write(page, "the \U0001f40b cat devoured it")
    panel(page, "Look closer")
    page.get_by_role("button", name="Shade surprising words").click()
    expect(page.locator("#shade-legend")).to_be_visible()
    assert marked(page, "shade-4") == ["devoured"]
    assert marked(page, "shade-1") == []
    page.locator("#text").focus()
    page.keyboard.press("Home")
    for _ in "the x cat dev":
        page.keyboard.press("ArrowRight")
    said = "“devoured” was the model's guess number 900; its chance was 1 in 2,981."
    expect(page.locator("#shade-say")).to_have_text(said)
    page.keyboard.press("Home")
    page.keyboard.type("and ")
    assert marked(page, "shade-4") == ["devoured"]  # it moved along
    page.get_by_role("button", name="Shade surprising words").click()
    assert marked(page, "shade-4") == []
    assert text_of(page) == "and the \U0001f40b cat devoured it"


def test_copied_words_are_underlined_with_their_source(page: Any, server: PageServer) -> None:
    write(page, "He said: Call me Ishmael. And went.")
    panel(page, "Look closer")
    page.get_by_role("button", name="Underline copied words").click()
    expect(page.locator("#copies-say")).to_have_text("1 passage is copied.")
    assert marked(page, "copied") == ["Call me Ishmael"]
    expect(page.locator("#copies-list")).to_contain_text("3 words, as in moby.txt, line 12:")
    page.locator("#copies-list").get_by_role("button").click()
    assert page.evaluate("document.getSelection().toString()") == "Call me Ishmael"
    page.keyboard.type("Hello")
    expect(page.locator("#copies-list li")).to_have_count(0)
    page.get_by_label("whenever it has written").check()
    server.answers["/api/copies"] = lambda _: {"unavailable": "this run has no index of its training text"}
    page.keyboard.press("Control+Enter")
    expect(page.locator("#copies-say")).to_have_text("This run has no index of its training text.")


def test_what_it_remembered_can_be_visited(page: Any, server: PageServer) -> None:
    write(page, "Jack lost his ship. " + "Then it rained. " * 300 + "He was Jack")
    panel(page, "Look closer")
    page.get_by_role("button", name="What did it remember here?").click()
    expect(page.locator("#remembered-say")).to_have_text(
        "For “Jack” it looked back to 1 place, the most important first."
    )
    body = server.bodies("/api/remembered")[0]
    assert body["text"].endswith("Jack")
    assert body["position"] == len(body["text"]) - 4
    assert marked(page, "recalled") == ["Jack lost"]
    page.locator("#remembered-list").get_by_role("button", name="Go there").first.click()
    assert page.evaluate("document.getSelection().toString()") == "Jack lost"
    assert page.locator("#scroller").evaluate("(element) => element.scrollTop") < 300
    server.answers["/api/remembered"] = lambda _: {"unavailable": "this run has no hashed heads"}
    page.get_by_role("button", name="What did it remember here?").click()
    expect(page.locator("#remembered-say")).to_have_text("This run has no hashed heads.")


def test_models_can_be_chosen_watched_and_compared(page: Any, server: PageServer) -> None:
    write(page, "Then")
    panel(page, "Models")
    runs = page.locator("#run-list li")
    expect(runs.nth(1)).to_contain_text("has read moby.txt; 300 steps of training; 2.20 bits per byte; still learning")
    page.get_by_role("button", name="Training curve of sea").click()
    expect(page.locator("#curve svg")).to_have_attribute("aria-label", re.compile("from 2.00 to 2.00 at step 3"))
    expect(page.locator("#curve svg")).to_have_attribute("aria-label", re.compile("at step 4"))  # it goes on
    with page.expect_popup() as report:
        page.get_by_role("button", name="Report of sea").click()
    assert report.value.url.endswith("/api/runs/sea/report")
    report.value.close()
    runs.nth(1).get_by_role("button", name="Write with it").click()
    expect(runs.nth(1).get_by_role("button", name="Writes now")).to_be_focused()
    page.get_by_role("button", name="Write with both").click()
    expect(page.locator("#compare-say")).to_have_text("Both have written.")
    first, second = (body for body in server.bodies("/v1/completions"))
    assert {first["model"], second["model"]} == {"starter", "sea"}
    assert first["seed"] == second["seed"]
    page.get_by_role("button", name="Take this, which sea wrote").click()
    expect(page.locator("#text")).to_have_text("Then sea0 sea1 sea2 sea3 sea4.")


def test_panels_open_and_close_by_keyboard(page: Any) -> None:
    button = page.get_by_role("navigation").get_by_role("button", name="Help")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Help")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#side")).to_be_hidden()
    expect(button).to_be_focused()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing(page: Any, axe: str, colours: str) -> None:
    write(page, "The whale devoured it.")
    page.emulate_media(color_scheme=colours)
    page.evaluate(axe)
    for name in PANELS:
        if page.get_by_role("navigation").get_by_role("button", name=name).get_attribute("aria-expanded") == "false":
            panel(page, name)
        if name == "Models":
            page.get_by_role("button", name="Training curve of starter").click()
            page.get_by_role("button", name="Write with both").click()
            expect(page.locator("#compare-say")).to_have_text("Both have written.")
        if name == "Help":
            page.get_by_role("button", name="Suggest three").click()
            expect(page.locator("#ways-list button").first).to_be_focused()
        only = "{runOnly: ['color-contrast']}" if colours == "dark" else "{resultTypes: ['violations']}"
        found = page.evaluate(f"axe.run(document, {only})")["violations"]
        told = [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"]]) for one in found]
        assert told == [], (name, colours)
    page.emulate_media(color_scheme="light")


def test_a_narrow_phone_shows_everything(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.reload()
    write(page, "A word " * 40)
    for name in PANELS:
        button = page.get_by_role("navigation").get_by_role("button", name=name)
        if button.get_attribute("aria-expanded") == "false":
            button.click()
        wide = page.evaluate("""[...document.querySelectorAll("#side *, footer *, #title")]
            .filter((e) => e.offsetParent && !e.closest(".hidden, table"))
            .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
            .map((e) => e.outerHTML.slice(0, 80))""")
        assert (wide, page.evaluate("document.documentElement.scrollWidth")) == ([], 360), name
    page.get_by_role("button", name="Close", exact=True).click()
    page.get_by_role("button", name="Suggest three").click()
    expect(page.locator("#ways-list button").nth(2)).to_be_in_viewport()
    page.keyboard.press("1")
    expect(page.locator("#text")).to_have_text(re.compile("way 1.$"))


def test_a_tap_raises_no_keyboard(page: Any, server: PageServer) -> None:
    # On a phone the text must not take the focus for a button; going on again goes on behind what was written.
    touch = page.context.browser.new_context(viewport={"width": 390, "height": 700}, has_touch=True, is_mobile=True)
    phone = visit(touch.new_page(), server.url)
    expect(phone.locator("#text")).not_to_be_focused()
    phone.locator("#text").tap()
    phone.keyboard.insert_text("Then")
    for _ in range(2):
        phone.locator("#go").tap()
        expect(phone.locator("#text")).to_have_text(re.compile(r"word4\.$"))
        expect(phone.locator("#go")).to_have_text("Go on")
    expect(phone.locator("#text")).not_to_be_focused()
    written = " word0 word1 word2 word3 word4."
    expect(phone.locator("#text")).to_have_text(f"Then{written}{written}")
    phone.locator("#undo").tap()
    phone.locator("#three").tap()
    phone.locator("#ways-list button").first.tap()
    expect(phone.locator("#text")).to_have_text(f"Then{written} way 1.")
    expect(phone.locator("#text")).not_to_be_focused()
    touch.close()


@pytest.mark.slow
def test_a_book_of_half_a_million_words(page: Any, server: PageServer) -> None:
    # Every key must do the same as in a note, and going on must send the book once.
    words = "It was the best of times, it was the worst of times. " * 20
    book = f"{words}\n\n" * (500_000 // 240)
    page.set_input_files("#file", {"name": "book.txt", "mimeType": "text/plain", "buffer": book.encode()})
    expect(page.locator("#words")).to_have_text("499,920 words")
    page.locator("#text").focus()
    page.keyboard.press("Control+End")
    page.keyboard.type("The end")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile(r"The end word0.*\.$"), timeout=20000)
    page.keyboard.type("!")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_have_text(re.compile(r"word4\.! word0.*\.$"), timeout=20000)
    first, second = (body["text"] for body in server.bodies("/api/documents/"))
    assert first == book + "The end"
    assert len(second) < 60
    expect(page.locator("#saved")).to_have_text("· saved")
    page.reload()
    expect(page.locator("#words")).to_have_text(re.compile("499,93"))
