"""How it looks: pictures for people to judge, and what a machine can tell of it."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import People
from tests.e2e.steps import ended, rename, reply_to, say
from tests.server import Server

pytestmark = pytest.mark.browser

SCREENS: dict[str, dict[str, Any]] = {
    "phone": {
        "viewport": {"width": 360, "height": 740},
        "has_touch": True,
        "is_mobile": True,
    },
    "desktop": {"viewport": {"width": 1280, "height": 800}},
}


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_pictures(people: People, server: Server, tmp_path: Path, screen: str, scheme: str) -> None:
    page = people.open(server.url, color_scheme=scheme, **SCREENS[screen])
    page.screenshot(path=tmp_path / f"{screen}-{scheme}-empty.png")
    page.locator("#text").fill("How do I begin?")
    page.locator("#send").click()
    expect(page.locator(".message.running .streaming div").first).to_be_visible()
    page.screenshot(path=tmp_path / f"{screen}-{scheme}-streaming.png")
    ended(reply_to(page, "How do I begin?").last)
    page.screenshot(path=tmp_path / f"{screen}-{scheme}-done.png")
    assert overflow(page) <= 0
    if screen == "phone":
        page.locator("#open-sidebar").click()
    page.locator("#new-room").click()
    expect(page.locator("#room-dialog")).to_be_visible()
    page.screenshot(path=tmp_path / f"{screen}-{scheme}-new-room.png")
    print(f"pictures in {tmp_path}")


def test_nothing_sticks_out_at_320_pixels(people: People, server: Server) -> None:
    page = people.open(server.url, viewport={"width": 320, "height": 600})
    rename_from_drawer(page, "Somebody With Quite A Long Name Indeed")
    say(
        page, "w" * 300 + "\n\n```\n" + "code " * 80 + "\n```\n\n|a|b|\n|-|-|\n|" + "x" * 90 + "|y|"
    )
    ended(reply_to(page, "w" * 300))
    assert overflow(page) <= 0
    inside = page.locator("#scrolled").evaluate("box => box.scrollWidth <= box.clientWidth")
    assert inside


def rename_from_drawer(page: Page, name: str) -> None:
    page.locator("#open-sidebar").click()
    rename(page, name)
    page.keyboard.press("Escape")


def test_the_theme_is_remembered(people: People, server: Server) -> None:
    page = people.open(server.url, color_scheme="light")
    page.locator("#theme").click()
    page.locator("#theme").click()
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.reload()
    assert page.evaluate(paper) == dark
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_keyboard_is_enough(people: People, server: Server) -> None:
    page = people.open(server.url)
    expect(page.locator("#text")).to_be_focused()  # who opens the page can talk at once
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("@Ass")
    expect(page.locator("#mentions [aria-selected=true]")).to_contain_text("Assistant")
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_value("@Assistant ")
    page.keyboard.type("hello there")
    page.keyboard.press("Enter")
    ended(reply_to(page, "hello there"))
    expect(page.locator("#announcer")).to_contain_text("Assistant:")


def test_every_control_has_a_name(people: People, server: Server) -> None:
    page = people.open(server.url)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, select, a[href]")]
             .filter((one) => !one.closest("[hidden], dialog:not([open])"))
             .filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim() ||
                                one.labels?.length || one.title))
             .map((one) => one.outerHTML)"""
    )
    assert nameless == []
