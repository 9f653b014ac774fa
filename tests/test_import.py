"""Chats that are brought along: every kind of file, and all that may be wrong with one."""

import random
from contextlib import suppress
from io import BytesIO
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.export import FORMATS, File
from hub.importing import CHARS, LONGEST_DOCUMENT, MESSAGES, BadFile, Chat, date, read
from hub.records import LOBBY, Author, Character, Message, Room, Usage
from hub.store.contract import AddMember, AddMessage, SaveRoom, StoreError
from hub.store.memory import MemoryStore
from tests.hubs import Running, running_hub
from tests.scripted import Scripted
from tests.store.making import message, room
from tests.test_api import guest, signed_in


def chats(*lines: object) -> list[Chat]:
    data = b"\n".join(one if isinstance(one, bytes) else msgspec.json.encode(one) for one in lines)
    return list(read(BytesIO(data)))


TAVERN = (
    {"user_name": "Ada", "character_name": "Seraphina", "create_date": "2024-1-2@10h 5m 3s 1ms"},
    {"name": "Seraphina", "is_user": False, "is_system": False, "mes": "*smiles* Hello",
     "send_date": "January 2, 2024 10:05am", "extra": {"api": "x"}, "swipe_id": 1,
     "swipes": ["Hi", "*smiles* Hello", "Hey"]},
    {"name": "Ada", "is_user": True, "mes": "Who **are** you?", "send_date": 1704190000123},
    {"name": "Note", "is_system": True, "mes": "It rains.", "send_date": "a while ago"},
)  # fmt: skip


# ── reading ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-21T02:00:00Z", "2026-11-21T02:00:00.000Z"),
        ("2026-11-21T02:00:00.123+02:00", "2026-11-21T00:00:00.123Z"),
        ("2026-11-21 02:00", "2026-11-21T02:00:00.000Z"),
        ("January 2, 2024 10:05am", "2024-01-02T10:05:00.000Z"),
        ("June 19, 2023 12:05 PM", "2023-06-19T12:05:00.000Z"),
        ("Dec 31, 2023 12:59am", "2023-12-31T00:59:00.000Z"),
        ("2023-6-3 @14h 56m 12s 682ms", "2023-06-03T14:56:12.682Z"),
        ("2024-01-02@10h05m03s", "2024-01-02T10:05:03.000Z"),
        ("2024-1-2@10h 5m 3s 12ms", "2024-01-02T10:05:03.012Z"),
        (1704190000123, "2024-01-02T10:06:40.123Z"),
        ("1704190000123", "2024-01-02T10:06:40.123Z"),
        ("", None), (None, None), ("yesterday", None), ("Brumaire 2, 2024 10:05am", None),
        ("2023-13-3 @14h 56m 12s 682ms", None), (1e300, None), (-1e18, None),
        ("9" * 400, None), ("0001-01-01T00:00:00+14:00", None),
    ],
)  # fmt: skip
def test_dates(text: Any, meant: str | None) -> None:
    assert date(text) == meant


def test_a_chat_of_sillytavern() -> None:
    (chat,) = chats(*TAVERN)
    assert chat.settings is None
    hello, who, note = chat.said
    assert hello.author == Author("Seraphina", "Seraphina", "character")
    assert (hello.text, hello.swipes) == ("*smiles* Hello", ("Hi", "Hey"))
    assert hello.at == "2024-01-02T10:05:00.000Z"
    assert (who.author.kind, who.author.name, who.author.id in chat.mine) == ("human", "Ada", True)
    assert (note.author.kind, note.at) == ("system", None)


