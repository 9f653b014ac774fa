"""Games: what clients of the object dialect and of `/api/game/*` can rely on."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from attrs import frozen

from llm.provider import Item, ModelError, Request, Usage
from tests.hubs import Objects, Refusal, Running, running_hub
from tests.scripted import Gate, Scripted, obedient, speaker

CAST = [
    {"name": "Tharin", "class": "Fighter", "personality": "Brave."},
    {"name": "Lyra", "class": "Wizard", "personality": "Curious."},
    {"name": "Finn", "class": "Rogue", "personality": "Witty."},
]
NAMES = ["Tharin", "Lyra", "Finn"]


async def start(client: Objects, names: list[str] = NAMES) -> str:
    cast = [{"name": name, "class": "Hero", "personality": "Kind."} for name in names]
    started = await client.ask("start_game", data={"gmPrompt": "A cave.", "characters": cast})
    assert started["type"] == "game_started", started
    return str(started["data"]["gameId"])


@frozen
class Me:
    """A browser with a session."""

    cookie: str
    token: str

    @property
    def way_in(self) -> dict[str, Any]:
        return {
            "path": f"/ws?csrf={self.token}",
            "headers": [(b"Cookie", self.cookie.encode())],
        }


@asynccontextmanager
async def logged_in(running: Running) -> AsyncIterator[Me]:
    async with httpx.AsyncClient(base_url=running.http.base_url) as http:
        response = await http.get("/api/session")
        cookie = response.headers["set-cookie"].partition(";")[0]
        yield Me(cookie, response.json()["csrf"])


def speakers(frame: dict[str, dict[str, list[dict[str, str]]]]) -> list[str]:
    return [one["speaker"] for one in frame["data"]["responses"]]


def prompts(provider: Scripted) -> list[str]:
    """All that each reply was told, in one string."""
    return ["\n".join(m.content for m in one.messages[1:]) for one in provider.requests]


# ── turns ────────────────────────────────────────────────────────────────────────────────


async def test_two_turns_back_to_back_are_answered_in_order_and_not_mixed(
    autojump_clock: object,
) -> None:
    provider = Scripted()
    async with running_hub(provider) as running, running.connect_objects() as player:
        game = await start(player)
        await player.say("send_message", game, {"message": "First"})
        await player.say("send_message", game, {"message": "Second"})
        first, second = await player.answer(), await player.answer()
    assert speakers(first) == speakers(second) == NAMES
    assert [speaker(one) for one in provider.requests] == NAMES * 2
    told = prompts(provider)
    assert not any("Second" in one for one in told[:3])
    # The second prompt stands after all replies to the first one.
    assert told[3].index("Finn heard") < told[3].index("Player: Second")
    assert second["data"]["responses"][0]["message"] == "Tharin heard: Player: Second"


async def test_the_next_message_is_taken_while_a_turn_runs(autojump_clock: object) -> None:
    gate = Gate()
    async with running_hub(Scripted(gate)) as running, running.connect_objects() as player:
        game = await start(player, ["Ada"])
        await player.say("send_message", game, {"message": "First"})
        state = await player.ask("get_game_state", game)
        assert [one["message"] for one in state["data"]["messages"]][1:] == ["First"]
        await player.say("send_message", game, {"message": "Second"})
        gate.open()
        assert speakers(await player.answer()) == ["Ada"]
        assert speakers(await player.answer()) == ["Ada"]


async def test_a_slow_game_does_not_hold_up_another(autojump_clock: object) -> None:
    async def slow_for_bob(request: Request) -> AsyncGenerator[Item, None]:
        if speaker(request) == "Bob":
            await trio.sleep(5)
        async with aclosing(obedient(request)) as items:
            async for item in items:
                yield item

    async with running_hub(Scripted(slow_for_bob)) as running, running.connect_objects() as player:
        slow, fast = await start(player, ["Bob"]), await start(player, ["Ada"])
        await player.say("send_message", slow, {"message": "Take your time"})
        await player.say("send_message", fast, {"message": "Quick"})
        assert (await player.answer())["data"]["gameId"] == fast
        assert (await player.answer())["data"]["gameId"] == slow


async def test_only_so_many_messages_may_wait(autojump_clock: object) -> None:
    gate = Gate()
    async with (
        running_hub(Scripted(gate), prompts_waiting=2) as running,
        running.connect_objects() as player,
    ):
        game = await start(player, ["Ada"])
        for text in ("one", "two", "three"):
            await player.say("send_message", game, {"message": text})
        refused = await player.answer()
        assert refused["data"]["error"] == (
            "Failed to process message: Wait for the answers to your earlier messages."
        )
        gate.open()
        assert speakers(await player.answer()) == ["Ada"]
        assert speakers(await player.answer()) == ["Ada"]
        await player.say("send_message", game, {"message": "four"})
        assert speakers(await player.answer()) == ["Ada"]


async def test_there_is_no_pause_between_replies_unless_one_is_set(
    autojump_clock: object,
) -> None:
    async def seconds(pace: int) -> float:
        async with running_hub(pace=pace) as running, running.connect_objects() as player:
            game = await start(player)
            began = trio.current_time()
            await player.ask("send_message", game, {"message": "Hello"})
            return trio.current_time() - began

    assert await seconds(0) < 0.5
    assert 1.4 <= await seconds(700) < 1.9


# ── failures ─────────────────────────────────────────────────────────────────────────────


async def test_a_reply_that_failed_is_left_out(autojump_clock: object) -> None:
    gate = Gate(failing={"Lyra"})
    gate.open()
    async with running_hub(Scripted(gate)) as running, running.connect_objects() as player:
        game = await start(player)
        answer = await player.ask("send_message", game, {"message": "Hello"})
        assert speakers(answer) == ["Tharin", "Finn"]
        state = await player.ask("get_game_state", game)
        said = [one["speaker"] for one in state["data"]["messages"]]
        assert said == ["System", "Player", "Tharin", "Finn"]


async def test_when_all_fail_it_says_why(autojump_clock: object) -> None:
    async def broken(request: Request) -> AsyncGenerator[Item, None]:
        if request.messages:
            raise ModelError("unreachable", "The model can't be reached.")
        yield ""

    async with running_hub(Scripted(broken)) as running, running.connect_objects() as player:
        game = await start(player)
        answer = await player.ask("send_message", game, {"message": "Hello"})
        sentence = "Failed to process message: The model can't be reached."
        assert answer == {"type": "error", "data": {"error": sentence}}
        body = {"gameId": game, "message": "Hello"}
        response = await running.http.post("/api/game/message", json=body)
        assert response.status_code == 503
        assert response.json() == {"error": sentence, "code": "model_failed"}
        assert "retry-after" in response.headers


async def test_nobody_answers_where_all_are_muted(autojump_clock: object) -> None:
    async with (
        running_hub() as running,
        logged_in(running) as me,
        running.connect_objects(**me.way_in) as player,
        running.connect(**me.way_in) as browser,
    ):
        game = await start(player, ["Ada"])
        await browser.call("join_room", room=game)
        await browser.call("update_room", room=game, characters=[{"name": "Ada", "muted": True}])
        answer = await player.ask("send_message", game, {"message": "Hello?"})
        assert answer == {"type": "character_responses", "data": {"gameId": game, "responses": []}}


async def test_a_demo_is_marked_as_one(autojump_clock: object) -> None:
    async with running_hub(Scripted(demo=True)) as running, running.connect_objects() as player:
        game = await start(player, ["Ada"])
        answer = await player.ask("send_message", game, {"message": "Hello"})
        assert answer["data"]["responses"][0]["demo"] is True
        state = await player.ask("get_game_state", game)
        assert [one.get("demo") for one in state["data"]["messages"]] == [None, None, True]


# ── who hears what ───────────────────────────────────────────────────────────────────────


async def test_who_joined_is_told_what_others_say_and_get(autojump_clock: object) -> None:
    async with (
        running_hub() as running,
        running.connect_objects() as player,
        running.connect_objects() as watcher,
        running.connect_objects() as stranger,
    ):
        game = await start(player)
        state = (await player.ask("get_game_state", game))["data"]
        joined = await watcher.ask("join_game", game)
        assert joined == {"type": "game_joined", "data": state}
        answer = await player.ask("send_message", game, {"message": "Hello"})
        told = [await watcher.hear() for _ in range(4)]
        assert {one["type"] for one in told} == {"message"}
        assert {one["data"]["gameId"] for one in told} == {game}
        messages = [one["data"]["message"] for one in told]
        assert messages[0]["speaker"] == "Player"
        assert messages[0]["type"] == "gm"
        assert messages[1:] == answer["data"]["responses"]
        # Nothing else was sent, to anybody: the next frame answers the next question.
        for client in (watcher, player, stranger):
            await client.say("get_game_state", game)
            assert (await client.receive())["type"] == "game_state"


async def test_a_player_who_joined_hears_tokens_of_the_replies_but_no_echo(
    autojump_clock: object,
) -> None:
    async with running_hub() as running, running.connect_objects() as player:
        game = await start(player)
        await player.ask("join_game", game, {"stream": True})
        answer = await player.ask("send_message", game, {"message": "Hello"})
        assert {one["type"] for one in player.told} == {"token"}
        texts: dict[str, str] = {}
        for one in player.told:
            data = one["data"]
            assert data["gameId"] == game
            texts[data["id"]] = texts.get(data["id"], "") + data["text"]
        assert texts == {one["id"]: one["message"] for one in answer["data"]["responses"]}


async def test_streaming_is_chosen_for_each_game(autojump_clock: object) -> None:
    async with (
        running_hub() as running,
        running.connect_objects() as watcher,
        running.connect_objects() as player,
    ):
        streamed, plain = await start(player, ["Ada"]), await start(player, ["Bob"])
        await watcher.ask("join_game", streamed, {"stream": True})
        await watcher.ask("join_game", plain, {"stream": False})
        await player.ask("send_message", plain, {"message": "Hello"})
        await player.ask("send_message", streamed, {"message": "Hello"})
        kinds: list[tuple[str, str]] = []
        while not kinds or kinds[-1] != (streamed, "message") or len(kinds) < 5:
            frame = await watcher.hear()
            kinds.append((frame["data"]["gameId"], frame["type"]))
        assert kinds[:2] == [(plain, "message")] * 2
        assert set(kinds[2:]) == {(streamed, "token"), (streamed, "message")}


async def test_a_game_is_shared_by_sockets_and_http(autojump_clock: object) -> None:
    async with running_hub() as running, running.connect_objects() as player:
        started = await running.http.post(
            "/api/game/start", json={"gmPrompt": "A cave.", "characters": CAST}
        )
        game = started.json()["gameId"]
        await player.ask("join_game", game)
        body = {"gameId": game, "message": "Over HTTP"}
        response = await running.http.post("/api/game/message", json=body)
        told = [(await player.hear())["data"]["message"] for _ in range(4)]
        assert told[0]["message"] == "Over HTTP"
        assert told[1:] == response.json()["responses"]
        assert speakers(await player.ask("send_message", game, {"message": "Hi"})) == NAMES


async def test_a_browser_opens_a_game_by_its_id(autojump_clock: object) -> None:
    async with (
        running_hub() as running,
        running.connect_objects() as player,
        running.connect() as browser,
    ):
        game = await start(player, ["Ada"])
        await player.ask("join_game", game)
        joined = await browser.call("join_room", room=game)
        assert joined["room"]["game"] is True
        assert joined["messages"][0]["text"] == "Game started! Players: Ada"
        assert joined["messages"][0]["author"]["kind"] == "system"
        await player.ask("send_message", game, {"message": "Hello"})
        prompt = (await browser.event("message"))["message"]
        assert (prompt["author"]["name"], prompt["text"]) == ("Player", "Hello")
        assert (await browser.event("message_end"))["status"] == "done"
        await browser.prompt(game, "Hello from the page")
        heard = (await player.hear())["data"]["message"]
        assert heard["speaker"] == browser.user["name"]
        assert (heard["type"], heard["message"]) == ("gm", "Hello from the page")
        assert (await player.hear())["data"]["message"]["speaker"] == "Ada"


async def test_a_whisper_never_reaches_game_clients(autojump_clock: object) -> None:
    async with (
        running_hub() as running,
        logged_in(running) as me,
        running.connect_objects(**me.way_in) as player,
        running.connect(**me.way_in) as browser,
    ):
        game = await start(player, ["Ada"])
        await player.ask("join_game", game, {"stream": True})
        await browser.call("join_room", room=game)
        await browser.prompt(game, "Secret", reply="me")
        await browser.event("message_end", inbox=True)
        await player.say("get_game_state", game)
        state = await player.receive()
        assert [one["speaker"] for one in state["data"]["messages"]] == ["System"]
        again = await player.ask("join_game", game, {"stream": True})
        assert again["data"] == state["data"]
        await player.ask("send_message", game, {"message": "Hello"})
        assert not any("Secret" in str(one) for one in player.told)


async def test_a_game_made_private_is_closed_to_others(autojump_clock: object) -> None:
    async with (
        running_hub() as running,
        logged_in(running) as me,
        running.connect_objects(**me.way_in) as player,
        running.connect(**me.way_in) as browser,
        running.connect() as other,
    ):
        game = await start(player, ["Ada"])
        await browser.call("update_room", room=game, visibility="private")
        state = await player.ask("get_game_state", game)
        assert state["data"]["error"] == "Game not found"
        with pytest.raises(Refusal, match="no_room"):
            await other.call("join_room", room=game)


async def test_a_room_that_is_no_game_is_not_found(autojump_clock: object) -> None:
    async with (
        running_hub() as running,
        running.connect() as browser,
        running.connect_objects() as player,
    ):
        made = await browser.call("create_room", visibility="link")
        state = await player.ask("get_game_state", made["room"]["id"])
        assert state["data"]["error"] == "Game not found"


async def test_the_state_has_the_last_ten_messages(autojump_clock: object) -> None:
    async with running_hub() as running, running.connect_objects() as player:
        game = await start(player, ["Ada"])
        for n in range(6):
            await player.ask("send_message", game, {"message": f"Number {n}"})
        messages = (await player.ask("get_game_state", game))["data"]["messages"]
        assert [one["message"] for one in messages[::2]] == [f"Number {n}" for n in range(1, 6)]
        assert len(messages) == 10


# ── leaving ──────────────────────────────────────────────────────────────────────────────


async def test_a_turn_goes_on_as_long_as_somebody_waits_for_it(autojump_clock: object) -> None:
    async def slow(request: Request) -> AsyncGenerator[Item, None]:
        await trio.sleep(3)
        yield "At last."
        yield Usage(model="script")

    provider = Scripted(slow)
    async with running_hub(provider, grace=1) as running, running.connect_objects() as player:
        game = await start(player, ["Ada"])
        assert speakers(await player.ask("send_message", game, {"message": "Hello"})) == ["Ada"]
        body = {"gameId": game, "message": "Hello"}
        response = await running.http.post("/api/game/message", json=body)
        assert response.json()["responses"][0]["message"] == "At last."


async def test_a_turn_stops_when_its_player_has_gone(autojump_clock: object) -> None:
    provider = Scripted(Gate())
    async with running_hub(provider, grace=1) as running:
        async with running.connect_objects() as player:
            game = await start(player)
            await player.say("send_message", game, {"message": "Hello"})
            await provider.until(lambda: provider.open == 1)
            left = trio.current_time()
        await provider.until(lambda: provider.open == 0)
        assert trio.current_time() - left >= 1
        assert provider.closed == ["Tharin"]  # the others were not even asked


async def test_a_turn_stops_when_its_http_request_is_given_up(autojump_clock: object) -> None:
    provider = Scripted(Gate())
    async with running_hub(provider, grace=1) as running, running.connect_objects() as player:
        game = await start(player)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                body = {"gameId": game, "message": "Hello"}
                await running.http.post("/api/game/message", json=body)

            nursery.start_soon(ask)
            await provider.until(lambda: provider.open == 1)
            nursery.cancel_scope.cancel()
        await provider.until(lambda: provider.open == 0)
        assert provider.closed == ["Tharin"]


async def test_a_turn_goes_on_for_another_who_listens(autojump_clock: object) -> None:
    gate = Gate()
    provider = Scripted(gate)
    async with running_hub(provider, grace=0) as running, running.connect_objects() as watcher:
        async with running.connect_objects() as player:
            game = await start(player)
            await watcher.ask("join_game", game)
            await player.say("send_message", game, {"message": "Hello"})
            await provider.until(lambda: provider.open == 1)
        gate.open()
        told = [(await watcher.hear())["data"]["message"]["speaker"] for _ in range(4)]
        assert told == ["Player", *NAMES]


async def test_a_turn_that_is_stopped_answers_with_what_there_is(autojump_clock: object) -> None:
    provider = Scripted(Gate())
    async with (
        running_hub(provider) as running,
        running.connect_objects() as player,
        running.connect() as browser,
    ):
        game = await start(player)
        await browser.call("join_room", room=game)
        await player.say("send_message", game, {"message": "Hello"})
        await browser.event("token")
        await browser.call("stop", room=game)
        [reply] = (await player.answer())["data"]["responses"]
        assert (reply["message"], reply["status"]) == ("Tharin heard: ", "stopped")


async def test_a_game_that_is_deleted_tells_who_waits(autojump_clock: object) -> None:
    provider = Scripted(Gate())
    async with (
        running_hub(provider) as running,
        logged_in(running) as me,
        running.connect_objects(**me.way_in) as player,
        running.connect_objects() as other,
    ):
        game = await start(player, ["Ada"])
        await other.say("send_message", game, {"message": "Hello"})
        await other.say("send_message", game, {"message": "Still there?"})
        await provider.until(lambda: provider.open == 1)
        await running.http.delete(
            f"/api/rooms/{game}", headers={"cookie": me.cookie, "x-csrf-token": me.token}
        )
        for _ in range(2):
            answer = await other.answer()
            assert answer["type"] == "error"
            assert answer["data"]["error"].startswith("Failed to process message: ")
        found = await other.ask("get_game_state", game)
        assert found["data"]["error"] == "Game not found"


async def test_an_ended_game_lets_its_turn_finish(autojump_clock: object) -> None:
    gate = Gate()
    provider = Scripted(gate)
    async with (
        running_hub(provider) as running,
        running.connect_objects() as player,
        running.connect_objects() as other,
    ):
        game = await start(player)
        await player.say("send_message", game, {"message": "Hello"})
        await provider.until(lambda: provider.open == 1)
        await other.ask("end_game", game)
        gate.open()
        assert speakers(await player.answer()) == NAMES
        refused = await player.ask("send_message", game, {"message": "More"})
        sentence = "Failed to process message: Game not found or inactive"
        assert refused["data"]["error"] == sentence


# ── who may ──────────────────────────────────────────────────────────────────────────────


async def test_a_game_belongs_to_whose_session_made_it(autojump_clock: object) -> None:
    async with (
        running_hub() as running,
        logged_in(running) as me,
        running.connect_objects(**me.way_in) as player,
        running.connect(**me.way_in) as browser,
    ):
        game = await start(player)
        rooms = (await browser.call("list_rooms"))["rooms"]
        [mine] = [room for room in rooms if room["id"] == game]
        assert mine["owner"] == browser.user["id"]


async def test_http_games_need_no_token_and_use_no_session(autojump_clock: object) -> None:
    async with running_hub() as running, logged_in(running) as me:
        response = await running.http.post(
            "/api/game/start",
            content=b'{"gmPrompt": "", "characters": [{"name": "Ada"}]}',
            headers={"cookie": me.cookie, "content-type": "text/plain"},
        )
        assert response.status_code == 200
        room = await running.hub.room(response.json()["gameId"])
        assert room.record.owner is None


async def test_pages_of_other_sites_are_kept_out(autojump_clock: object) -> None:
    async with running_hub() as running:
        for path in ("/api/game/start", "/api/game/message"):
            headers = {"origin": "http://evil.example"}
            response = await running.http.post(path, json={}, headers=headers)
            assert response.status_code == 403
            assert response.json()["code"] == "origin"


async def test_presets_are_listed(autojump_clock: object) -> None:
    async with running_hub() as running:
        characters = (await running.http.get("/api/characters")).json()
        assert {"Tharin", "Lyra", "Finn", "Assistant"} <= {one["name"] for one in characters}
        keys = {"id", "name", "emoji", "class", "personality", "backstory"}
        assert all(keys <= one.keys() for one in characters)
        scenarios = (await running.http.get("/api/scenarios")).json()
        known = {one["id"] for one in characters}
        assert scenarios
        assert all(set(one["cast"]) <= known for one in scenarios)
        # As they are listed, they may be played.
        body = {"gmPrompt": scenarios[0]["text"], "characters": characters[:3]}
        started = await running.http.post("/api/game/start", json=body)
        assert started.status_code == 200
