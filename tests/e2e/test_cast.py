"""The cast of a room, on the page: chosen, written, imported, made to speak and to keep silent."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from hub.cards import import_card
from hub.png import plain_picture, text_chunk, write_chunks
from tests.e2e.conftest import People
from tests.e2e.steps import ended, reply_to, say
from tests.e2e.test_looks import SCREENS, overflow
from tests.server import Server

pytestmark = pytest.mark.browser

CARD = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        "name": "Mira",
        "description": "{{char}} keeps a lighthouse.",
        "personality": "Dry.",
        "scenario": "A storm is coming.",
        "first_mes": "Come in, {{user}}.",
        "alternate_greetings": ["Who is there?"],
        "extensions": {"other/tool": {"kept": True}},
    },
}


def png() -> bytes:
    *head, end = plain_picture((90, 120, 150))
    text = base64.b64encode(json.dumps(CARD).encode())
    return write_chunks([*head, text_chunk("chara", text), end])


def choice(page: Page, name: str) -> Locator:
    return page.locator("#cast .cast-row").filter(has=page.get_by_text(name, exact=True))


def new_room(page: Page, *names: str, title: str = "Table") -> None:
    """Make a room with presets."""
    page.locator("#new-room").click()
    page.locator("#new-title").fill(title)
    for name in names:
        choice(page, name).locator("input").check()
    page.locator("#room-dialog .main-button").click()
    expect(page.locator("#invite-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#room-title")).to_have_text(title)


def act(page: Page, name: str, label: str) -> None:
    """Choose something from a member's menu."""
    page.locator(".member", has_text=name).get_by_label("What can be done with").click()
    page.locator("#member-menu").get_by_role("button", name=label).click()


def said_by(page: Page, name: str) -> Locator:
    return page.locator("#messages .message.character").filter(
        has=page.locator(".name", has_text=name)
    )


