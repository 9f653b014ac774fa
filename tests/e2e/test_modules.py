"""The page's pure modules, in the browser that runs them."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Page

from tests.e2e.conftest import People
from tests.server import Server

pytestmark = pytest.mark.browser

Run: TypeAlias = Callable[[str, str], Any]


@pytest.fixture
def run(people: People, server: Server) -> Run:
    """Run a function body with a module's exports as `m`; must be called in the test."""
    pages: list[Page] = []

    def call(module: str, body: str) -> Any:
        if not pages:
            pages.append(people.open(server.url))
        script = f"async () => {{ const m = await import('/modules/{module}'); {body} }}"
        return pages[0].evaluate(script)

    return call


def test_pauses_grow_and_are_capped_and_jittered(run: Run) -> None:
    low, high = run(
        "backoff.js",
        """return [() => 0, () => 1].map((random) =>
             [0, 1, 2, 3, 10, 1000].map((n) => m.pause(n, { random })));""",
    )
    assert low == [250, 500, 1000, 2000, 15_000, 15_000]
    assert high == [500, 1000, 2000, 4000, 30_000, 30_000]
    assert run("backoff.js", "return m.pause(0, { random: () => 0, overloaded: true })") >= 2500


def test_a_cursor_gives_each_event_once_and_in_order(run: Run) -> None:
    got = run(
        "cursor.js",
        """const c = new m.Cursor("e", 5);
           return [4, 5, 6, 6, 9, 8].map((n) => [c.accept(n, n), c.gap])
             .concat([[c.accept(7, 7), c.gap]]);""",
    )
    assert got == [
        [[], False],
        [[], False],
        [[6], False],
        [[], False],
        [[], True],
        [[], True],
        [[7, 8, 9], False],
    ]


def test_the_outbox_keeps_order_and_txn(run: Run) -> None:
    got = run(
        "outbox.js",
        """const kept = {};
           const storage = { getItem: (k) => kept[k] ?? null, setItem: (k, v) => (kept[k] = v) };
           const box = new m.Outbox(storage);
           const one = box.add({ room: "a", text: "1" });
           box.add({ room: "a", text: "2" });
           box.fail(one.txn, "no");
           const again = new m.Outbox(storage);
           const next = again.next("a").text;
           again.retry(one.txn);
           return [next, again.next("a").txn === one.txn, again.of("b").length,
                   new m.Outbox(null).items.length];""",
    )
    assert got == ["2", True, 0, 0]


def test_events_over_a_snapshot_equal_a_fresh_snapshot(run: Run) -> None:
    early, late = run(
        "state.js",
        """
        const author = (id, kind) => ({ id, name: id, kind });
        const message = (id, text, more) => ({ id, room: "r", author: author("ada", "human"), text,
          html: text, at: "2026-01-01T00:00:00Z", status: "done", demo: false, private: false,
          ...more });
        const reply = (id, text, status) =>
          message(id, text, { author: author("bot", "character"), status });
        const room = m.newRoom("r");
        m.applySnapshot(room, { room: { id: "r", title: "R" }, members: [],
          messages: [message("1", "hi")], replies: [reply("2", "so f", "running")] });
        for (const [name, payload] of [
          ["token", { id: "2", text: "ar" }],
          ["token", { id: "nowhere", text: "x" }],
          ["message", { message: message("4", "later") }],
          ["message", { message: message("3", "between") }],
          ["message_end", { id: "2", status: "done", html: "so far", usage: null }],
          ["token", { id: "2", text: "too late" }],
          ["message_start", { message: reply("5", "", "running") }],
          ["message_removed", { id: "1" }],
          ["member_joined", { member: author("ada", "human") }],
          ["member_joined", { member: author("ben", "human") }],
          ["member_left", { member: author("ada", "human") }],
          ["room_updated", { settings: { title: "New" } }],
          ["an_event_of_tomorrow", {}],
        ]) m.applyEvent(room, name, payload);
        const fresh = m.newRoom("r");
        m.applySnapshot(fresh, { room: { id: "r", title: "New" },
          members: [author("ben", "human")],
          messages: [{ ...reply("2", "so far", "done"), usage: null },
            message("3", "between"), message("4", "later")],
          replies: [reply("5", "", "running")] });
        const show = (r) => JSON.stringify([r.info, r.order,
          r.order.map((id) => r.messages.get(id)), [...r.members.values()]]);
        return [show(room), show(fresh)];
        """,
    )
    assert early == late


def test_who_is_addressed(run: Run) -> None:
    got = run(
        "view/mentions.js",
        """const cast = ["Ann", "Ann Lee", "Bo"].map((name) => ({ name }));
           return ["@Ann Lee hi", "@ann, @bo?", "mail@Bo.org", "@Bob", ""].map((text) =>
             m.mentioned(text, cast));""",
    )
    assert got == [["Ann Lee"], ["Ann", "Bo"], [], [], []]


def test_long_streams_cost_the_same_per_token(run: Run) -> None:
    """Each flush touches only the last line: nodes are appended, none is made anew."""
    got = run(
        "view/streaming.js",
        """const box = document.createElement("div");
           const stream = new m.Streaming(box, "first\\nline");
           const [first] = box.childNodes;
           for (let n = 0; n < 2000; n += 1) {
             stream.push(`w${n} `);
             if (n % 10 === 0) stream.push("\\n");
           }
           stream.flush();
           const removed = box.firstChild !== first;
           return [removed, box.children.length, box.lastChild.childNodes.length < 3];""",
    )
    assert got == [False, 202, True]
