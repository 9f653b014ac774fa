"""People come in by the page: with a password, by an invitation, and are put out again."""

from collections.abc import Callable
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import People
from tests.server import Server
from tests.test_accounts_command import PASSWORD, hubbub

pytestmark = pytest.mark.browser


def fill(page: Page, name: str) -> None:
    page.locator("#entrance-name").fill(name)
    page.locator("#password").fill(PASSWORD)
    page.locator("#entrance-dialog [type=submit]").click()


def is_in(page: Page) -> None:
    expect(page.locator("#entrance-dialog")).to_be_hidden()
    expect(page.locator("#member-list .member").first).to_be_attached()


def test_an_account_and_an_invitation_and_the_way_out(
    people: People, own_server: Callable[..., Server]
) -> None:
    server = own_server(HUBBUB_AUTH="invite")
    hubbub("user", "add", "Ada", folder=server.data, given=PASSWORD)
    page = people.open(server.url, ready=False)
    fill(page, "Nobody")
    expect(page.locator("#entrance-dialog .error")).to_contain_text("don't belong together")
    fill(page, "ada")
    is_in(page)
    page.reload()
    is_in(page)

    invitation = hubbub("invite", folder=server.data).strip()
    guest = people.open(urljoin(server.url, invitation), ready=False)
    fill(guest, "Bob")
    is_in(guest)
    assert "hub_" not in guest.url

    hubbub("user", "disable", "Bob", folder=server.data)
    expect(guest.locator("#connection-text")).to_contain_text("disabled")
    guest.reload()
    fill(guest, "Bob")
    expect(guest.locator("#entrance-dialog .error")).to_contain_text("disabled")


def test_a_guest_makes_an_account_and_keeps_the_name(
    people: People, own_server: Callable[..., Server]
) -> None:
    server = own_server()
    page = people.open(server.url)
    expect(page.locator("#entrance-dialog")).to_be_hidden()
    answer = page.request.get(urljoin(server.url, "/api/session")).json()
    made = page.request.post(
        urljoin(server.url, "/api/users"),
        data={"name": "Ada", "password": PASSWORD},
        headers={"x-csrf-token": answer["csrf"], "content-type": "application/json"},
    )
    assert made.json()["user"]["id"] == answer["user"]["id"]
    page.reload()
    is_in(page)
    again = page.request.get(urljoin(server.url, "/api/session")).json()
    assert again["user"] == {
        "id": answer["user"]["id"],
        "name": "Ada",
        "guest": False,
        "role": "user",
    }