def test_one_without_its_first_line_and_with_a_byte_order_mark() -> None:
    said = b"\xef\xbb\xbf" + msgspec.json.encode(TAVERN[1])
    (chat,) = chats(said, b"", TAVERN[2], b"   ")
    assert [one.place for one in chat.said] == ["Line 1", "Line 3"]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_what_we_export_we_read(kind: str) -> None:
    wrote = [
        message("one\n\u2028“ü” \U0001f600", demo=True, private=True, swipes=["a", "b"]),
        message("", status="failed", error="The model is gone.", reply_to="m1"),
        message("three", usage=Usage("gpt", 1, 2, finish="stop"), status="stopped"),
    ]
    file = File(room(title="Den", scenario="Rain."), FORMATS[kind])
    (chat,) = list(read(BytesIO(file.begin() + file.add(wrote) + file.end())))
    for got, sent in zip(chat.said, wrote, strict=True):
        for name in ("id", "author", "text", "demo", "private", "status", "error", "reply_to"):
            assert getattr(got, name) == getattr(sent, name)
        assert (got.usage, list(got.swipes)) == (sent.usage, sent.swipes or [])
    assert chat.settings is None or (chat.settings.title, chat.settings.scenario) == (
        "Den",
        "Rain.",
    )


SAID = {"author": {"name": "Ada"}, "text": "x"}


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([b""], "The file is empty."),
        ([b"  \n\n"], "The file is empty."),
        ([b"%PDF-1.4\n%\xff"], "Line 1: This is not valid JSON."),
        ([b"\xff\xfe\x00"], "Line 1: This is not valid JSON."),
        ([b"[1, 2]"], "This is no room of Hubbub and no chat"),
        ([b"{}"], "Line 1: This is neither a message nor a room."),
        ([SAID, b"{oh"], "Line 2: This is not valid JSON."),
        ([SAID, b"", b"7"], "Line 3: A line must be a JSON object."),
        ([SAID, b'{"text": "' + b"\xff" * 9 + b'"}'], "Line 2: This is not valid JSON."),
        ([SAID, {"author": {"name": "x"}}], "Line 2: “text” is missing."),
        ([SAID, {"author": {}, "text": "x"}], "Line 2: “name” is missing."),
        ([SAID, SAID | {"text": 7}], "Line 2: “text” must be text, not a whole number."),
        ([SAID | {"status": "gone"}], "Line 1: “status” is none of the values that are known."),
        ([SAID | {"at": "soon"}], "Line 1: “soon” is no date that is known here."),
        ([SAID, b'{"a":' * 100_000], "Line 2: This is not valid JSON."),
        ([b'{"a":' * 100_000], "Line 1: This is not valid JSON."),
        ([{"hubbub": 2, "user": {"id": "x"}}], "Line 1: A newer Hubbub has written this file"),
        ([{"hubbub": 1, "user": {"id": "x"}}], "There is no room in this file."),
        ([b'{"room": {}, "messages": [\n{"text": "x"}]}'], "Message 1: “author” is missing."),
        ([b'{"room": {},\n "messages": [\n{"text": ]}'], "Line 3: This is not valid JSON."),
        ([b'{"room": {"title": 7}, "messages": []}'], "“room.title” must be text"),
        ([TAVERN[0], {"mes": 7}], "Line 2: “mes” must be text, not a whole number."),
        ([{"mes": "x" * (CHARS + 1)}], "Line 1: This room is too long"),
        ([SAID | {"text": "", "swipes": ["x" * CHARS, "y"]}], "Line 1: This room is too long"),
        ([{"mes": "x"}] * (MESSAGES + 1), f"Line {MESSAGES + 1}: This room is too long"),
        ([b"{" + b" " * LONGEST_DOCUMENT], "Line 1: It is longer than 16 MB."),
        ([b"{\n" + b" " * LONGEST_DOCUMENT], "A JSON file may have 16 MB"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(lines: list[Any], sentence: str) -> None:
    with pytest.raises(BadFile) as found:
        chats(*lines)
    assert sentence in str(found.value)
    assert found.value.code == "bad_import"


@given(st.data())
def test_whatever_a_file_holds_it_is_read_or_refused(data: st.DataObject) -> None:
    whole = b"\n".join(map(msgspec.json.encode, [*TAVERN, SAID, {"room": {"title": "x"}}]))
    chance = random.Random(data.draw(st.integers()))
    broken = bytearray(whole)
    for _ in range(chance.randrange(1, 9)):
        at = chance.randrange(len(broken))
        broken[at : at + chance.randrange(3)] = chance.choice([b"", b"{", b'"', b"\n", b"\xff"])
    with suppress(BadFile):
        list(read(BytesIO(bytes(broken))))


# ── what becomes of it ───────────────────────────────────────────────────────────────────


async def bring(client: httpx.AsyncClient, data: bytes, title: str = "") -> httpx.Response:
    return await client.post("/api/import", content=data, params={"title": title})


def jsonl(*lines: object) -> bytes:
    return b"\n".join(map(msgspec.json.encode, lines))


async def said_in(client: httpx.AsyncClient, room: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/api/rooms/{room}/messages?limit=200")
    messages: list[dict[str, Any]] = answer.json()["messages"]
    return messages


async def test_a_chat_of_sillytavern_becomes_a_room() -> None:
    async with running_hub(Scripted()) as running, signed_in(running) as (client, me, ada):
        answer = await bring(client, jsonl(*TAVERN))
        assert answer.status_code == 201
        (made,) = answer.json()["rooms"]
        assert answer.json()["messages"] == 3
        assert (made["title"], made["visibility"]) == ("Chat with Seraphina", "private")
        assert made["owner"] == me["user"]["id"]
        assert made["at"] == "2024-01-02T10:05:00.000Z"
        hello, who, note = await said_in(client, made["id"])
        assert hello["html"] == "<p><em>smiles</em> Hello</p>\n"
        assert hello["author"]["id"] == made["cast"][0]["id"] != "Seraphina"
        assert who["author"] == {"id": me["user"]["id"], "name": "Ada", "kind": "human"}
        assert note["at"] == who["at"], "one without a date stands where it stood"
        # And it goes on from there: the character knows what was said.
        await ada.call("join_room", room=made["id"])
        await ada.prompt(made["id"], "And now?")
        await ada.event("message_end", status="done")
        provider = running.hub.provider
        assert isinstance(provider, Scripted)
        assert "Who **are** you?" in str(provider.requests[-1].messages)


async def test_a_name_for_it_may_come_along() -> None:
    async with running_hub() as running, guest(running) as (client, _me):
        for title, shown in (("By the sea\n", "By the sea"), ("\u0000", "Imported chat")):
            answer = await bring(client, jsonl(SAID), title)
            assert answer.json()["rooms"][0]["title"] == shown


async def test_nobody_speaks_in_anothers_name() -> None:
    async with running_hub() as running, guest(running) as (ada, me), guest(running) as (_, him):
        ben, mine = him["user"]["id"], me["user"]["id"]
        forged = [
            SAID | {"author": {"id": ben, "name": "Ben", "kind": "human"}},
            SAID | {"author": {"id": ben, "name": "Ben", "kind": "character"}},
            SAID | {"author": {"id": mine, "name": "I", "kind": "character"}},
            SAID | {"author": {"id": mine, "name": "I", "kind": "human"}},
            SAID | {"author": {"id": ben, "name": "Ben\u202e\n", "kind": "human"}},
            SAID | {"author": {"id": "admin", "name": "Hub", "kind": "system"}},
        ]
        made = (await bring(ada, jsonl(*forged))).json()["rooms"][0]["id"]
        found = [one["author"] for one in await said_in(ada, made)]
        assert [one["id"] == mine for one in found] == [False, False, False, True, False, False]
        assert ben not in str(found)
        assert found[0]["id"] == found[4]["id"], "one person stays one person"
        assert found[4]["name"] == "Ben"
        assert found[5]["id"] == "system"
        record = await running.hub.store.room(made)
        assert record
        assert not {mine, ben} & {one.id for one in record.cast}


async def test_html_of_a_file_is_never_shown() -> None:
    async with running_hub() as running, guest(running) as (client, _me):
        evil = SAID | {"text": "<b>hi</b>", "html": "<script>alert(1)</script>"}
        made = (await bring(client, jsonl(evil))).json()["rooms"][0]["id"]
        (found,) = await said_in(client, made)
        assert found["html"] == "<p>&lt;b&gt;hi&lt;/b&gt;</p>\n"


async def test_a_broken_file_leaves_nothing() -> None:
    async with running_hub() as running, guest(running) as (client, _me):
        good = {"room": {"title": "First"}}
        bad_cast = {"room": {"title": "x", "cast": [{"id": "a", "name": "y" * 99}]}}
        for last, sentence in (
            ({"text": "x"}, "Line 4: “author” is missing."),
            (bad_cast, "Line 4: A character's name has at most 40 characters."),
            ({"room": {"title": "x" * 101}}, "Line 4: A title has at most 100 characters."),
            ({"room": {"cast": [{"id": "a", "name": "x"}] * 9}}, "Line 4: A room has at most 8"),
        ):
            answer = await bring(client, jsonl(good, SAID, good, last))
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_import")
            assert answer.json()["error"].startswith(sentence)
        listed = (await client.get("/api/rooms")).json()["rooms"]
        assert [one["id"] for one in listed] == [LOBBY]


async def test_who_may_bring_how_much() -> None:
    async with running_hub(rooms_per_user=2, import_bytes=2000) as running:
        nobody = await bring(running.http, jsonl(SAID))
        assert nobody.status_code == 401
        async with guest(running) as (client, _me):
            three = jsonl(*[{"room": {"title": "x"}}] * 3)
            too_many = await bring(client, three)
            assert (too_many.status_code, too_many.json()["code"]) == (429, "too_many_rooms")
            large = await bring(client, jsonl(SAID) + b" " * 2000)
            assert (large.status_code, large.json()["code"]) == (413, "too_large")
            del client.headers["x-csrf-token"]
            assert (await bring(client, jsonl(SAID))).json()["code"] == "csrf"


async def test_a_store_that_fails_keeps_no_half_room() -> None:
    store = MemoryStore()
    async with running_hub(store=store) as running, guest(running) as (client, me):
        store.fail = StoreError("full")
        answer = await bring(client, jsonl({"room": {"title": "x"}}, SAID))
        assert (answer.status_code, answer.json()["code"]) == (503, "store_down")
        store.fail = None
        assert [one.id for one in await store.rooms(me["user"]["id"])] == [LOBBY]
        assert (await bring(client, jsonl(SAID))).status_code == 201


# ── there and back ───────────────────────────────────────────────────────────────────────


def settled(messages: list[dict[str, Any]], me: str) -> list[dict[str, Any]]:
    """Messages without ids; who is one person stays one, and what answers what."""
    place = {one["id"]: at for at, one in enumerate(messages)}
    people: dict[str, int] = {me: -1}
    found = []
    for one in messages:
        author = one["author"] | {"id": people.setdefault(one["author"]["id"], len(people))}
        reply = place.get(one.get("reply_to", ""))
        found.append(one | {"id": 0, "room": 0, "author": author, "reply_to": reply})
    return found


def parts(data: bytes) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Rooms and messages of a file with everything."""
    header, *lines = map(msgspec.json.decode, data.splitlines())
    assert header["hubbub"] == 1
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for line in lines:
        if isinstance(line.get("room"), dict):
            found.append((line["room"], []))
        else:
            found[-1][1].append(line)
    return found


async def furnish(running: Running, me: str) -> None:
    """Give a user a room of their own, one of somebody else's, and words in the lobby."""
    bard = Character("bard", "Lyra", "Bard", "🎻", card={"data": {"nickname": "Ly"}})
    mine = Room(
        "mine", "Mine", "Rain.", [bard], "link", "mention", me, "sesame",
        pace=250, archived=True, at="2026-01-02T03:04:05.678Z",
    )  # fmt: skip
    lyra, ben = Author("bard", "Lyra", "character", "🎻"), Author("ben", "Ben", "human")
    i = Author(me, "Ada", "human")
    at = "2026-11-21T02:00:00.000Z"
    theirs = msgspec.structs.replace(
        room("theirs", owner="ben", at=at), cast=[Character("x", "X", card={"data": {}})]
    )

    def said(text: str, author: Author, where: str = "mine", **more: Any) -> Message:
        html = f"<p>{text}</p>\n" if text else ""
        made = message(text, room=where, **{"html": html, "at": at, **more})
        return msgspec.structs.replace(made, author=author)

    asked = said("Who are you?", i)
    aloud = said("Hello lobby", i, LOBBY)
    await running.hub.store.commit(
        SaveRoom(mine), AddMember("mine", me), SaveRoom(theirs), AddMember("theirs", me),
        AddMessage(asked),
        AddMessage(said("Lyra.", lyra, reply_to=asked.id, demo=True, swipes=["Me."],
                        usage=Usage("gpt", 3, 4))),
        AddMessage(said("", lyra, status="failed", error="The model is gone.")),
        AddMessage(said("Psst", i, private=True), to=me),
        AddMessage(said("Not for you", ben, private=True), to="ben"),
        AddMessage(said("I saw that", ben)),
        AddMessage(said("It rains.", Author("system", "System", "system"))),
        AddMessage(said("Over here", ben, "theirs")),
        AddMessage(aloud),
        AddMessage(said("Hello Ada", Author("assistant", "Assistant", "character"), LOBBY,
                        reply_to=aloud.id)),
        AddMessage(said("What do others say?", ben, LOBBY)),
    )  # fmt: skip


async def test_everything_goes_along_and_comes_back() -> None:
    async with running_hub() as first, guest(first) as (client, me):
        await furnish(first, me["user"]["id"])
        answer = await client.get("/api/export")
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert "hubbub-" in answer.headers["content-disposition"]
        sent = parts(answer.content)
        whose = me["user"]["id"]
    assert b"Not for you" not in answer.content
    assert b"What do others say?" not in answer.content
    assert b"sesame" not in answer.content
    rooms = {one["id"]: (one, messages) for one, messages in sent}
    assert set(rooms) == {"mine", "theirs", LOBBY}
    assert rooms["mine"][0]["cast"][0]["card"] == {"data": {"nickname": "Ly"}}
    assert "card" not in rooms["theirs"][0]["cast"][0]
    assert [one["text"] for one in rooms[LOBBY][1]] == ["Hello lobby", "Hello Ada"]

    async with running_hub() as second, guest(second) as (client, other):
        assert (await bring(client, answer.content)).status_code == 201
        back = parts((await client.get("/api/export")).content)
        mine = other["user"]["id"]
        assert {room["owner"] for room, _ in back} == {mine}
        assert not {room["id"] for room, _ in back} & set(rooms)
    back.sort(key=lambda one: one[0]["title"])
    sent.sort(key=lambda one: one[0]["title"])
    for (was, said), (is_, told) in zip(sent, back, strict=True):
        assert settled(told, mine) == settled(said, whose)
        for name in ("title", "scenario", "answer", "archived", "pace", "at"):
            assert is_[name] == was[name]
        without = [
            msgspec.convert([{**one, "id": ""} for one in room["cast"]], list[Character])
            for room in (was, is_)
        ]
        assert without[0] == without[1]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
async def test_a_room_goes_along_and_comes_back(kind: str) -> None:
    async with running_hub() as running, guest(running) as (client, me):
        await furnish(running, me["user"]["id"])
        path = "/api/rooms/{}/export?format=" + kind
        sent = (await client.get(path.format("mine"))).content
        made = (await bring(client, sent, "Again")).json()["rooms"][0]
        assert made["title"] == ("Mine" if kind == "json" else "Again")
        again = (await client.get(path.format(made["id"]))).content
        decoded = [
            msgspec.json.decode(one)["messages"]
            if kind == "json"
            else [msgspec.json.decode(line) for line in one.splitlines()]
            for one in (sent, again)
        ]
        whose = me["user"]["id"]
        assert settled(decoded[0], whose) == settled(decoded[1], whose)
        assert len(decoded[0]) == 6


async def test_a_large_file_holds_nobody_up() -> None:
    lines = [{"mes": f"word {n} " * 50, "name": "Seraphina"} for n in range(2000)]
    async with running_hub() as running, guest(running) as (client, _me):
        answer = await bring(client, jsonl(*lines))
        made = answer.json()["rooms"][0]
        assert answer.json()["messages"] == 2000
        export = await client.get(f"/api/rooms/{made['id']}/export?format=jsonl")
        texts = [msgspec.json.decode(line)["text"] for line in export.iter_lines()]
        assert texts == [one["mes"] for one in lines]
