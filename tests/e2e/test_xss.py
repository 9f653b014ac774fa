"""Hostile texts in a real browser: nothing of them runs, nothing leaves, all is shown as text.

The payloads (`payloads.json`) go everywhere that text of people and models goes. One page has
the usual Content-Security-Policy, and any violation of it fails the test: it means that the
first line of defence was passed. Another page is without any, so that what is passed runs.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from attrs import define, field
from playwright.sync_api import Browser, Page, Request, expect

from tests.e2e.attack import SETTINGS, Attacker, attack, encoded, tidy
from tests.e2e.conftest import CHROMIUM, PATIENCE_MS, SWITCHES
from tests.e2e.hostile import FAILURES, PAYLOADS, TEXTS
from tests.e2e.steps import say
from tests.server import Server, running_server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

TRAPS = Path(__file__).with_name("traps.js")
ELSEWHERE = "evil.localhost"

# What is not Markdown must be there letter by letter. (Entities are Markdown.)
AS_TEXT = [
    text
    for kind in ("script", "handler", "namespace", "mutation", "css", "request", "breakout")
    for text in PAYLOADS[kind]
    if "&" not in text and "[" not in text
]

OPEN_EACH = """async (titles) => {
  const wrong = [];
  const shown = (title) => document.querySelector("#room-title").textContent === title;
  const frame = () => new Promise((done) => setTimeout(done, 4));
  for (const [id, title] of Object.entries(titles)) {
    const link = document.querySelector(`[data-room="${id}"]`);
    if (!link) { wrong.push(["not listed", title]); continue; }
    if (link.querySelector(".room-title").textContent !== title) wrong.push(["listed", title]);
    link.click();
    const about = document.querySelector("#member-list");
    const until = performance.now() + 10_000;
    const there = () =>
      shown(title) && document.title.includes(title) && about.querySelector(".emoji");
    while (!there() && performance.now() < until) await frame();
    if (!there()) wrong.push(["not shown", title]);
  }
  return wrong;
}"""

SPOILT = """() => [
  ...(String(Object.getOwnPropertyNames(Object.prototype)) === keysOfAll ? [] : ["prototypes"]),
  ...["text", "messages", "toasts", "composer"].filter(
    (id) => document.querySelectorAll(`[id="${id}"]`).length !== 1,
  ),
  ...(document.baseURI.startsWith(location.origin) ? [] : ["base"]),
  ...(frames.length ? ["frames"] : []),
]"""


@define(slots=False)  # Playwright marks the object of a bound method
class Lair:
    """Browsers full of traps. `sent` is every request that was not for our own server."""

    browser: Browser
    url: str
    log: Path
    sent: list[str] = field(factory=list)
    pages: list[Page] = field(factory=list)

    def open(
        self,
        path: str = "",
        *,
        cookie: tuple[str, str] | None = None,
        route: Any = None,
        **context: Any,
    ) -> Page:
        opened = self.browser.new_context(viewport={"width": 1280, "height": 800}, **context)
        opened.set_default_timeout(PATIENCE_MS)
        opened.add_init_script(path=TRAPS)
        if cookie is not None:
            opened.add_cookies([{"name": cookie[0], "value": cookie[1], "url": self.url}])
        opened.on("request", self._note)
        if route is not None:
            opened.route_web_socket(re.compile(r"/ws\b"), route)
        page = opened.new_page()
        page.on("dialog", lambda dialog: self._wrong(f"dialog {dialog.message}", dialog.dismiss))
        page.on("popup", lambda popup: self._wrong(f"popup {popup.url}"))
        page.on("pageerror", lambda error: self._wrong(f"error {error}"))
        page.on("framenavigated", lambda frame: self._home(frame.url))
        self.pages.append(page)
        page.goto(self.url + path)
        expect(page.locator("#member-list .member").first).to_be_attached()
        return page

    def looked_up(self) -> list[str]:
        """What its network stack had to do with other machines; this ends the browser."""
        self.browser.close()
        return re.findall(rf'[^"]*{ELSEWHERE}[^"]*', self.log.read_text())

    def _note(self, request: Request) -> None:
        if not request.url.startswith((self.url, self.url.replace("http", "ws", 1))):
            self.sent.append(request.url)

    def _home(self, url: str) -> None:
        if not url.startswith(self.url):
            self._wrong(f"navigated to {url}")

    def _wrong(self, what: str, then: Any = lambda: None) -> None:
        self.sent.append(what)
        then()

    def caught(self) -> list[str]:
        """All that must not have happened."""
        found = list(self.sent)
        for page in self.pages:
            found += page.evaluate("[...caught]")
            found += page.evaluate(SPOILT)
        return found


@pytest.fixture(scope="module")
def hostile_server() -> Iterator[Server]:
    with running_server(env=SETTINGS) as server:
        yield server


@pytest.fixture
def lair(
    chromium: Browser, browser_thread: ThreadPoolExecutor, hostile_server: Server, tmp_path: Path
) -> Iterator[Lair]:
    """A browser of its own, which logs its whole network stack, name lookups included."""
    log = tmp_path / "net.json"

    def launch() -> Browser:
        switches = [*SWITCHES, f"--log-net-log={log}"]
        return chromium.browser_type.launch(executable_path=CHROMIUM, args=switches)

    lair = Lair(browser_thread.submit(launch).result(), hostile_server.url, log)
    yield lair
    browser_thread.submit(lair.browser.close).result()


def test_nothing_of_it_runs(lair: Lair) -> None:
    assert len(set(TEXTS)) >= 150
    victim, bare = lair.open(), lair.open(bypass_csp=True)
    with ThreadPoolExecutor(1) as apart:
        enemy = apart.submit(attack, lair.url).result()
    assert len(enemy.names) > 200
    assert enemy.ends["done"] > 250
    look_at_the_lobby(lair, victim, bare)
    for page, places in ((victim, enemy.places[::2]), (bare, enemy.places[1::2])):
        assert page.evaluate(OPEN_EACH, {place.id: place.title for place in places}) == []
    look_at_games(bare, enemy)
    look_as_its_owner(lair, enemy)
    whisper_and_search(victim)
    save(bare, enemy)
    assert lair.caught() == []
    assert lair.looked_up() == []


def look_at_the_lobby(lair: Lair, *pages: Page) -> None:
    """All that was said while the pages looked on, and once more as what has been said before."""
    for page in pages:
        expect(page.locator("#messages .message.human")).to_have_count(len(TEXTS) + FAILURES)
        expect(page.locator("#messages .message.running")).to_have_count(0)
        for kind in ("human", "character"):
            bodies = page.locator(f"#messages .message.{kind} .body").all_text_contents()
            shown = {squashed(text) for text in bodies}
            lost = [text for text in AS_TEXT if squashed(text) not in shown]
            assert len(lost) <= (kind == "character"), lost  # one looks like a speaker's label
        page.reload()
        expect(page.locator("#messages .message.character").first).to_be_attached()


def squashed(text: str) -> str:
    """What stays the same however Markdown lays a text out."""
    return re.sub(r"[\W_]", "", text)


def look_at_games(page: Page, enemy: Attacker) -> None:
    assert enemy.games
    for path in enemy.games:
        page.goto(enemy.url + path)
        expect(page.locator("#messages .message.system .body").first).to_contain_text("Players:")


def look_as_its_owner(lair: Lair, enemy: Attacker) -> None:
    """Dialogs that only the owner of a room sees, and one's own hostile name."""
    page = lair.open(cookie=enemy.cookie, bypass_csp=True)
    expect(page.locator("#me .me-name")).to_have_text(enemy.names[-1])
    for place in enemy.places[::50]:
        page.goto(f"{lair.url}?room={place.id}")
        expect(page.locator("#room-title")).to_have_text(place.title, use_inner_text=False)
        page.locator("#open-menu").click()
        page.locator("#room-settings").click()
        expect(page.locator("#new-title")).to_have_value(place.title)
        expect(page.locator("#cast .choice").first).to_be_visible()
        page.keyboard.press("Escape")
        page.locator("#open-menu").click()
        page.locator("#delete-room").click()
        expect(page.locator("#confirm-title")).to_contain_text(place.title)
        page.keyboard.press("Escape")
        page.locator("#text").press_sequentially("@")
        expect(page.locator("#mentions [role=option]").first).to_be_visible()
        page.locator("#text").fill("")


