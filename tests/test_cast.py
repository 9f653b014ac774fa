"""What people do with the characters of a room: have them speak, talk, keep silent, come in."""

from itertools import pairwise
from typing import Any

import attrs
import msgspec
import pytest

from hub.records import LOBBY, Room
from hub.store.contract import SaveRoom
from tests.hubs import PRESETS, Native, Refusal, running_hub
from tests.scripted import Gate, Scripted
from tests.test_rooms_play import NAMES, replies, table, turn

MIRA = {
    "name": "Mira",
    "greeting": "{{char}} nods to {{user}}.",
    "personality": "Dry.",
}


def author(message: dict[str, Any]) -> str:
    return str(message["author"]["name"])


async def quiet(client: Native) -> None:
    """Nothing more is coming: a ping's answer would come after it."""
    await client.call("ping")
    assert [name for name, _ in client.events if name != "member_joined"] == []


# ── speak ────────────────────────────────────────────────────────────────────────────────


async def test_one_character_speaks_now_by_name_or_id(autojump_clock: object) -> None:
    async with table(answer="mention") as t:
        for called in ("Lyra", "lyra"):
            assert await t.bob.call("speak", room=t.room, character=called) == {}
            seen = await turn(t.alice)
            assert [name for name, _ in replies(seen)] == ["Lyra"]
            [begun] = [payload["message"] for name, payload in seen if name == "message_start"]
            assert "reply_to" not in begun
        await quiet(t.alice)
        with pytest.raises(Refusal, match="bad_turn"):
            await t.bob.call("speak", room=t.room, character="Gandalf")


async def test_who_is_asked_to_speak_in_a_turn_speaks_after_it(autojump_clock: object) -> None:
    gate = Gate()
    async with table(gate) as t:
        await t.alice.prompt(t.room, "Hello")
        await t.alice.event("token")
        await t.bob.call("speak", room=t.room, character="finn")
        gate.open()
        assert [name for name, _ in replies(await turn(t.bob))] == NAMES
        assert [name for name, _ in replies(await turn(t.bob))] == ["Finn"]


async def test_a_stranger_makes_nobody_speak(autojump_clock: object) -> None:
    async with table() as t, t.running.connect() as carol:
        for method, more in (
            ("speak", {"character": "lyra"}),
            ("talk", {"turns": 2}),
            ("mute", {"character": "lyra", "muted": True}),
        ):
            with pytest.raises(Refusal, match="not_joined"):
                await carol.call(method, room=t.room, **more)


# ── talk ─────────────────────────────────────────────────────────────────────────────────


async def test_characters_talk_among_themselves_for_so_many_turns(autojump_clock: object) -> None:
    async with table() as t:
        assert await t.alice.call("talk", room=t.room, turns=4) == {}
        said = [replies(await turn(t.bob)) for _ in range(4)]
        speakers = [name for [(name, _)] in said]
        assert all(one != other for one, other in pairwise(speakers))
        await quiet(t.bob)
        # Each knows what the one before said.
        assert speakers[0] + " heard" in t.told[1]


async def test_stop_ends_the_talk(autojump_clock: object) -> None:
    gate = Gate()
    async with table(gate) as t:
        await t.alice.call("talk", room=t.room, turns=5)
        token = await t.bob.event("token")
        assert await t.bob.call("stop", room=t.room) == {"stopped": [token["id"]]}
        gate.open()
        await turn(t.bob)
        await quiet(t.bob)
        assert len(t.speakers) == 1


async def test_a_talk_has_limits_told_in_plain_words(autojump_clock: object) -> None:
    async with running_hub(self_talk=3) as running, running.connect() as alice:
        made = await alice.call("create_room", characters=["lyra", "finn"])
        room = made["room"]["id"]
        with pytest.raises(Refusal, match="for 1 to 3 turns, not 4"):
            await alice.call("talk", room=room, turns=4)
        with pytest.raises(Refusal, match="bad_payload"):
            await alice.call("talk", room=room, turns=-1)
        await alice.call("mute", room=room, character="finn", muted=True)
        with pytest.raises(Refusal, match="takes two characters"):
            await alice.call("talk", room=room, turns=1)
        assert await alice.call("talk", room=room, turns=0) == {}


# ── mute ─────────────────────────────────────────────────────────────────────────────────


async def test_who_is_muted_keeps_silent_until_told_to_speak(autojump_clock: object) -> None:
    async with table() as t:
        room = (await t.bob.call("mute", room=t.room, character="Lyra", muted=True))["room"]
        assert [one.get("muted", False) for one in room["cast"]] == [False, True, False]
        told = await t.alice.event("room_updated")
        assert told["settings"] == {"cast": room["cast"]}
        await t.alice.prompt(t.room, "Hello")
        assert [name for name, _ in replies(await turn(t.alice))] == ["Tharin", "Finn"]
        await t.alice.call("speak", room=t.room, character="lyra")
        assert [name for name, _ in replies(await turn(t.alice))] == ["Lyra"]
        await t.alice.call("mute", room=t.room, character="lyra", muted=False)
        await t.alice.prompt(t.room, "And now?")
        assert [name for name, _ in replies(await turn(t.alice))] == NAMES


