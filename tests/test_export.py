"""A room as a file: who gets it, and what is in it."""

import re
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import pytest
from markdown_it import MarkdownIt

from hub.export import FORMATS, PAGE, File, disposition
from hub.records import Author, Character, Message, Room
from hub.store.contract import AddMember, AddMessage, SaveRoom, StoreError
from hub.store.memory import MemoryStore
from tests.hubs import Running, running_hub
from tests.store.making import message, room
from tests.test_api import guest


def filed(kind: str, messages: Sequence[Message], **more: Any) -> str:
    file = File(room(**more), FORMATS[kind])
    parts = [file.begin(), *(file.add([one]) for one in messages), file.add([]), file.end()]
    return b"".join(parts).decode()


# ── the formats ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_holds_the_records(count: int) -> None:
    messages = [message(f"{n}\n“ü”") for n in range(count)]
    read = msgspec.json.decode(filed("json", messages))
    assert msgspec.convert(read["messages"], list[Message]) == messages
    assert msgspec.convert(read["room"], Room) == room()


def test_jsonl_is_one_message_a_line() -> None:
    messages = [message(f"{n}\n\u2028") for n in range(3)]
    lines = filed("jsonl", messages).split("\n")
    assert lines.pop() == ""
    assert [msgspec.json.decode(line, type=Message) for line in lines] == messages


def test_an_invite_stays_out_of_files() -> None:
    for kind in FORMATS:
        assert "sesame" not in filed(kind, [message()], visibility="link", invite="sesame")


def test_markdown_reads_like_a_play() -> None:
    said = filed(
        "md",
        [
            message("Hello *there*", author="ann"),
            message(
                "Beep.",
                author="bot",
                demo=True,
                status="stopped",
                private=True,
                at="2026-11-21T09:05:59.123Z",
            ),
        ],
        title="Friday # plans",
        scenario="Rain.\n\nA door.",
        cast=[Character("bot", "Bot"), Character("gm", "G_M")],
    )
    assert said == (
        "# Friday \\# plans\n\n> Rain.\n>\n> A door.\n\nCharacters: Bot, G\\_M\n"
        "\n**Ann**, 2026-11-21 02:00 UTC\n\nHello *there*\n"
        "\n**Bot** (demo) (private) (stopped), 2026-11-21 09:05 UTC\n\nBeep.\n"
    )


def test_markdown_tells_what_is_a_machines_and_what_went_wrong() -> None:
    robot = message("", status="failed", error="The model <x> is gone.", author="bot")
    robot = msgspec.structs.replace(robot, author=Author("bot", "Bot", "character"))
    said = filed("md", [robot])
    assert "**Bot** (AI) (failed)" in said
    assert "…\n\n*The model \\<x\\> is gone.*\n" in said


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)",
        "~~~~\n```\n~~~",
        "```\na\n```\n````\nb\n```",
        "- a\n\n  ```\n  b",
        "a\n<!-- b",
        "<script>\n\n",
        "  <pre>",
        "> ```\n> a",
    ],
)
def test_what_a_text_leaves_open_ends_with_it(text: str) -> None:
    said = filed("md", [message(text), message("after", author="bob")])
    html = MarkdownIt().render(said)
    assert "<p><strong>Bob</strong>, 2026-11-21 02:00 UTC</p>\n<p>after</p>" in html


def test_markdown_that_leaves_nothing_open_stays_as_it_was() -> None:
    text = "```html\n<b>\n```\n<https://example.org>\n\n1 < 2\n\n~~~\n~~~"
    assert text in filed("md", [message(text)])


@pytest.mark.parametrize(
    ("title", "plain", "whole"),
    [
        ("Lobby", "hubbub-Lobby.md", "hubbub-Lobby.md"),
        ("Caf\u00e9 \u6771\u4eac", "hubbub-Cafe-.md", "hubbub-Caf%C3%A9-%E6%9D%B1%E4%BA%AC.md"),
        ("../../etc/passwd", "hubbub-etc-passwd.md", "hubbub-etc-passwd.md"),
        ('a"; filename="b.exe', "hubbub-a-filename=-b.exe.md", None),
        ("\uff02\uff0f\u226e\u202e\r\n", "hubbub-.md", None),
        (" . ", "hubbub-room.md", "hubbub-room.md"),
        ("x" * 500, f"hubbub-{'x' * 80}.md", f"hubbub-{'x' * 80}.md"),
    ],
)
def test_a_files_name_is_safe(title: str, plain: str, whole: str | None) -> None:
    found = re.fullmatch(
        r"attachment; filename=\"([\w.-]+)\"; filename\*=UTF-8''([\w.%~-]+)",
        disposition(title, "md"),
        re.ASCII,
    )
    assert found
    assert found[1] == plain.replace("=", "")
    assert whole is None or found[2] == whole