def whisper_and_search(page: Page) -> None:
    page.goto(page.url.split("?")[0])
    expect(page.locator("#room-title")).to_have_text("Lobby")
    page.locator("#only-me").click()
    for text in TEXTS[::20]:
        say(page, tidy(text))
        expect(page.locator(".pending")).to_have_count(0)
    expect(page.locator(".whisper.human")).to_have_count(len(TEXTS[::20]))
    expect(page.locator(".message.running")).to_have_count(0)
    page.locator("#open-search").click()
    for query in ("script", "onerror", "javascript", "svg", "pwn", "style"):
        page.locator("#query").fill(query)
        page.locator("#query").press("Enter")
        expect(page.locator("#results mark").first).to_have_text(query, ignore_case=True)
    page.locator("#query").fill("<img src=x onerror=pwn()>")
    page.locator("#query").press("Enter")
    expect(page.locator("#search-note")).not_to_have_text("Searching…")


def save(page: Page, enemy: Attacker) -> None:
    """A transcript is saved, never shown, whoever gives its address to whom."""
    for room in ("lobby", enemy.places[0].id):
        for format in ("md", "json", "jsonl"):
            path = f"/api/rooms/{room}/export?format={format}"
            with page.expect_download() as saved:
                page.evaluate("path => { location.href = path; }", path)
            text = Path(saved.value.path()).read_text()
            assert room != "lobby" or "<script>pwn()</script>" in text


def test_errors_are_text_too(lair: Lair) -> None:
    """What a server says is wrong, were it to quote somebody."""
    sockets: list[Any] = []

    def between(socket: Any) -> None:
        sockets.append(socket)
        socket.connect_to_server()

    page = lair.open(bypass_csp=True, route=between)
    for text in TEXTS:
        sockets[-1].send(encoded(["error", {"code": "x", "message": text}, None]))
        expect(page.locator("#toasts .toast").last).to_have_text(text)
    assert lair.caught() == []


@pytest.mark.parametrize("room", ["__proto__", "constructor", "<img src=x onerror=pwn()>", "../x"])
def test_addresses_that_lead_nowhere(lair: Lair, room: str) -> None:
    for bare in (False, True):
        page = lair.open(f"?room={quote(room)}", bypass_csp=bare)
        expect(page.locator("#room-title")).to_have_text("Lobby")
    assert lair.caught() == []


def test_the_traps_catch(lair: Lair) -> None:
    """Else the tests above would pass whatever happened."""
    guarded, bare = lair.open(), lair.open(bypass_csp=True)
    hostile = f"<img src=http://{ELSEWHERE}/ onerror=pwn()>"
    for page in (guarded, bare):
        page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", hostile)
    bare.wait_for_function("caught.some((what) => what.startsWith('a script ran'))")
    guarded.wait_for_function("caught.some((what) => what.startsWith('the policy had to stop'))")
    caught = " ".join(lair.caught())
    assert f"http://{ELSEWHERE}/" in lair.sent
    assert "an element that is not ours" not in caught
    assert "attribute onerror" in caught
    assert lair.looked_up() != []
