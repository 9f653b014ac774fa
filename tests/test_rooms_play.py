"""Two humans and three characters in one room, over real sockets: who says what, seen by whom."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import frozen

from hub.turns import Agenda
from llm.provider import Item, Request, Usage
from tests.hubs import Native, Refusal, Running, running_hub
from tests.scripted import Gate, Scripted, speaker

CAST = ["tharin", "lyra", "finn"]
NAMES = ["Tharin", "Lyra", "Finn"]

Events = list[tuple[str, dict[str, Any]]]


@frozen
class Table:
    """Alice and Bob, in Alice's room."""

    running: Running
    provider: Scripted
    alice: Native
    bob: Native
    room: str

    @property
    def told(self) -> list[str]:
        """What each reply was told, without the part that says who is who."""
        asked = self.provider.requests
        return ["\n".join(one.content for one in request.messages[1:]) for request in asked]

    @property
    def speakers(self) -> list[str]:
        return [speaker(request) for request in self.provider.requests]


@asynccontextmanager
async def table(gate: Gate | None = None, **options: Any) -> AsyncIterator[Table]:
    provider = Scripted(gate) if gate else Scripted()
    async with (
        running_hub(provider) as running,
        running.connect() as alice,
        running.connect() as bob,
    ):
        made = await alice.call("create_room", visibility="link", characters=CAST, **options)
        room = made["room"]
        await bob.call("join_room", room=room["id"], invite=room["invite"])
        await alice.event("member_joined")
        yield Table(running, provider, alice, bob, room["id"])


async def turn(client: Native) -> Events:
    """All events up to the end of a turn."""
    return await client.until("turn", state="done")


def replies(events: Events) -> list[tuple[str, str]]:
    """Who said what in these events, in the order in which they ended."""
    names, texts, ended = {}, {}, []
    for name, payload in events:
        if name == "message_start":
            message = payload["message"]
            names[message["id"]] = message["author"]["name"]
            texts[message["id"]] = ""
        elif name == "token":
            texts[payload["id"]] += payload["text"]
        elif name == "message_end":
            ended.append(payload["id"])
    return [(names[id], texts[id]) for id in ended]


def kinds(events: Events) -> list[str]:
    """Names of events, several tokens in a row as one."""
    found: list[str] = []
    for name, _ in events:
        if not (name == "token" and found and found[-1] == "token"):
            found.append(name)
    return found


# ── order and visibility ─────────────────────────────────────────────────────────────────


async def test_characters_answer_in_order_each_knowing_what_the_earlier_ones_said(
    autojump_clock: object,
) -> None:
    async with table() as t:
        await t.alice.prompt(t.room, "Hello")
        said = replies(await turn(t.bob))
        name = t.alice.user["name"]
        assert said == [
            ("Tharin", f"Tharin heard: {name}: Hello"),
            ("Lyra", f"Lyra heard: Tharin: Tharin heard: {name}: Hello"),
            ("Finn", f"Finn heard: Lyra: Lyra heard: Tharin: Tharin heard: {name}: Hello"),
        ]
        # The humans are told apart, and each prompt is in it exactly once.
        await t.bob.prompt(t.room, "And me?")
        await turn(t.bob)
        assert t.speakers == NAMES * 2
        for told in t.told[3:]:
            assert told.count(f"{t.bob.user['name']}: And me?") >= 1
            assert told.count(f"{name}: Hello") >= 1


async def test_all_see_the_same_events_in_one_order(autojump_clock: object) -> None:
    async with table() as t:
        await t.alice.prompt(t.room, "Hello")
        seen = await turn(t.alice)
        assert seen == await turn(t.bob)
        assert [payload["offset"] for _, payload in seen] == list(
            range(seen[0][1]["offset"], seen[-1][1]["offset"] + 1)
        )
        reply = ["message_start", "token", "message_end"]
        assert kinds(seen) == ["message", "turn", *reply * 3, "turn"]