def test_a_scenario_brings_its_cast(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.locator("#new-room").click()
    ada.locator("#scenario-preset").select_option(index=1)
    chosen = ada.locator("#cast input:checked")
    assert chosen.count() >= 2
    names = ada.locator("#cast .cast-row:has(input:checked) b").all_text_contents()
    ada.locator("#room-dialog .main-button").click()
    expect(ada.locator("#invite-dialog")).to_be_visible()
    ada.keyboard.press("Escape")
    for name in names:
        expect(ada.locator(".member", has_text=name)).to_be_visible()


def test_a_character_is_written_and_edited_later(people: People, server: Server) -> None:
    ada, ben = people.open(server.url), people.open(server.url)
    ada.locator("#new-room").click()
    ada.locator("#new-title").fill("Own people")
    ada.locator("input[value=public]").check()
    ada.locator("#new-character").click()
    expect(ada.locator("#character-name")).to_be_focused()
    ada.keyboard.type("Zed")
    ada.get_by_label("Emoji").fill("🎻")
    ada.get_by_label("What it is").fill("Bard")
    ada.get_by_label("Personality").fill("Rhymes when nervous.")
    ada.get_by_label("Greeting").fill("Well met!")
    ada.locator("#add-trigger").click()
    expect(ada.get_by_label("When somebody says")).to_be_focused()
    ada.keyboard.type("wine")
    ada.get_by_label("then", exact=True).fill("Hiccup.")
    ada.get_by_label("How talkative").fill("100")
    expect(ada.locator("#talk-share")).to_have_text("Always has something to say")
    ada.locator("#character-dialog .main-button").click()
    expect(ada.locator("#character-dialog")).to_be_hidden()
    expect(choice(ada, "Zed").locator("input")).to_be_checked()
    ada.locator("#room-dialog .main-button").click()
    expect(said_by(ada, "Zed")).to_contain_text("Well met!")
    say(ada, "Hello")
    ended(reply_to(ada, "Hello"))
    # Others see the change, which comes from the members' panel.
    ben.reload()
    ben.locator("#rooms .room-link", has_text="Own people").click()
    expect(ben.locator(".member", has_text="Zed")).to_be_visible()
    act(ada, "Zed", "Edit Zed")
    expect(ada.locator("#character-class")).to_have_value("Bard")
    expect(ada.get_by_label("When somebody says")).to_have_value("wine")
    ada.locator("#character-name").fill("Zeb")
    ada.get_by_label("Remove this").click()
    ada.locator("#character-dialog .main-button").click()
    expect(ben.locator(".member", has_text="Zeb")).to_be_visible()
    room = ada.evaluate(
        """async () => (await (await fetch("/api/rooms")).json()).rooms
             .find(({ title }) => title === "Own people")"""
    )
    [zeb] = room["cast"]
    assert zeb == {
        "id": zeb["id"],
        "name": "Zeb",
        "class": "Bard",
        "emoji": "🎻",
        "personality": "Rhymes when nervous.",
        "greeting": "Well met!",
        "talkativeness": 1.0,
    }
    # Who only visits can have it speak, but not change it.
    ben.locator(".member", has_text="Zeb").get_by_label("What can be done with").click()
    expect(ben.locator("#member-menu button")).to_have_text(["Speak now", "Mute"])


def test_escape_leaves_what_was_there(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.locator("#new-room").click()
    ada.locator("#new-character").click()
    ada.keyboard.type("Nobody")
    ada.keyboard.press("Escape")
    expect(ada.locator("#character-dialog")).to_be_hidden()
    expect(ada.locator("#room-dialog")).to_be_visible()
    expect(choice(ada, "Nobody")).to_have_count(0)
    expect(ada.locator("#new-character")).to_be_focused()


def test_a_card_is_imported_and_exported_whole(
    people: People, server: Server, tmp_path: Path
) -> None:
    ada = people.open(server.url)
    file = tmp_path / "mira.png"
    file.write_bytes(png())
    ada.locator("#new-room").click()
    ada.locator("#new-title").fill("Lighthouse")
    ada.locator("#card-file").set_input_files(file)
    expect(ada.locator("#cast-note")).to_have_text("Mira is in the list.")
    expect(ada.locator("#scenario")).to_have_value("A storm is coming.")
    choice(ada, "Mira").get_by_label("Edit Mira").click()
    ada.get_by_label("Personality").fill("Wet.")
    ada.locator("#character-dialog .main-button").click()
    ada.locator("#room-dialog .main-button").click()
    expect(ada.locator("#invite-dialog")).to_be_visible()
    ada.keyboard.press("Escape")
    expect(ada.locator(".member", has_text="Assistant")).to_have_count(0)
    name = ada.locator("#me .me-name").text_content()
    greeting = said_by(ada, "Mira")
    expect(greeting).to_contain_text(f"Come in, {name}.")
    greeting.get_by_label("Earlier reply").click()
    expect(greeting.locator(".body")).to_have_text("Who is there?")
    act(ada, "Mira", "Edit Mira")
    with ada.expect_download() as download:
        ada.locator("#card-png").click()
    character = import_card(Path(download.value.path()).read_bytes()).character
    assert character.personality == "Wet."
    card: Any = character.card
    assert card["data"]["extensions"]["other/tool"] == {"kept": True}


def test_a_file_that_is_no_card_says_so_and_one_can_be_dropped(
    people: People, server: Server, tmp_path: Path
) -> None:
    ada = people.open(server.url)
    file = tmp_path / "holiday.png"
    file.write_bytes(write_chunks(plain_picture((1, 2, 3))))
    ada.locator("#new-room").click()
    ada.locator("#card-file").set_input_files(file)
    expect(ada.locator("#cast-note")).to_have_text(
        "holiday.png: There is no character card in this picture."
    )
    transfer = ada.evaluate_handle(
        """(card) => {
             const transfer = new DataTransfer();
             transfer.items.add(new File([JSON.stringify(card)], "mira.json"));
             return transfer;
           }""",
        CARD,
    )
    ada.locator("#cast-part").dispatch_event("drop", {"dataTransfer": transfer})
    expect(choice(ada, "Mira").locator("input")).to_be_checked()
    expect(ada.locator("#cast-note")).to_have_text("Mira is in the list.")


def test_speak_mute_and_talk(people: People, server: Server) -> None:
    ada = people.open(server.url)
    new_room(ada, "Lyra", "Finn", title="Two of them")
    act(ada, "Lyra", "Speak now")
    expect(said_by(ada, "Lyra")).to_have_count(1)
    ended(said_by(ada, "Lyra").last)
    act(ada, "Lyra", "Mute")
    expect(ada.locator(".member", has_text="Lyra").locator(".tag")).to_have_text("muted")
    expect(ada.locator("#talk")).to_be_hidden()
    say(ada, "Anybody?")
    ended(reply_to(ada, "Anybody?"))
    expect(said_by(ada, "Lyra")).to_have_count(1)
    act(ada, "Lyra", "Let speak again")
    expect(ada.locator(".member", has_text="Lyra").locator(".tag")).to_have_count(0)
    before = ada.locator("#messages .message.character").count()
    ada.get_by_label("Let them talk for").fill("2")
    ada.locator("#talk").get_by_role("button", name="Start").click()
    expect(ada.locator("#messages .message.character")).to_have_count(before + 2)
    ended(ada.locator("#messages .message.character").last)
    expect(ada.locator("#stop")).to_be_hidden()


def test_an_owner_sends_somebody_out(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.locator("#new-room").click()
    ada.locator("#new-title").fill("My place")
    ada.locator("#room-dialog .main-button").click()
    expect(ada.locator("#invite-dialog")).to_be_visible()
    link = ada.locator("#invite-link").input_value()
    ada.keyboard.press("Escape")
    ben = people.open(link)
    expect(ben.locator("#room-title")).to_have_text("My place")
    name = str(ben.locator("#me .me-name").text_content())
    expect(ben.locator(".member", has_text=name).locator(".member-more")).to_have_count(0)
    act(ada, name, "Send out of the room")
    expect(ben.locator("#room-title")).to_have_text("Lobby")
    ben.goto(link)
    expect(ben.locator("#room-title")).to_have_text("My place")
    act(ada, name, "Ban from the room")
    ada.locator("#confirm-dialog .main-button").click()
    expect(ben.locator("#room-title")).to_have_text("Lobby")
    ben.goto(link)
    expect(ben.locator("#toasts")).to_contain_text("no such room")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_pictures(people: People, server: Server, tmp_path: Path, screen: str, scheme: str) -> None:
    page = people.open(server.url, color_scheme=scheme, **SCREENS[screen])
    if screen == "phone":
        page.locator("#open-sidebar").click()
    page.locator("#new-room").click()
    page.locator("#scenario-preset").select_option(index=1)
    page.locator("#card-file").set_input_files(
        {"name": "m.png", "mimeType": "image/png", "buffer": png()}
    )
    expect(page.locator("#cast-note")).to_have_text("Mira is in the list.")
    page.locator("#cast-note").scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / f"{screen}-{scheme}-cast.png")
    choice(page, "Mira").get_by_label("Edit Mira").click()
    page.locator("#add-trigger").click()
    page.screenshot(path=tmp_path / f"{screen}-{scheme}-character-end.png")
    page.locator("#character-name").scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / f"{screen}-{scheme}-character.png")
    for dialog in ("#character-dialog", "#room-dialog"):
        assert page.locator(dialog).evaluate("box => box.scrollWidth <= box.clientWidth"), dialog
    page.locator("#character-dialog .main-button").click()
    page.locator("#room-dialog .main-button").click()
    expect(page.locator("#invite-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    if screen == "phone":
        page.locator("#open-members").click()
    page.locator(".member", has_text="Mira").get_by_label("What can be done with").click()
    expect(page.locator("#member-menu")).to_be_visible()
    page.screenshot(path=tmp_path / f"{screen}-{scheme}-members.png")
    menu = page.locator("#member-menu").bounding_box()
    assert menu is not None
    size = SCREENS[screen]["viewport"]
    assert menu["y"] + menu["height"] <= size["height"]
    assert menu["x"] >= 0
    assert overflow(page) <= 0
    print(f"pictures in {tmp_path}")