async def test_a_passer_by_mutes_nobody_in_the_lobby(autojump_clock: object) -> None:
    async with running_hub() as running, running.connect() as alice:
        await alice.call("join_room", room=LOBBY)
        with pytest.raises(Refusal, match="forbidden"):
            await alice.call("mute", room=LOBBY, character="assistant", muted=True)


# ── greetings ────────────────────────────────────────────────────────────────────────────


async def test_characters_greet_when_a_room_is_made(autojump_clock: object) -> None:
    async with running_hub() as running, running.connect() as alice:
        made = await alice.call("create_room", characters=[MIRA, "marisol", "assistant"])
        assert [author(one) for one in made["messages"]] == ["Mira", "Marisol"]
        first = made["messages"][0]
        assert first["text"] == f"Mira nods to {alice.user['name']}."
        assert first["html"] == f"<p>Mira nods to {alice.user['name']}.</p>\n"
        assert (first["status"], first["demo"], first["private"]) == ("done", False, False)
        page = await alice.call("read_messages", room=made["room"]["id"])
        assert page["messages"] == made["messages"]


async def test_who_joins_a_cast_greets_and_who_stays_does_not(autojump_clock: object) -> None:
    async with table() as t:
        cast = ["tharin", MIRA, "finn"]
        await t.alice.call("update_room", room=t.room, characters=cast)
        await t.bob.event("room_updated")
        posted = await t.bob.event("message")
        assert posted["message"]["text"] == f"Mira nods to {t.alice.user['name']}."
        await quiet(t.bob)
        await t.bob.prompt(t.room, "Hello")
        await turn(t.bob)
        assert "Mira nods" in t.told[0]  # the others heard it


async def test_other_greetings_are_swipes(autojump_clock: object) -> None:
    card = {"data": {"alternate_greetings": ["Second, {{user}}.", "Third."]}}
    lyra = msgspec.structs.replace(PRESETS.characters["lyra"], greeting="First.", card=card)
    presets = attrs.evolve(PRESETS, characters={**PRESETS.characters, "lyra": lyra})
    async with running_hub(presets=presets) as running, running.connect() as alice:
        made = await alice.call("create_room", characters=["lyra"])
        [message] = made["messages"]
        assert message["text"] == "First."
        assert message["swipes"] == ["Third.", f"Second, {alice.user['name']}."]
        # Made anew, the first one is reachable too.
        await alice.call("regenerate", room=made["room"]["id"], message=message["id"])
        begun = (await alice.event("message_start"))["message"]
        assert begun["swipes"] == [*message["swipes"], "First."]


async def test_nobody_greets_in_the_lobby_or_in_a_game(autojump_clock: object) -> None:
    async with running_hub() as running, running.connect() as alice:
        record = await running.hub.store.room(LOBBY)
        assert isinstance(record, Room)
        await running.hub.store.commit(
            SaveRoom(msgspec.structs.replace(record, cast=[PRESETS.characters["lyra"]]))
        )
        joined = await alice.call("join_room", room=LOBBY)
        assert joined["messages"] == []
        response = await running.http.post(
            "/api/game/start", json={"gmPrompt": "", "characters": [{"name": "Lyra"}]}
        )
        game = response.json()["gameId"]
        joined = await alice.call("join_room", room=game)
        assert [author(one) for one in joined["messages"]] == ["System"]


# ── games ────────────────────────────────────────────────────────────────────────────────


async def test_in_a_game_that_has_ended_nobody_can_say_more(autojump_clock: object) -> None:
    gate = Gate()
    provider = Scripted(gate)
    async with (
        running_hub(provider) as running,
        running.connect() as alice,
        running.connect_objects() as player,
    ):
        cast = [{"name": "Lyra"}, {"name": "Finn"}]
        started = await player.ask("start_game", data={"gmPrompt": "", "characters": cast})
        game = started["data"]["gameId"]
        await alice.call("join_room", room=game)
        await alice.prompt(game, "Hello")
        await provider.until(lambda: provider.open == 1)
        await alice.call("talk", room=game, turns=5)
        await player.ask("end_game", game)
        gate.open()
        # What was said before is answered to its end; the talk is not begun.
        assert [name for name, _ in replies(await turn(alice))] == ["Lyra", "Finn"]
        await quiet(alice)
        for method, more in (
            ("send_prompt", {"text": "More?", "txn": "1"}),
            ("speak", {"character": "Lyra"}),
            ("talk", {"turns": 2}),
            ("regenerate", {"message": "m"}),
        ):
            with pytest.raises(Refusal, match="no_game: This game has ended"):
                await alice.call(method, room=game, **more)
        page = await alice.call("read_messages", room=game)
        assert len(page["messages"]) == 4
