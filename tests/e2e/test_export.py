"""The menu of a room, in a real browser: taking what was said along."""

from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import People
from tests.e2e.steps import ended, reply_to, say
from tests.server import Server

pytestmark = pytest.mark.browser


def download(page: Page, entry: str) -> tuple[str, str]:
    """Choose an entry of the menu that saves a file; return its name and text."""
    page.locator("#open-menu").click()
    with page.expect_download() as saved:
        page.locator("#room-menu").get_by_text(entry).click()
    expect(page.locator("#room-menu")).not_to_be_visible()
    return saved.value.suggested_filename, Path(saved.value.path()).read_text()


def test_a_guest_saves_the_lobby(people: People, server: Server) -> None:
    ada = people.open(server.url)
    say(ada, "Is this going to be kept?")
    ended(reply_to(ada, "Is this going"))
    name, text = download(ada, "Export as Markdown")
    assert name == "hubbub-Lobby.md"
    assert text.startswith("# Lobby\n")
    assert "\nIs this going to be kept?\n" in text
    assert "(AI) (demo)" in text
    ada.locator("#open-menu").click()
    for entry in ("#room-settings", "#delete-room"):
        expect(ada.locator(entry)).to_be_hidden()


def test_the_room_that_is_shown_is_the_one_that_is_saved(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.locator("#new-private").click()
    expect(ada.locator("#room-title")).not_to_have_text("Lobby")
    say(ada, "Only in here")
    ended(reply_to(ada, "Only in here"))
    _, text = download(ada, "Export as JSON")
    assert msgspec.json.decode(text)["messages"][0]["text"] == "Only in here"
    expect(ada.locator("#room-title")).not_to_have_text("Lobby")
