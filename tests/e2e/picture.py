"""Makes docs/hubbub.png: `python -m tests.e2e.picture`. Two people and a scripted model."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from playwright.sync_api import Page, expect, sync_playwright

from llm.provider import Request
from tests.e2e.conftest import CHROMIUM, PATIENCE_MS, SWITCHES
from tests.e2e.steps import ended, rename, reply_to, say
from tests.server import ROOT, running_server

SIZE = {"width": 1280, "height": 800}

PLAY = {
    "Where shall we": """\
Some ideas that two days are enough for:

- **The coast path**: 18 km along the cliffs, a ferry back, a bakery in the middle
- **The old observatory**: open on Saturday nights, if the sky is clear
- **The salt mine**: warm socks needed, good in any weather

Do you want to walk, or to sit and look at something?
""",
    "observatory": """\
Then take the bus at **16:40**, it stops below the hill. Bring something warm and a red torch; \
white light makes you unpopular up there. In November you may see:

1. Jupiter with its four large moons
2. The Andromeda galaxy, 2.5 million years old when it reaches you
3. With luck, a few Leonids
""",
    "three sentences": """\
An observatory is a house with a lid. You open it when everybody else goes to bed, and look at \
light that set out before there were beds. Then you have a sandwich, and nothing
""",
}


async def answer(request: Request) -> AsyncIterator[str]:
    """Say what is written for the newest prompt; the last one goes on for as long as one looks."""
    key = next((key for key in PLAY if key in request.messages[-1].content.splitlines()[-1]), "")
    for word in PLAY[key].split(" "):
        yield word + " "
        await trio.sleep(0.01)
    if key == "three sentences":
        await trio.sleep(600)


def play(alice: Page, bob: Page) -> None:
    """Have the conversation."""
    rename(alice, "Alice")
    rename(bob, "Bob")
    for title in ("Book club", "Kitchen table"):
        alice.locator("#new-room").click()
        alice.locator("#new-title").fill(title)
        alice.locator("#new-title").press("Enter")
        expect(alice.locator("#invite-dialog")).to_be_visible()
        alice.keyboard.press("Escape")
    alice.locator("#rooms .room-link").filter(has_text="Lobby").click()
    expect(alice.locator("#room-title")).to_have_text("Lobby")
    say(alice, "Bob and I have a free weekend. Where shall we go?")
    ended(reply_to(alice, "Where shall we"))
    say(bob, "The observatory! Tell us more?")
    ended(reply_to(alice, "The observatory!"))
    say(alice, "Explain it to Bob's little sister, in three sentences.")
    expect(alice.locator(".message.running .body")).to_contain_text("and nothing")
    bob.locator("#text").press_sequentially("Is it ")
    expect(alice.locator("#now")).to_contain_text("Bob")


@contextmanager
def plain_assistant() -> Iterator[str]:
    """A folder of presets with an Assistant without emoji, for machines without a font of these."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "plain.toml").write_text('[characters.assistant]\nname = "Assistant"\n')
        yield folder


def main() -> None:
    """Take the picture."""
    env = {"HUBBUB_LLM": "tests.e2e.picture:answer"}
    with (
        plain_assistant() as presets,
        running_server(env=env | {"HUBBUB_PRESETS": presets}) as server,
        sync_playwright() as playwright,
    ):
        expect.set_options(timeout=PATIENCE_MS)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        pages = [browser.new_context(viewport=SIZE).new_page() for _ in range(2)]  # type: ignore[arg-type]
        for page in pages:
            page.goto(server.url)
            expect(page.locator("#member-list .member").first).to_be_attached()
        play(*pages)
        pages[0].screenshot(path=ROOT / "docs" / "hubbub.png")
        browser.close()


if __name__ == "__main__":
    main()
