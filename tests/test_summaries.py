"""What no longer fits into prompts is summed up: when, from what, and what becomes of it."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from attrs import define, field

from hub.export import FORMATS, File
from hub.records import Author, Character, Message, Room, Summary
from hub.scene import PAST
from hub.store.contract import SaveRoom, Store
from hub.store.memory import MemoryStore
from hub.summaries import AGAIN_SECONDS, MOST_LINES, SECONDS, due
from llm.provider import Answering, Item, ModelError, Request, Usage
from tests.hubs import Native, Running, running_hub
from tests.scripted import Scripted

SMALL: Any = {"context_tokens": 1200, "max_tokens": 200}
LONG = "and so on, and so forth, " * 20


@define
class Recorder:
    """Answers in a word, and sums up: "SUMMARY 1" and so on, or what `sums` does."""

    asked: list[str] = field(factory=list)
    others: list[str] = field(factory=list)
    sums: Any = None
    _changed: trio.Event = field(factory=trio.Event)

    async def __call__(self, request: Request) -> AsyncGenerator[Item, None]:
        prompt = "\n".join(one.content for one in request.messages)
        if not prompt.startswith("You keep the record"):
            self.others.append(prompt)
            yield "Noted."
            return
        self.asked.append(prompt)
        self._changed.set()
        self._changed = trio.Event()
        if self.sums is not None:
            async with aclosing(self.sums(request)) as items:
                async for item in items:
                    yield item
        else:
            yield f"SUMMARY {len(self.asked)}"
            yield Usage(model="script")

    async def until_asked(self, times: int) -> None:
        with trio.fail_after(1000):
            while len(self.asked) < times:
                await self._changed.wait()


@asynccontextmanager
async def talk(
    recorder: Recorder, store: Store | None = None, **settings: Any
) -> AsyncIterator[tuple[Running, Native, str]]:
    async with (
        running_hub(Scripted(recorder), store=store, **{**SMALL, **settings}) as running,
        running.connect() as alice,
    ):
        cast = [{"name": "Mira", "personality": "Dry."}]
        made = await alice.call("create_room", characters=cast, visibility="public")
        yield running, alice, made["room"]["id"]


async def say(client: Native, room: str, text: str, **more: object) -> None:
    await client.prompt(room, text, **more)
    await client.event("turn", state="done")


async def say_much(client: Native, room: str, recorder: Recorder) -> int:
    """Say more and more until a summary is asked for."""
    before = len(recorder.asked)
    for number in range(50):
        if len(recorder.asked) > before:
            await client.call("ping")
            return number
        await say(client, room, f"Point {before}.{number}: {LONG}")
    raise AssertionError("nothing was summed up")


async def test_what_no_longer_fits_is_summed_up_once_and_goes_into_prompts(
    autojump_clock: object,
) -> None:
    recorder = Recorder()
    async with talk(recorder) as (running, alice, room):
        await say_much(alice, room, recorder)
        assert "Point 0.0" in recorder.asked[0]
        await say(alice, room, "What was that?")
        prompt = recorder.others[-1]
        assert "(What happened before, in short:)\nSUMMARY 1" in prompt
        assert "Point 0.0:" not in prompt
        # No line is both in the summary and in the prompt, and none in neither.
        told = recorder.asked[0] + prompt
        for number in range(len(recorder.others) - 1):
            assert (f"Point 0.{number}:" in recorder.asked[0]) != (f"Point 0.{number}:" in prompt)
            assert f"Point 0.{number}:" in told
        assert len(recorder.asked) == 1
        # The next one goes on from it.
        await say_much(alice, room, recorder)
        assert "The summary so far:\nSUMMARY 1" in recorder.asked[1]
        assert "Point 0.0" not in recorder.asked[1]
        await say(alice, room, "And now?")
        assert "SUMMARY 2" in recorder.others[-1]
        joined = await alice.call("join_room", room=room)
        assert "SUMMARY" not in str(joined)
        assert "SUMMARY" not in str(await alice.call("list_rooms"))
        response = await running.http.get(f"/api/rooms/{room}/export")
        assert "SUMMARY" not in response.text


async def test_it_survives_a_restart(autojump_clock: object) -> None:
    recorder, store = Recorder(), MemoryStore()
    async with talk(recorder, store) as (_, alice, room):
        await say_much(alice, room, recorder)
    again = Recorder()
    async with running_hub(Scripted(again), store=store, **SMALL) as running:
        async with running.connect() as bob:
            await bob.call("join_room", room=room)
            await say(bob, room, "What was that?")
            assert "SUMMARY 1" in again.others[-1]
            assert "Point 0.0:" not in again.others[-1]


async def test_whispers_are_never_in_it_and_stay_in_their_own_prompts(
    autojump_clock: object,
) -> None:
    recorder = Recorder()
    async with talk(recorder) as (_, alice, room):
        await say(alice, room, "My secret is plum", reply="me")
        await say_much(alice, room, recorder)
        assert "plum" not in recorder.asked[0]
        await say(alice, room, "Do you remember?", reply="me")
        assert "SUMMARY 1" in recorder.others[-1]
        assert "plum" in recorder.others[-1]


async def test_no_turn_waits_for_it(autojump_clock: object) -> None:
    async def never(request: Request) -> AsyncGenerator[Item, None]:
        yield "half"
        await trio.sleep_forever()

    recorder = Recorder(sums=never)
    async with talk(recorder) as (_, alice, room):
        await say_much(alice, room, recorder)
        await say(alice, room, "Still there?")
        assert "Still there?" in recorder.others[-1]
        assert "half" not in recorder.others[-1]


async def test_one_that_hangs_or_fails_is_logged_and_tried_again_later(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(request: Request) -> AsyncGenerator[Item, None]:
        yield "half"
        await trio.sleep_forever()

    async def fail(request: Request) -> AsyncGenerator[Item, None]:
        yield "half"
        raise ModelError("overloaded", "The model has too much to do.")

    async def say_nothing(request: Request) -> AsyncGenerator[Item, None]:
        yield "  "

    async def make_up(request: Request) -> AsyncGenerator[Item, None]:
        yield Answering("demo", "demo", demo=True)
        yield "Lorem ipsum"

    troubles = {
        hang: f"it took longer than {SECONDS:g} s",
        fail: "The model has too much to do.",
        say_nothing: "the model said nothing",
        make_up: "a stand-in answered, which makes things up",
    }
    recorder = Recorder(sums=hang)
    async with talk(recorder) as (running, alice, room):
        await say_much(alice, room, recorder)
        for number, (trouble, reason) in enumerate(troubles.items()):
            recorder.sums = trouble
            if number:
                await say(alice, room, f"Trouble {number}")
                assert len(recorder.asked) == number + 1
            await trio.sleep(SECONDS + 1 if trouble is hang else 1)
            assert caplog.messages[-1] == f"no summary of room {room}: {reason}"
            await say(alice, room, "Too early")
            assert len(recorder.asked) == number + 1
            await trio.sleep(AGAIN_SECONDS)
        recorder.sums = None
        await say(alice, room, "And now")
        await alice.call("ping")
        stored = await running.hub.store.room(room)
        assert stored is not None
        assert isinstance(stored.summary, Summary)
        assert stored.summary.text.startswith("SUMMARY")


async def test_an_old_reply_is_made_anew_without_knowing_the_future(
    autojump_clock: object,
) -> None:
    recorder = Recorder()
    async with talk(recorder) as (_, alice, room):
        await say_much(alice, room, recorder)
        page = await alice.call("read_messages", room=room)
        first = next(one for one in page["messages"] if one["author"]["kind"] == "character")
        await alice.call("regenerate", room=room, message=first["id"])
        await alice.event("turn", state="done")
        assert "SUMMARY" not in recorder.others[-1]
        assert "Point 0.0" in recorder.others[-1]
        await say(alice, room, "Go on")
        assert "SUMMARY 1" in recorder.others[-1]


async def test_what_retention_has_removed_is_not_remembered_either(
    autojump_clock: object,
) -> None:
    recorder, store = Recorder(), MemoryStore()
    async with talk(recorder, store, retention_days=30) as (_, alice, room):
        await say_much(alice, room, recorder)
        await say(alice, room, "Do you know?")
        assert "SUMMARY 1" in recorder.others[-1]
    record = await store.room(room)
    assert record is not None
    assert isinstance(record.summary, Summary)
    old = msgspec.structs.replace(record.summary, since="2020-01-01T00:00:00.000Z")
    again = Recorder()
    kept = MemoryStore()
    await kept.commit(SaveRoom(msgspec.structs.replace(record, summary=old)))
    async with running_hub(Scripted(again), store=kept, retention_days=30, **SMALL) as running:
        async with running.connect() as bob:
            await bob.call("join_room", room=room)
            await say(bob, room, "Do you know?")
            assert "SUMMARY" not in again.others[-1]


# ── what is due ──────────────────────────────────────────────────────────────────────────

ROOM = Room("r", "Room", cast=[Character("mira", "Mira")])


def messages(count: int, text: str = "Hm.", **last: Any) -> list[Message]:
    made = [
        Message(
            id=f"m{number:05}",
            room="r",
            author=Author("u", "Ada", "human"),
            text=text,
            html="",
            at="",
            status="done",
            demo=False,
            private=False,
        )
        for number in range(count)
    ]
    return [*made[:-1], msgspec.structs.replace(made[-1], **last)]


def test_short_lines_are_summed_up_before_they_are_out_of_sight() -> None:
    assert PAST > MOST_LINES
    assert due(ROOM, messages(MOST_LINES), (), None, budget=100_000) == ()
    lines = due(ROOM, messages(MOST_LINES + 1), (), None, budget=100_000)
    assert [line.id for line in lines] == [f"m{number:05}" for number in range(MOST_LINES // 2)]
    earlier = Summary("So far", upto=lines[-1].id, since="")
    assert due(ROOM, messages(MOST_LINES + 1), (), earlier, budget=100_000) == ()


def test_nothing_is_due_from_the_first_message_on_that_is_not_done_with() -> None:
    many = messages(40, LONG)
    assert len(due(ROOM, many, (), None, budget=1000)) > 0
    assert due(ROOM, many, {"m00000"}, None, budget=1000) == ()
    assert due(ROOM, messages(1, LONG, status="running"), (), None, budget=10) == ()
    lines = due(ROOM, many, {"m00030"}, None, budget=1000)
    assert all(line.id < "m00030" for line in lines)


def test_it_is_in_no_file() -> None:
    room = msgspec.structs.replace(ROOM, summary=Summary("So far", "m1", ""), banned=["mallory"])
    data = File(room, FORMATS["json"]).begin()
    assert b"So far" not in data
    assert b"mallory" not in data
    assert b"Mira" in data


def test_without_characters_nothing_is_due() -> None:
    assert due(Room("r", "Room"), messages(40, LONG), (), None, budget=100) == ()