async def test_who_comes_later_is_shown_all_of_it(autojump_clock: object) -> None:
    async with table() as t:
        await t.alice.prompt(t.room, "Hello")
        said = replies(await turn(t.alice))
        async with t.running.connect() as carol:
            with pytest.raises(Refusal, match="no_room"):
                await carol.call("join_room", room=t.room)
            rooms = (await t.alice.call("list_rooms"))["rooms"]
            invite = next(one["invite"] for one in rooms if one["id"] == t.room)
            joined = await carol.call("join_room", room=t.room, invite=invite)
            messages = [(one["author"]["name"], one["text"]) for one in joined["messages"]]
            assert messages == [(t.alice.user["name"], "Hello"), *said]


# ── queueing ─────────────────────────────────────────────────────────────────────────────


async def test_what_is_said_in_a_turn_is_shown_at_once_and_answered_together_by_the_next(
    autojump_clock: object,
) -> None:
    gate = Gate()
    async with table(gate) as t:
        await t.alice.prompt(t.room, "First")
        await t.bob.event("token")
        await t.bob.prompt(t.room, "Second")
        await t.alice.prompt(t.room, "Third")
        await t.bob.prompt(t.room, "Fourth")
        for text in ("Second", "Third", "Fourth"):  # shown while Tharin is still speaking
            assert (await t.bob.event("message"))["message"]["text"] == text
        gate.open()
        first, second = await turn(t.bob), await turn(t.bob)
        assert [name for name, _ in replies(second)] == NAMES
        assert "message" not in kinds(first + second)
        assert t.speakers == NAMES * 2
        later = ("Second", "Third", "Fourth")
        assert not any(text in told for told in t.told[:3] for text in later)
        for told in t.told[3:]:
            # In the order in which they were said, and after all replies of the first turn.
            places = [told.index(text) for text in ("Finn heard", *later)]
            assert places == sorted(places)


async def test_a_turn_starts_for_each_when_nobody_interrupts(autojump_clock: object) -> None:
    async with table() as t:
        for text in ("One", "Two"):
            await t.alice.prompt(t.room, text)
            await turn(t.alice)
        assert t.speakers == NAMES * 2


# ── who answers ──────────────────────────────────────────────────────────────────────────


async def test_only_who_is_addressed_answers(autojump_clock: object) -> None:
    async with table() as t:
        await t.alice.prompt(t.room, "You two!", to=["Finn", "Tharin"])
        assert [name for name, _ in replies(await turn(t.alice))] == ["Finn", "Tharin"]
        with pytest.raises(Refusal, match="bad_turn"):
            await t.alice.prompt(t.room, "You!", to=["Gandalf"])


async def test_in_a_room_of_mentions_nobody_answers_unasked(autojump_clock: object) -> None:
    async with table(answer="mention") as t:
        await t.alice.prompt(t.room, "Just thinking aloud")
        await t.bob.prompt(t.room, "@Lyra, do you agree?")
        seen = await turn(t.bob)
        assert kinds(seen) == [
            "message",
            "message",
            "turn",
            "message_start",
            "token",
            "message_end",
            "turn",
        ]
        assert t.speakers == ["Lyra"]
        assert "Just thinking aloud" in t.told[0]


# ── stopping ─────────────────────────────────────────────────────────────────────────────


async def test_stop_ends_the_turn_for_all(autojump_clock: object) -> None:
    gate = Gate()
    async with table(gate) as t:
        await t.alice.prompt(t.room, "Hello")
        token = await t.bob.event("token")
        assert await t.bob.call("stop", room=t.room) == {"stopped": [token["id"]]}
        await t.provider.until(lambda: t.provider.open == 0)
        seen = await turn(t.alice)
        [end] = [payload for name, payload in seen if name == "message_end"]
        assert (end["id"], end["status"]) == (token["id"], "stopped")
        assert t.speakers == ["Tharin"]
        # The next one knows what was said before the stop.
        gate.open()
        await t.alice.prompt(t.room, "Go on", to=["Lyra"])
        await turn(t.alice)
        assert "Tharin: Tharin heard:" in t.told[1]


