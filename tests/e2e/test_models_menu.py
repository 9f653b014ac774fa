"""Which model answers, what its replies took, and when it is enough: seen on the page."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from playwright.sync_api import Page, expect

from tests.e2e.cloud import cloud
from tests.e2e.conftest import People
from tests.e2e.steps import ended, message, reply_to, say
from tests.server import Server, running_server

pytestmark = pytest.mark.browser

# 1,234 tokens a reply: the fourth is one too many.
CATALOGUE = """
[[model]]
name = "quick"
provider = "openai"
base_url = "{url}"
model = "q-1"
price = {{ input = 1.0, output = 10.0 }}
limits = {{ calls = 1 }}

[[model]]
name = "wise"
provider = "openai"
base_url = "{url}"
model = "w-1"

[budget.user]
tokens = 3700

[cache]
use = "always"
"""


@frozen
class Place:
    """A hub with two models; `held` lets slow replies go."""

    server: Server
    held: threading.Event

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    data = tmp_path / "data"
    data.mkdir()
    with cloud() as (url, held):
        (tmp_path / "hubbub.toml").write_text(CATALOGUE.format(url=url))
        env = {"HUBBUB_LLM": "", "HUBBUB_ROLLUP": "0"}
        with running_server(env=env, data=data, folder=tmp_path) as server:
            yield Place(server, held)


def own_room(people: People, place: Place, **context: Any) -> Page:
    page = people.open(place.url, **context)
    new_room(page)
    return page


def new_room(page: Page) -> None:
    before = page.url
    if page.locator("#open-sidebar").is_visible():
        page.locator("#open-sidebar").click()
    page.locator("#new-private").click()
    expect(page).not_to_have_url(before)
    expect(page.locator("#messages .message")).to_have_count(0)


def picked(page: Page, name: str) -> None:
    expect(page.locator("#model option:checked")).to_have_text(name)


def test_the_menu_picks_the_model_of_a_room(people: People, place: Place) -> None:
    page = own_room(people, place)
    picked(page, "quick (usual)")
    assert page.get_by_label("Model of this room").locator("option").all_text_contents() == [
        "quick (usual)",
        "quick",
        "wise",
    ]
    page.get_by_label("Model of this room").select_option("wise")
    expect(page.locator("#toasts")).to_contain_text("wise answers in this room")
    say(page, "Hello")
    ended(reply_to(page, "Hello"))
    expect(reply_to(page, "Hello").locator(".body")).to_contain_text("w-1 heard: ")
    page.reload()
    picked(page, "wise")
    expect(page.locator("#member-list")).to_contain_text("Answers come from wise.")
    say(page, "/model quick")
    picked(page, "quick")
    expect(message(page, "/model")).to_have_count(0)
    say(page, "/model")
    expect(page.locator("#toasts")).to_contain_text("quick, wise")
    say(page, "/model gone")
    expect(page.locator("#toasts")).to_contain_text("There is no model “gone” here.")
    picked(page, "quick")


def test_who_may_not_pick_sees_what_was_picked(people: People, place: Place) -> None:
    page = people.open(place.url)
    expect(page.locator("#model")).to_be_disabled()
    picked(page, "quick (usual)")
    say(page, "/model wise")
    expect(page.locator("#toasts")).to_contain_text("Only who made this room")


def test_what_a_reply_took(people: People, place: Place) -> None:
    page = own_room(people, place)
    say(page, "Hello")
    reply = reply_to(page, "Hello")
    ended(reply)
    expect(reply.locator(".took")).to_be_hidden()
    reply.hover()
    reply.get_by_label("What this reply took").click()
    line = reply.locator(".took")
    expect(line).to_have_text(
        re.compile(
            r"quick · first word after (under )?\d+\.\d s · (under )?\d+\.\d s in all"
            r" · 1,200 tokens read, 34 written · cost 0\.00154"
        )
    )
    reply.get_by_label("What this reply took").click()
    expect(line).to_be_hidden()


def test_an_answer_that_is_known_is_marked(people: People, place: Place) -> None:
    page = own_room(people, place)
    for cached in (0, 1, 1):
        # Rooms in which the same person says the same: the prompts are equal, word for word.
        say(page, "What is a log?")
        reply = reply_to(page, "What is a log?")
        ended(reply)
        expect(reply.locator(".mark.cached")).to_have_count(cached)
        if cached:
            expect(reply.locator(".mark.cached")).to_have_text("from the cache")
            place.server.restart()  # it is in the store
            expect(page.locator("body")).not_to_have_class(re.compile("offline"))
        new_room(page)


def test_the_place_in_the_queue_is_shown(people: People, place: Place) -> None:
    first, second, third = (own_room(people, place) for _ in range(3))
    say(first, "A slow one, please")
    expect(reply_to(first, "A slow one").locator(".body")).to_contain_text("heard:")
    say(second, "And me")
    expect(second.locator("#now")).to_contain_text("Waiting for the model, 1st in line")
    say(third, "And me too")
    expect(third.locator("#now")).to_contain_text("Waiting for the model, 2nd in line")
    second.locator("#stop").click()
    expect(third.locator("#now")).to_contain_text("1st in line")
    place.held.set()
    ended(reply_to(third, "And me too"))
    expect(third.locator("#now")).not_to_contain_text("Waiting")


def test_over_budget_is_a_clear_sentence(people: People, place: Place) -> None:
    page = own_room(people, place)
    for number in range(3):
        say(page, f"Question {number}")
        ended(reply_to(page, f"Question {number}"))
    say(page, "One more")
    reply = reply_to(page, "One more")
    ended(reply, "failed")
    sentence = re.compile(
        r"You have used up what you may ask of the models in a day\. "
        r"It goes on at \d{4}-\d\d-\d\d 00:00 UTC\."
    )
    expect(reply.locator(".error")).to_have_text(sentence)
    place.server.restart()  # which doesn't make it a new day
    expect(page.locator("body")).not_to_have_class(re.compile("offline"))
    say(page, "And now?")
    expect(reply_to(page, "And now?").locator(".error")).to_have_text(sentence)


def test_only_a_room_that_a_demo_answers_says_so(people: People, tmp_path: Path) -> None:
    with cloud() as (url, _):
        listed = CATALOGUE.format(url=url)
        demo = '[[model]]\nname = "pretend"\nprovider = "demo"\n'
        (tmp_path / "hubbub.toml").write_text(demo + listed)
        with running_server(env={"HUBBUB_LLM": ""}, folder=tmp_path) as server:
            page = people.open(server.url)
            new_room(page)
            expect(page.locator("#demo")).to_be_visible()
            page.get_by_label("Model of this room").select_option("wise")
            expect(page.locator("#demo")).to_be_hidden()
            say(page, "Hello")
            ended(reply_to(page, "Hello"))
            expect(reply_to(page, "Hello").locator(".tag.demo")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_pictures(people: People, place: Place, tmp_path: Path, width: int, scheme: str) -> None:
    page = own_room(people, place, viewport={"width": width, "height": 740}, color_scheme=scheme)
    say(page, "What is a log?")
    reply = reply_to(page, "What is a log?")
    ended(reply)
    reply.hover()
    reply.get_by_label("What this reply took").click()
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    print(f"pictures in {tmp_path}")
