"""What people do on the page, in one line each."""

import re

from playwright.sync_api import Locator, Page, expect

# Notes each text that a streaming reply had, as somebody who watches would see it.
WATCH = """() => {
  window.seen = [];
  const look = () => {
    const body = document.querySelector(".message.running .body");
    const text = body?.textContent;
    if (text && text !== window.seen.at(-1)) window.seen.push(text);
  };
  new MutationObserver(look).observe(document.querySelector("#messages"), {
    childList: true, subtree: true, characterData: true,
  });
}"""


def say(page: Page, text: str) -> None:
    page.locator("#text").fill(text)
    page.locator("#text").press("Enter")


def message(page: Page, text: str) -> Locator:
    """What a person wrote; the demo quotes people."""
    return page.locator("#messages .message.human").filter(has_text=text)


def reply_to(page: Page, text: str) -> Locator:
    """The first reply after what a person wrote."""
    after = "xpath=following-sibling::li[contains(@class, 'character')][1]"
    return message(page, text).first.locator(after)


def ended(reply: Locator, status: str = "done") -> None:
    expect(reply).to_have_class(re.compile(rf"\b{status}\b"))


def kept_text(page: Page, reply: Locator) -> str:
    """The text as the page holds it, token upon token, by its own button for copying."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    reply.hover()
    reply.locator(".tools").get_by_label("Copy").click()
    expect(reply.locator(".tools").get_by_label("Copied")).to_be_visible()
    return str(page.evaluate("navigator.clipboard.readText()"))


def stored_text(page: Page, reply: Locator, room: str = "lobby") -> str:
    """The text as the server has stored it."""
    id = (reply.get_attribute("id") or "").removeprefix("m-")
    messages = page.evaluate(
        "async (room) => (await (await fetch(`/api/rooms/${room}/messages`)).json()).messages", room
    )
    return next(str(one["text"]) for one in messages if one["id"] == id)


def rename(page: Page, name: str) -> None:
    page.locator("#me").click()
    page.locator("#name").fill(name)
    page.locator("#name").press("Enter")
    expect(page.locator("#me .me-name")).to_have_text(name)


def grow(watcher: Page) -> list[str]:
    return [str(text) for text in watcher.evaluate("window.seen")]
