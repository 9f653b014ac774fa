"""The connection goes; the page comes back with exactly what it would have had."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.e2e.conftest import People
from tests.e2e.relay import Relay
from tests.e2e.steps import ended, kept_text, message, reply_to, say, stored_text
from tests.server import Server

pytestmark = pytest.mark.browser


def test_a_cut_wire_in_mid_reply(people: People, own_server: Callable[..., Server]) -> None:
    server = own_server(HUBBUB_DEMO_RATE="15")
    relay = Relay(server.port)
    try:
        ada, ben = people.open(relay.url), people.open(server.url)
        say(ada, "Go on for a while")
        reply = reply_to(ada, "Go on for a while")
        expect(reply.locator(".streaming div").first).to_be_visible()
        before = reply.locator(".body").inner_text()
        relay.cut()
        expect(ada.locator("#connection")).to_be_visible()
        expect(ada.locator("#connection-text")).to_contain_text("Connection lost")
        say(ben, "Said meanwhile")
        expect(message(ben, "Said meanwhile")).to_be_visible()
        relay.mend()
        ada.evaluate("window.dispatchEvent(new Event('online'))")
        expect(ada.locator("#connection")).to_be_hidden()
        ended(reply)
        text = kept_text(ada, reply)
        assert text == stored_text(ben, reply)
        assert text.startswith(before.strip()[:20])
        expect(message(ada, "Said meanwhile")).to_have_count(1)
        expect(ada.locator(".divider.new")).to_have_count(0)
        expect(message(ada, "Go on for a while")).to_have_count(1)
    finally:
        relay.close()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_server_that_goes_in_mid_reply(
    people: People, own_server: Callable[..., Server], how: str
) -> None:
    server = own_server(HUBBUB_DEMO_RATE="10")
    ada = people.open(server.url)
    say(ada, "What was that?")
    reply = reply_to(ada, "What was that?")
    expect(reply.locator(".streaming div").first).to_be_visible()
    getattr(server, how)()
    expect(ada.locator("#connection")).to_be_visible()
    say(ada, "Written while it was away")
    expect(ada.locator("#pending")).to_contain_text("Written while it was away")
    server.restart()
    expect(ada.locator("#connection")).to_be_hidden()
    ended(reply, "interrupted")
    expect(reply).to_contain_text(re.compile("Go on|Try again"))  # with text, or without
    assert kept_text(ada, reply) == stored_text(ada, reply)
    expect(message(ada, "Written while it was away")).to_have_count(1)
    expect(ada.locator("#pending .message")).to_have_count(0)
    expect(message(ada, "What was that?")).to_have_count(1)


def test_what_was_not_sent_survives_a_reload(
    people: People, own_server: Callable[..., Server]
) -> None:
    ada = people.open(own_server().url)
    put_back = """() => sessionStorage.setItem("hubbub.outbox", JSON.stringify([
      { txn: "t1", room: "lobby", text: "From the outbox", at: "", error: null },
    ]))"""
    for _ in range(2):  # the second time it is the same txn again
        ada.evaluate(put_back)
        ada.reload()
        expect(message(ada, "From the outbox")).to_have_count(1)
        expect(ada.locator("#pending .message")).to_have_count(0)


def test_a_frame_that_got_lost_is_fetched_again(people: People, server: Server) -> None:
    """Offsets rise by one: a gap is seen at once, and filled from the log."""
    ada = people.open(server.url)
    dropped: list[str] = []

    def lossy(near: WebSocketRoute) -> None:
        far = near.connect_to_server()

        def pass_on(frame: str | bytes) -> None:
            text = str(frame)
            if text.startswith('["token"') and len(dropped) < 2:
                dropped.append(text)
            else:
                near.send(frame)

        far.on_message(pass_on)

    ada.route_web_socket("**/ws?*", lossy)
    ada.reload()
    say(ada, "Say it whole")
    reply = reply_to(ada, "Say it whole")
    ended(reply)
    assert len(dropped) == 2
    assert kept_text(ada, reply) == stored_text(ada, reply)


def test_who_was_logged_out_does_not_come_back(people: People, server: Server) -> None:
    ada = people.open(server.url)
    ada.evaluate(
        """async () => {
          const { csrf } = await (await fetch("/api/session")).json();
          await fetch("/api/session", { method: "DELETE", headers: { "X-CSRF-Token": csrf } });
        }"""
    )
    expect(ada.locator("#connection")).to_contain_text("logged out")
    expect(ada.locator("#retry")).to_have_text("Reload")
    ada.locator("#retry").click()
    expect(ada.locator("#member-list .member", has_text="you")).to_be_visible()
    expect(ada.locator("#connection")).to_be_hidden()
