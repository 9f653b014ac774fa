"""People in rooms, in real browsers, on a real hub."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import People
from tests.e2e.steps import (
    WATCH,
    ended,
    grow,
    kept_text,
    message,
    rename,
    reply_to,
    say,
    stored_text,
)
from tests.server import Server

pytestmark = pytest.mark.browser


def test_two_people_in_the_lobby_see_the_same_reply_grow(people: People, server: Server) -> None:
    ada, ben = people.open(server.url), people.open(server.url)
    for page in (ada, ben):
        page.evaluate(WATCH)
    say(ada, "What is a log?")
    expect(message(ben, "What is a log?")).to_be_visible()
    for page in (ada, ben):
        reply = reply_to(page, "What is a log?")
        ended(reply)
        expect(reply.locator(".tag.demo")).to_be_visible()
        growth = [text for text in grow(page) if text]
        assert len(growth) >= 5, "it did not come token by token"
        assert kept_text(page, reply) == stored_text(page, reply)
    expect(ada.locator("#demo")).to_be_visible()


def test_names_presence_and_typing(people: People, server: Server) -> None:
    ada, ben = people.open(server.url), people.open(server.url)
    rename(ada, "Ada Lovelace")
    expect(ben.locator(".member", has_text="Ada Lovelace")).to_be_visible()
    ada.locator("#text").press_sequentially("Well")
    expect(ben.locator("#now")).to_contain_text("Ada Lovelace is typing…")
    ada.locator("#text").fill("")
    expect(ben.locator("#now")).not_to_contain_text("typing")
    ada.context.close()
    expect(ben.locator(".member", has_text="Ada Lovelace")).to_have_count(0)


def test_a_private_chat_is_seen_by_nobody_else(people: People, server: Server) -> None:
    ada, ben = people.open(server.url), people.open(server.url)
    ada.locator("#new-private").click()
    expect(ada.locator("#rooms .room-link[aria-current]")).not_to_contain_text("Lobby")
    say(ada, "Between you and me")
    ended(reply_to(ada, "Between you and me"))
    ben.reload()
    expect(ben.locator("#rooms .room-link")).to_have_count(1)
    expect(message(ben, "Between you and me")).to_have_count(0)
    stranger = people.open(ada.url, ready=False)
    expect(stranger.locator("#toasts")).to_contain_text("no such room")
    expect(stranger.locator("#room-title")).to_have_text("Lobby")


def test_an_invite_link_lets_a_friend_in(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.locator("#new-room").click()
    ada.locator("#new-title").fill("Rainy night")
    ada.locator("#room-dialog .main-button").click()
    expect(ada.locator("#invite-dialog")).to_be_visible()
    link = ada.locator("#invite-link").input_value()
    ada.keyboard.press("Escape")
    ben = people.open(link)
    expect(ben.locator("#room-title")).to_have_text("Rainy night")
    assert "invite" not in ben.url, "the key stayed in the address bar"
    say(ben, "Hello from outside")
    expect(message(ada, "Hello from outside")).to_be_visible()
    ben.reload()  # a member by now, without the key
    expect(ben.locator("#room-title")).to_have_text("Rainy night")
    expect(message(ben, "Hello from outside")).to_be_visible()


def test_a_whisper_is_for_the_one_who_asked(people: People, server: Server) -> None:
    ada, ben = people.open(server.url), people.open(server.url)
    ada.locator("#only-me").click()
    say(ada, "A secret question")
    expect(message(ada, "A secret question").locator(".whisper-tag")).to_be_visible()
    reply = reply_to(ada, "A secret question")
    ended(reply)
    expect(reply.locator(".whisper-tag")).to_be_visible()
    ada.locator("#only-me").click()
    say(ada, "And now for everybody")
    expect(message(ben, "And now for everybody")).to_be_visible()
    expect(message(ben, "A secret question")).to_have_count(0)
    ada.reload()
    expect(message(ada, "A secret question")).to_be_visible()


def test_stop_ends_a_reply_for_all(people: People, own_server: Callable[..., Server]) -> None:
    server = own_server(HUBBUB_DEMO_RATE="5")
    ada, ben = people.open(server.url), people.open(server.url)
    say(ada, "Tell me everything")
    expect(reply_to(ben, "Tell me everything").locator(".streaming div").first).to_be_visible()
    ben.locator("#stop").click()
    for page in (ada, ben):
        ended(reply_to(page, "Tell me everything"), "stopped")
        expect(reply_to(page, "Tell me everything")).to_contain_text("Stopped")
        expect(page.locator("#stop")).to_be_hidden()
        expect(page.locator("#send")).to_be_visible()


def test_a_failed_reply_says_why_and_can_be_tried_again(
    people: People, own_server: Callable[..., Server]
) -> None:
    server = own_server(HUBBUB_LLM="tests.e2e.scripted:answer")
    ada = people.open(server.url)
    say(ada, "Do please fail")
    reply = reply_to(ada, "Do please fail")
    ended(reply, "failed")
    expect(reply.locator(".error")).not_to_be_empty()
    expect(ada.locator("#demo")).to_be_hidden()
    reply.get_by_role("button", name="Redo").click()
    ended(reply_to(ada, "Do please fail"))
    expect(reply_to(ada, "Do please fail")).to_contain_text("word11")
    expect(ada.locator(".message.failed")).to_have_count(0)


def test_unread_marks_and_a_room_that_is_elsewhere(people: People, server: Server) -> None:
    ada, ben = people.open(server.url), people.open(server.url)
    ada.locator("#new-private").click()
    expect(ada.locator("#room-title")).not_to_have_text("Lobby")
    say(ben, "News in the lobby")
    expect(ada.locator("[data-room=lobby] .count")).to_be_visible()
    assert ada.title().startswith("(")
    ada.locator("[data-room=lobby]").click()
    expect(message(ada, "News in the lobby")).to_be_visible()
    expect(ada.locator("[data-room=lobby] .count")).to_have_count(0)
    expect(ada.locator(".divider.new")).to_be_visible()


def test_a_reader_who_scrolled_up_is_left_in_peace(people: People, server: Server) -> None:
    ada, ben = people.open(server.url), people.open(server.url)
    for number in range(8):
        say(ada, f"Line {number}\n" + "\n".join("abcdef"))
    expect(message(ada, "Line 7")).to_be_visible()
    view = ben.locator("#transcript")
    expect(message(ben, "Line 7")).to_be_visible()
    view.hover()
    ben.mouse.wheel(0, -600)
    expect(ben.locator("#jump")).to_be_visible()
    place = view.evaluate("view => view.scrollTop")
    say(ada, "Something new")
    expect(message(ben, "Something new")).to_be_attached()
    expect(ben.locator("#jump")).to_contain_text("new message")
    assert view.evaluate("view => view.scrollTop") == place
    ben.locator("#jump").click()
    expect(message(ben, "Something new")).to_be_in_viewport()


def test_history_and_search(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.locator("#new-private").click()
    expect(ada.locator("#room-title")).not_to_have_text("Lobby")
    for number in range(60):
        say(ada, f"Entry {number:02}" + (" marmalade" if number == 3 else ""))
    expect(message(ada, "Entry 59")).to_be_visible()
    expect(ada.locator(".pending")).to_have_count(0)
    ada.reload()
    expect(message(ada, "Entry 59")).to_be_visible()
    ada.locator("#open-search").click()
    ada.locator("#query").fill("marmalade")
    result = ada.locator("#results button")
    expect(result).to_have_count(1)
    expect(result.locator("mark")).to_have_text("marmalade")
    result.click()
    expect(message(ada, "marmalade")).to_be_in_viewport()
    expect(ada.locator("#messages .human .body")).to_have_text(
        [f"Entry {number:02}" + (" marmalade" if number == 3 else "") for number in range(60)]
    )


def test_the_owner_changes_a_room_and_deletes_it(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.locator("#new-private").click()
    expect(ada.locator("#room-title")).not_to_have_text("Lobby")
    ada.locator("#open-menu").click()
    ada.locator("#room-settings").click()
    ada.locator("#new-title").fill("Another name")
    ada.locator("#scenario").fill("A quiet library.")
    ada.locator("#room-dialog .main-button").click()
    expect(ada.locator("#room-title")).to_have_text("Another name")
    expect(ada.locator("#empty")).to_contain_text("A quiet library.")
    ada.locator("#open-menu").click()
    ada.locator("#room-settings").click()
    ada.locator("#cast .choice", has_text="Lyra").click()
    ada.locator("#room-dialog .main-button").click()
    expect(ada.locator("#member-list .member", has_text="Lyra")).to_be_visible()
    expect(ada.locator("#member-list .member", has_text="Assistant")).to_be_visible()
    ada.locator("#open-menu").click()
    ada.locator("#delete-room").click()
    expect(ada.locator("#confirm-dialog")).to_contain_text("Another name")
    ada.locator("#confirm-dialog .main-button").click()
    expect(ada.locator("#room-title")).to_have_text("Lobby")
    expect(ada.locator("#rooms .room-link")).to_have_count(1)


def test_what_people_write_is_shown_and_never_run(people: People, server: Server) -> None:
    ada, ben = people.open(server.url), people.open(server.url)
    evil = "<img src=x onerror=\"document.title='pwned'\"><script>1</script> **bold** evil"
    say(ada, evil)
    shown = message(ben, "evil")
    expect(shown.locator("strong")).to_have_text("bold")
    expect(shown.locator("img, script")).to_have_count(0)
    assert "pwned" not in ben.title()


def test_a_reply_made_anew_keeps_the_earlier_one(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.locator("#new-private").click()
    expect(ada.locator("#room-title")).not_to_have_text("Lobby")
    say(ada, "Once more")
    reply = reply_to(ada, "Once more")
    ended(reply)
    first = kept_text(ada, reply)
    reply.hover()
    reply.get_by_label("Another reply").click()
    expect(ada.locator(".message.character .swipes")).to_contain_text("2 / 2")
    ended(reply)
    ada.get_by_label("Earlier reply").click()
    expect(reply.locator(".body")).to_have_text(first.strip())
    expect(ada.locator(".message.character")).to_have_count(1)


def test_a_scenario_brings_its_cast_and_all_answer(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.locator("#new-room").click()
    expect(ada.locator("#cast .choice").first).to_be_visible()
    ada.locator("#scenario-preset").select_option(label="The drowned bell")
    expect(ada.locator("#new-title")).to_have_value("The drowned bell")
    ada.locator("#room-dialog [name=visibility][value=private]").check()
    ada.locator("#room-dialog .main-button").click()
    expect(ada.locator("#room-title")).to_have_text("The drowned bell")
    cast = ["Tharin", "Lyra", "Finn"]
    expect(ada.locator("#member-list .member .member-name")).to_have_count(1 + len(cast))
    say(ada, "We row out to the bell.")
    replies = ada.locator("#messages .message.character.done")
    expect(replies).to_have_count(len(cast))
    expect(replies.locator(".name")).to_have_text(cast)
    say(ada, "@Lyra what is written on it?")
    expect(replies).to_have_count(len(cast) + 1)
    expect(replies.last.locator(".name")).to_have_text("Lyra")
    expect(ada.locator("#stop")).to_be_hidden()
    expect(replies).to_have_count(len(cast) + 1)