async def test_what_was_said_before_the_stop_is_still_answered(autojump_clock: object) -> None:
    gate = Gate()
    async with table(gate) as t:
        await t.alice.prompt(t.room, "Hello")
        await t.alice.event("token")
        await t.bob.prompt(t.room, "And this?")
        await t.bob.call("stop", room=t.room)
        gate.open()
        await turn(t.alice)
        assert [name for name, _ in replies(await turn(t.alice))] == NAMES
        assert "And this?" in t.told[1]


async def test_one_reply_is_stopped_and_the_others_go_on(autojump_clock: object) -> None:
    gate = Gate()
    async with table(gate) as t:
        await t.alice.prompt(t.room, "Hello")
        token = await t.alice.event("token")
        await t.alice.call("stop", room=t.room, message=token["id"])
        gate.open()
        seen = await turn(t.bob)
        assert [p["status"] for n, p in seen if n == "message_end"] == ["stopped", "done", "done"]
        assert t.speakers == NAMES


# ── regenerating ─────────────────────────────────────────────────────────────────────────


async def test_a_reply_is_made_anew_from_what_was_known_then(autojump_clock: object) -> None:
    async with table() as t:
        await t.alice.prompt(t.room, "Hello")
        await turn(t.alice)
        seen = await turn(t.bob)
        ids = [payload["id"] for name, payload in seen if name == "message_end"]
        texts = [text for _, text in replies(seen)]
        new = (await t.bob.call("regenerate", room=t.room, message=ids[1]))["message"]
        assert new["swipes"] == [texts[1]]
        seen = await turn(t.alice)
        assert ("message_removed", ids[1]) in [(n, p.get("id")) for n, p in seen]
        assert replies(seen) == [("Lyra", texts[1])]  # it was asked just the same
        assert t.told[3] == t.told[1]
        # Once more: both earlier texts stay with it.
        again = (await t.alice.call("regenerate", room=t.room, message=new["id"]))["message"]
        assert again["swipes"] == [texts[1]] * 2
        await turn(t.alice)
        page = await t.bob.call("read_messages", room=t.room)
        names = [one["author"]["name"] for one in page["messages"]]
        assert names == [t.alice.user["name"], "Tharin", "Finn", "Lyra"]
        assert page["messages"][-1]["swipes"] == [texts[1]] * 2


async def test_the_first_reply_is_made_anew_without_what_came_after_it(
    autojump_clock: object,
) -> None:
    async with table() as t:
        await t.alice.prompt(t.room, "Hello")
        seen = await turn(t.alice)
        await t.alice.prompt(t.room, "Later")
        await turn(t.alice)
        first = next(payload["id"] for name, payload in seen if name == "message_end")
        await t.alice.call("regenerate", room=t.room, message=first)
        await turn(t.alice)
        assert t.told[-1] == t.told[0]


async def test_only_replies_are_made_anew_and_not_while_others_run(
    autojump_clock: object,
) -> None:
    gate = Gate()
    async with table(gate) as t:
        prompt = await t.alice.prompt(t.room, "Hello")
        token = await t.alice.event("token")
        with pytest.raises(Refusal, match="busy"):
            await t.bob.call("regenerate", room=t.room, message=token["id"])
        with pytest.raises(Refusal, match="not_a_reply"):
            await t.bob.call("regenerate", room=t.room, message=prompt["id"])
        with pytest.raises(Refusal, match="not_found"):
            await t.bob.call("regenerate", room=t.room, message="nowhere")
        gate.open()
        assert [name for name, _ in replies(await turn(t.bob))] == NAMES


# ── whispering ───────────────────────────────────────────────────────────────────────────


