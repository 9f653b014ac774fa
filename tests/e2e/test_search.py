"""Finding, putting away, taking along, going on: what becomes of what was said, in a browser."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import People
from tests.e2e.steps import ended, message, reply_to, say
from tests.server import Server

pytestmark = pytest.mark.browser


def private_room(page: Page, title: str) -> None:
    page.locator("#new-private").click()
    expect(page.locator("#rooms .room-link[aria-current]")).not_to_contain_text("Lobby")
    page.locator("#open-menu").click()
    page.locator("#room-settings").click()
    page.locator("#new-title").fill(title)
    page.locator("#room-dialog .main-button").click()
    expect(page.locator("#room-title")).to_have_text(title)


def brought(page: Page, path: Path) -> None:
    page.locator("#open-my-menu").click()
    page.locator("#import-chats").click()
    page.locator("#import-file").set_input_files(path)
    page.locator("#import-dialog .main-button").click()


def test_words_are_found_in_all_rooms(people: People, server: Server) -> None:
    ada = people.open(server.url)
    say(ada, "Quince jelly in the lobby")
    private_room(ada, "Pantry")
    say(ada, "Quince jelly in the pantry")
    ended(reply_to(ada, "in the pantry"))
    ada.locator("#open-search").click()
    ada.locator("#query").fill("quince jelly")
    own = ada.locator("#results button", has_text="Quince jelly in the")
    expect(own.first).to_contain_text("in the pantry")
    expect(ada.locator("#results .where")).to_have_count(0)
    ada.locator("#search-where label", has_text="All rooms").click()
    found = ada.locator("#results button", has_text="in the lobby")
    expect(found.first).to_contain_text("in Lobby")
    expect(own.filter(has_text="in the pantry").first).to_contain_text("in Pantry")
    expect(found.first.locator("mark").first).to_have_text(re.compile("quince", re.IGNORECASE))
    found.last.click()
    expect(ada.locator("#room-title")).to_have_text("Lobby")
    expect(message(ada, "Quince jelly in the lobby")).to_be_in_viewport()
    expect(ada.locator("#search")).to_be_visible()
    ada.locator("#query").press("Escape")
    expect(ada.locator("#search")).to_be_hidden()


def test_on_a_phone_the_search_makes_way(people: People, server: Server) -> None:
    ada = people.open(server.url, viewport={"width": 390, "height": 780})
    say(ada, "Medlars by telephone")
    ended(reply_to(ada, "Medlars"))
    ada.locator("#open-search").click()
    ada.locator("#query").fill("medlars telephone")
    ada.locator("#results button").last.click()
    expect(ada.locator("#search")).to_be_hidden()
    expect(message(ada, "Medlars by telephone")).to_be_in_viewport()


def test_a_room_is_archived_and_fetched_back(people: People, server: Server) -> None:
    ada = people.open(server.url)
    private_room(ada, "Last summer")
    ada.locator("#open-menu").click()
    ada.locator("#archive-room").click()
    expect(ada.locator("#toasts")).to_contain_text("in the archive")
    fold = ada.locator("#rooms .fold")
    expect(fold.locator("summary")).to_have_text("Archived (1)")
    expect(fold.locator(".room-link")).to_be_visible()
    ada.locator("[data-room=lobby]").click()
    ada.reload()
    expect(fold.locator(".room-link")).to_be_hidden()
    fold.locator("summary").click()
    fold.locator(".room-link").click()
    expect(ada.locator("#room-title")).to_have_text("Last summer")
    ada.locator("#open-menu").click()
    expect(ada.locator("#archive-room")).to_have_text("Take out of the archive")
    ada.locator("#archive-room").click()
    expect(fold).to_have_count(0)
    expect(ada.locator("#rooms .room-link", has_text="Last summer")).to_be_visible()


def test_everything_goes_along_to_somebody_else(
    people: People, server: Server, tmp_path: Path
) -> None:
    ada = people.open(server.url)
    private_room(ada, "Diary")
    say(ada, "Dear **diary**")
    ended(reply_to(ada, "Dear"))
    ada.locator("#open-my-menu").click()
    with ada.expect_download() as saved:
        ada.get_by_text("Save all my data").click()
    file = tmp_path / saved.value.suggested_filename
    saved.value.save_as(file)
    assert file.suffix == ".jsonl"
    assert "hubbub" in msgspec.json.decode(file.read_bytes().splitlines()[0])
    ben = people.open(server.url)
    brought(ben, file)
    expect(ben.locator("#import-dialog")).to_be_hidden()
    expect(ben.locator("#toasts")).to_contain_text("imported")
    ben.locator("#rooms .room-link", has_text="Diary").click()
    expect(message(ben, "Dear diary").locator("strong")).to_have_text("diary")
    expect(ben.locator("#messages .message.character .tag.demo")).to_be_visible()


def test_a_chat_of_sillytavern_and_a_broken_file(
    people: People, server: Server, tmp_path: Path
) -> None:
    good, bad = tmp_path / "Sea voyage.jsonl", tmp_path / "bad.jsonl"
    lines = ['{"user_name":"Ada","character_name":"Finn","chat_metadata":{}}']
    lines += [
        '{"name":"Finn","is_user":false,"mes":"<img src=x> Ahoy!","send_date":"May 3, 2024 9:05pm"}'
    ]
    good.write_text("\n".join(lines))
    bad.write_text("\n".join([*lines, "{oh"]))
    ada = people.open(server.url)
    brought(ada, bad)
    expect(ada.locator("#import-dialog .error")).to_have_text("Line 3: This is not valid JSON.")
    ada.locator("#import-file").set_input_files(good)
    ada.locator("#import-dialog .main-button").click()
    expect(ada.locator("#room-title")).to_have_text("Sea voyage")
    ahoy = ada.locator("#messages .message.character")
    expect(ahoy).to_contain_text("Ahoy!")
    expect(ahoy.locator("img")).to_have_count(0)
    expect(ada.locator("#member-list")).to_contain_text("Finn")


def test_a_reply_that_a_kill_cut_off_goes_on(
    people: People, own_server: Callable[..., Server]
) -> None:
    server = own_server(HUBBUB_DEMO_RATE="12")
    ada = people.open(server.url)
    say(ada, "Tell me of storms")
    reply = reply_to(ada, "Tell me of storms")
    expect(reply.locator(".streaming")).to_contain_text(re.compile(r"\w+ \w+ \w+ \w+ \w+ \w+"))
    server.kill()
    server.restart()
    ended(reply, "interrupted")
    had = reply.locator(".body").inner_text().strip()
    assert had
    expect(reply.get_by_role("button", name="Redo")).to_be_visible()
    reply.get_by_role("button", name="Go on").click()
    ended(reply, "done")
    text = reply.locator(".body").inner_text()
    assert text.startswith(had)
    assert len(text) > len(had) + 20
    expect(ada.locator(".message.character")).to_have_count(1)