# ── who gets it ──────────────────────────────────────────────────────────────────────────


async def got(client: httpx.AsyncClient, kind: str, id: str = "den") -> httpx.Response:
    return await client.get(f"/api/rooms/{id}/export", params={"format": kind})


async def den(running: Running, *messages: Message, **more: Any) -> None:
    store = running.hub.store
    await store.commit(SaveRoom(room(**more)), *map(AddMessage, messages))


async def test_a_member_gets_the_whole_room_in_order(autojump_clock: object) -> None:
    messages = [message(f"line {n}") for n in range(2 * PAGE + 1)]
    async with running_hub() as running, guest(running) as (client, me):
        await den(running, *messages, title="The den")
        await running.hub.store.commit(AddMember("den", me["user"]["id"]))
        jsonl = await got(client, "jsonl")
        assert [msgspec.json.decode(one, type=Message) for one in jsonl.iter_lines()] == messages
        assert jsonl.headers["content-type"] == "application/x-ndjson"
        assert 'filename="hubbub-The-den.jsonl"' in jsonl.headers["content-disposition"]
        assert jsonl.headers["cache-control"] == "no-store"
        assert len((await got(client, "json")).json()["messages"]) == len(messages)
        assert (await got(client, "md")).text.count("\nline ") == len(messages)


@pytest.mark.parametrize("count", [0, PAGE])
async def test_pages_that_are_just_full(count: int, autojump_clock: object) -> None:
    async with running_hub() as running, guest(running) as (client, _me):
        await den(running, *(message() for _ in range(count)), visibility="public")
        assert len((await got(client, "json")).json()["messages"]) == count


async def test_ones_own_whispers_only(autojump_clock: object) -> None:
    async with running_hub() as running, guest(running) as (ann, me), guest(running) as (bob, _):
        await den(running, message("aloud"), visibility="public")
        mine = AddMessage(message("whispered", private=True), to=me["user"]["id"])
        await running.hub.store.commit(mine)
        for kind in FORMATS:
            assert "whispered" in (await got(ann, kind)).text
            assert "aloud" in (await got(bob, kind)).text
            assert "whispered" not in (await got(bob, kind)).text


async def test_not_for_everybody(autojump_clock: object) -> None:
    async with running_hub() as running, guest(running) as (client, _me):
        await den(running, message("secret"))
        for id in ("den", "nowhere"):
            refused = await got(client, "md", id)
            assert (refused.status_code, refused.json()["code"]) == (404, "no_room")
        nobody = await got(running.http, "md", "lobby")
        assert (nobody.status_code, nobody.json()["code"]) == (401, "no_session")


async def test_formats_that_there_are(autojump_clock: object) -> None:
    async with running_hub() as running, guest(running) as (client, _me):
        refused = await got(client, "pdf", "lobby")
        assert refused.status_code == 400
        assert refused.json()["error"] == "“format” must be one of json, jsonl, md."
        left_out = await client.get("/api/rooms/lobby/export")
        assert left_out.json()["room"]["id"] == "lobby"
        head = await client.head("/api/rooms/lobby/export?format=md")
        assert (head.status_code, head.content) == (200, b"")
        assert "hubbub-Lobby.md" in head.headers["content-disposition"]


async def test_a_store_that_is_down_is_told(autojump_clock: object) -> None:
    store = MemoryStore()
    async with running_hub(store=store) as running, guest(running) as (client, _me):
        assert (await got(client, "md", "lobby")).status_code == 200
        store.fail_reads = StoreError("gone")
        assert (await got(client, "md", "lobby")).status_code == 503


class Halfway(MemoryStore):
    """Reads the first page of a room and no more."""

    async def transcript(
        self, room: str, *, viewer: str | None, after: str = "", limit: int = 500
    ) -> Sequence[Message]:
        if after:
            raise StoreError("The disk reports errors.")
        return await super().transcript(room, viewer=viewer, after=after, limit=limit)


async def test_a_file_that_was_cut_short_does_not_look_whole(autojump_clock: object) -> None:
    async with running_hub(store=Halfway()) as running, guest(running) as (client, _me):
        await den(running, *(message() for _ in range(PAGE + 1)), visibility="public")
        with pytest.raises(httpx.RemoteProtocolError):
            await got(client, "jsonl")
        assert (await client.get("/healthz")).status_code == 200
