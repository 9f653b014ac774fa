"""Real Chromium browsers, driven from a thread of their own.

Playwright's synchronous interface runs an asyncio loop in its thread; tests marked `browser`
run whole in that thread, so that nothing of it meets trio.
"""

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright
from playwright.sync_api import expect as expect_

from tests.server import Server, running_server

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# A busy machine may take long for what is quick elsewhere; nothing here waits for its end.
PATIENCE_MS = 20_000


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    if pyfuncitem.get_closest_marker("browser") is None:
        return None
    thread = cast("ThreadPoolExecutor", pyfuncitem.funcargs["browser_thread"])
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    thread.submit(pyfuncitem.obj, **arguments).result()
    return True


@pytest.fixture(scope="session")
def browser_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, "browser") as thread:
        yield thread


@pytest.fixture(scope="session")
def chromium(browser_thread: ThreadPoolExecutor) -> Iterator[Browser]:
    if not CHROMIUM.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{CHROMIUM} is missing")
        pytest.skip(f"{CHROMIUM} is missing")

    def launch() -> tuple[Playwright, Browser]:
        playwright = sync_playwright().start()
        expect_.set_options(timeout=PATIENCE_MS)
        return playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)

    playwright, browser = browser_thread.submit(launch).result()
    yield browser
    browser_thread.submit(browser.close).result()
    browser_thread.submit(playwright.stop).result()


class People:
    """Opens browsers of people who don't share cookies, and notes what goes wrong in them."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.errors: list[str] = []

    def open(self, url: str, *, ready: bool = True, **context: Any) -> Page:
        """Open the page as somebody new; wait until the room is there."""
        options = {"viewport": {"width": 1280, "height": 800}, **context}
        opened = self._browser.new_context(**options)
        opened.set_default_timeout(PATIENCE_MS)
        self._contexts.append(opened)
        page = opened.new_page()
        page.on("pageerror", lambda error: self.errors.append(f"{error}\n{error.stack}"))
        page.on("console", self._note)
        page.goto(url)
        if ready:
            page.locator("#rooms .room-link[aria-current]").wait_for(state="attached")
            expect_(page.locator("#room-title")).not_to_be_empty()
            expect_(page.locator("#member-list .member").first).to_be_attached()
        return page

    def _note(self, message: Any) -> None:
        # A lost connection is written to the console by the browser itself.
        if message.type == "error" and not re.search(
            r"WebSocket|ERR_|Failed to load", message.text
        ):
            self.errors.append(message.text)

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def people(chromium: Browser, browser_thread: ThreadPoolExecutor) -> Iterator[People]:
    opened = People(chromium)
    yield opened
    browser_thread.submit(opened.close).result()
    assert opened.errors == []


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A hub that the tests of a module share."""
    with running_server(env={"HUBBUB_DEMO_RATE": "60"}) as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[Callable[..., Server]]:
    """Start a hub with settings of the test's own."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda **env: stack.enter_context(running_server(env=env))