async def test_a_whisper_stays_between_two(autojump_clock: object) -> None:
    async with table() as t:
        prompt = await t.alice.prompt(t.room, "My secret is plum", to=["Lyra"], reply="me")
        assert prompt["private"] is True
        heard = await turn(t.alice)
        assert all(payload["inbox"] is True for _, payload in heard)
        assert [payload["room"] for _, payload in heard] == [t.room] * len(heard)
        [(name, text)] = replies(heard)
        assert (name, "plum" in text) == ("Lyra", True)
        # Bob saw none of it, and nothing tells him later.
        await t.bob.prompt(t.room, "What did she say?")
        seen = await turn(t.bob)
        assert seen[0][0] == "message"
        assert seen[0][1]["message"]["text"] == "What did she say?"
        for told in t.told[1:]:
            assert "plum" not in told
        page = await t.bob.call("read_messages", room=t.room)
        assert "plum" not in str(page)
        assert (await t.bob.call("read_messages", room=t.room, query="plum"))["messages"] == []
        assert "plum" not in str(await t.bob.call("join_room", room=t.room))
        mine = await t.alice.call("read_messages", room=t.room, query="plum")
        assert len(mine["messages"]) == 2


async def test_whispers_go_on_where_they_were(autojump_clock: object) -> None:
    async with table() as t:
        await t.alice.prompt(t.room, "My secret is plum", to=["Lyra"], reply="me")
        await turn(t.alice)
        await t.alice.prompt(t.room, "Do you remember?", to=["Lyra"], reply="me")
        await turn(t.alice)
        assert "plum" in t.told[1]
        await t.bob.prompt(t.room, "Do you remember?", to=["Lyra"], reply="me")
        await turn(t.bob)
        assert "plum" not in t.told[2]


async def test_others_can_neither_stop_nor_remake_a_whisper(autojump_clock: object) -> None:
    gate = Gate()
    async with table(gate) as t:
        await t.alice.prompt(t.room, "A secret", to=["Lyra"], reply="me")
        token = await t.alice.event("token", inbox=True)
        assert await t.bob.call("stop", room=t.room) == {"stopped": []}
        assert await t.bob.call("stop", room=t.room, message=token["id"]) == {"stopped": []}
        assert t.provider.open == 1
        gate.open()
        await turn(t.alice)
        with pytest.raises(Refusal, match="not_found"):
            await t.bob.call("regenerate", room=t.room, message=token["id"])


async def test_a_whisper_does_not_wait_for_the_room_nor_the_room_for_it(
    autojump_clock: object,
) -> None:
    gate = Gate()
    async with table(gate) as t:
        await t.alice.prompt(t.room, "A secret", to=["Lyra"], reply="me")
        await t.bob.prompt(t.room, "Hello")
        await t.provider.until(lambda: t.provider.open == 2)
        gate.open()
        await t.alice.event("turn", state="done", inbox=True)
        assert [name for name, _ in replies(await turn(t.bob))] == NAMES


# ── faults ───────────────────────────────────────────────────────────────────────────────


async def test_broken_characters_of_a_model_are_mended(autojump_clock: object) -> None:
    """Half a surrogate pair once ended the whole hub: no frame and no row can hold it."""

    async def cut_in_two(request: Request) -> AsyncGenerator[Item, None]:
        yield "Well, "
        yield "yes \ud83d"
        yield "\ude00 \ud83d\ude00!"
        yield Usage(model="script")

    async with running_hub(Scripted(cut_in_two)) as running, running.connect() as alice:
        await alice.call("join_room", room="lobby")
        for _ in range(2):
            await alice.prompt("lobby", "Hello")
            [(_, text)] = replies(await turn(alice))
            assert text == "Well, yes \ufffd\ufffd \U0001f600!"
        result = await alice.call("llm_chat_prompt", prompt="Hello")
        assert result["text"] == text


async def test_a_fault_in_a_turn_ends_that_turn_only(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with table() as t:
        with monkeypatch.context() as broken:

            def fail(*_: object) -> None:
                raise RuntimeError("a bug")

            broken.setattr(Agenda, "next", fail)
            await t.alice.prompt(t.room, "Hello")
            await t.alice.call("ping")
        assert [one.message for one in caplog.records if one.levelname == "ERROR"] == [
            f"a turn in room {t.room} failed"
        ]
        await t.bob.prompt(t.room, "Still there?")
        assert [name for name, _ in replies(await turn(t.bob))] == NAMES
