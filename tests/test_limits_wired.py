"""Limits where they are met: over real sockets, through a proxy that is trusted."""

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx
import msgspec
import pytest
import trio

from hub.limits import Rate
from tests.hubs import Refusal, Running, running_hub

FROM = "203.0.113.{}"


def coming_from(last: int, *more: tuple[bytes, bytes]) -> Sequence[tuple[bytes, bytes]]:
    """Headers as a proxy sends them for somebody at that address."""
    return [(b"X-Forwarded-For", FROM.format(last).encode()), *more]


def proxied(**settings: Any) -> Any:
    return running_hub(trusted_proxies="127.0.0.1", **settings)


async def handshake(
    running: Running, *, headers: Sequence[tuple[bytes, bytes]], path: str = "/ws"
) -> httpx.Response:
    """A handshake that is to be refused."""
    key = (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==")
    opening = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), key]
    version = (b"Sec-WebSocket-Version", b"13")
    return await running.http.get(path, headers=[*opening, version, *headers])


async def test_a_message_too_many_is_told_when_to_come_back(autojump_clock: object) -> None:
    async with proxied(limit_messages=Rate("1/s burst 3"), limit_crowd=100) as running:
        async with running.connect(headers=coming_from(5)) as ada:
            for _ in range(3):
                await ada.call("ping")
            await ada.send("ping", {}, "late")
            name, payload, id = await ada.receive()
            assert (name, id, payload["code"]) == ("error", "late", "too_fast")
            assert 0 < payload["retry_after"] <= 1
            assert "try again in 1 second." in payload["message"]
            await trio.sleep(payload["retry_after"] + 0.1)
            await ada.call("ping")


async def test_a_flood_does_not_close_nor_hinder_others(autojump_clock: object) -> None:
    async with proxied(limit_messages=Rate("1/s burst 3"), limit_crowd=10) as running:
        async with (
            running.connect(headers=coming_from(5)) as ada,
            running.connect(headers=coming_from(5)) as ben,
        ):
            began = trio.current_time()
            for n in range(30):
                await ada.send("ping", {}, str(n))
            answers = [(await ada.receive(60))[0] for _ in range(30)]
            assert answers[:4] == ["ping", "ping", "ping", "error"]
            # It was read no faster than it may send.
            assert trio.current_time() - began > answers.count("error") - 2 > 10
            await ben.call("ping")


async def test_bytes_are_limited(autojump_clock: object) -> None:
    async with proxied(limit_bytes=Rate("1000/s burst 5000")) as running:
        async with running.connect(headers=coming_from(5)) as ada:
            await ada.send_text(msgspec.json.encode(["ping", {}, "x" * 4900]).decode())
            assert (await ada.receive())[0] == "ping"
            await ada.send_text(msgspec.json.encode(["ping", {}, "y" * 900]).decode())
            name, payload, _ = await ada.receive()
            assert (name, payload["code"]) == ("error", "too_fast")


async def test_prompts_are_limited_and_not_what_else_one_does(autojump_clock: object) -> None:
    async with proxied(limit_prompts=Rate("6/min burst 2")) as running:
        async with running.connect(headers=coming_from(5)) as ada:
            await ada.call("join_room", room="lobby")
            for _ in range(2):
                await ada.prompt("lobby", "Hello.")
            with pytest.raises(Refusal) as refusal:
                await ada.prompt("lobby", "Hello again.")
            assert refusal.value.code == "too_fast"
            with pytest.raises(Refusal):
                await ada.call("llm_chat_prompt", prompt="Hello aside.")
            await ada.call("ping")
            await trio.sleep(11)
            await ada.prompt("lobby", "Hello at last.")


async def test_rooms_are_limited(autojump_clock: object) -> None:
    async with proxied(limit_rooms=Rate("1/h")) as running:
        async with running.connect(headers=coming_from(5)) as ada:
            await ada.call("create_room", title="One")
            with pytest.raises(Refusal) as refusal:
                await ada.call("create_room", title="Two")
            assert refusal.value.code == "too_fast"


async def test_games_are_limited_in_their_own_words(autojump_clock: object) -> None:
    cast = [{"name": "Finn", "class": "Rogue", "personality": "Sly"}]
    async with proxied(limit_rooms=Rate("1/h"), limit_prompts=Rate("1/h")) as running:
        async with running.connect_objects(headers=coming_from(5)) as player:
            begin = {"gmPrompt": "A cave.", "characters": cast}
            game = (await player.ask("start_game", data=begin))["data"]["gameId"]
            refused = await player.ask("start_game", data=begin)
            assert refused["type"] == "error"
            assert "You make rooms too fast" in refused["data"]["error"]
            assert refused["data"]["retryAfter"] > 3000
            said = await player.ask("send_message", game, {"message": "Hello."})
            assert said["type"] == "character_responses"
            refused = await player.ask("send_message", game, {"message": "Hello?"})
            assert "You ask too fast" in refused["data"]["error"]


async def test_sockets_at_once(autojump_clock: object) -> None:
    async with proxied(limit_sockets=2, limit_crowd=2) as running, AsyncExitStack() as stack:
        for _ in range(4):  # passers-by, each somebody else, of one address
            await stack.enter_async_context(running.connect(headers=coming_from(5)))
        refused = await handshake(running, headers=coming_from(5))
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "5"
        async with running.connect(headers=coming_from(6)):
            pass
        await stack.aclose()
        async with running.connect(headers=coming_from(5)):
            pass


async def test_sockets_of_one_user_wherever_they_are(autojump_clock: object) -> None:
    async with proxied(limit_sockets=2) as running:
        session = await running.http.get("/api/session", headers=dict(told(5)))
        cookie = (b"Cookie", session.headers["set-cookie"].partition(";")[0].encode())
        path = f"/ws?csrf={session.json()['csrf']}"
        async with (
            running.connect(path=path, headers=coming_from(5, cookie)) as one,
            running.connect(path=path, headers=coming_from(6, cookie)) as other,
        ):
            assert one.user["id"] == other.user["id"]
            refused = await handshake(running, path=path, headers=coming_from(7, cookie))
            assert refused.status_code == 429
        async with running.connect(path=path, headers=coming_from(7, cookie)):
            pass


async def test_handshakes_are_limited_by_address(autojump_clock: object) -> None:
    async with proxied(limit_handshakes=Rate("6/min burst 1"), limit_crowd=2) as running:
        for _ in range(2):
            async with running.connect(headers=coming_from(5)):
                pass
        refused = await handshake(running, headers=coming_from(5))
        assert refused.status_code == 429
        assert refused.json()["code"] == "too_fast"
        async with running.connect(headers=coming_from(6)):
            pass


def told(last: int) -> dict[str, str]:
    return {"x-forwarded-for": FROM.format(last)}


@pytest.mark.parametrize(
    ("limit", "method", "path", "body"),
    [
        ("limit_requests", "GET", "/api/characters", None),
        ("limit_logins", "GET", "/api/session", None),
        ("limit_logins", "POST", "/api/session", {"name": "Ada"}),
        ("limit_rooms", "POST", "/api/game/start", {"gmPrompt": "x", "characters": []}),
        ("limit_prompts", "POST", "/api/game/message", {"gameId": "x", "message": "x"}),
    ],
)
async def test_requests_over_a_limit_get_429(
    limit: str, method: str, path: str, body: object, autojump_clock: object
) -> None:
    async with proxied(**{limit: Rate("6/min burst 1")}, limit_crowd=2) as running:

        async def ask(last: int) -> Any:
            running.http.cookies.clear()
            return await running.http.request(method, path, json=body, headers=told(last))

        for _ in range(2):
            assert (await ask(5)).status_code != 429
        refused = await ask(5)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 5
        assert refused.json()["code"] == "too_fast"
        assert (await ask(6)).status_code != 429
        await trio.sleep(int(refused.headers["retry-after"]))
        assert (await ask(5)).status_code != 429


async def test_a_user_is_limited_wherever_they_are(autojump_clock: object) -> None:
    async with proxied(limit_rooms=Rate("6/min burst 1"), limit_crowd=100) as running:
        me = (await running.http.get("/api/session", headers=told(1))).json()

        async def make(last: int) -> httpx.Response:
            headers = told(last) | {"x-csrf-token": me["csrf"]}
            answer: httpx.Response = await running.http.post("/api/rooms", json={}, headers=headers)
            return answer

        assert (await make(1)).status_code == 201
        refused = await make(2)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_fast")
        await trio.sleep(int(refused.headers["retry-after"]))
        assert (await make(3)).status_code == 201


async def test_this_machine_itself_has_no_limits() -> None:
    once = Rate("1/day")
    limits: dict[str, Any] = {
        f"limit_{name}": once
        for name in ("requests", "handshakes", "logins", "messages", "bytes", "prompts", "rooms")
    }
    async with running_hub(**limits, limit_sockets=1, limit_crowd=1) as running:
        async with running.connect() as ada, running.connect():
            await ada.call("join_room", room="lobby")
            for _ in range(3):
                await ada.call("ping")
                await ada.call("create_room", title="A room")
                await ada.prompt("lobby", "Hello.")
        for _ in range(3):
            running.http.cookies.clear()
            assert (await running.http.get("/api/session")).status_code == 200


async def test_a_header_that_nobody_is_trusted_with_changes_nothing() -> None:
    async with running_hub(limit_requests=Rate("1/day"), limit_crowd=1) as running:
        for _ in range(3):
            answer = await running.http.get("/api/characters", headers=told(5))
            assert answer.status_code == 200


async def test_what_is_refused_is_logged_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "hub.security"):
        async with proxied(limit_requests=Rate("1/day"), limit_crowd=1) as running:
            for _ in range(100):
                await running.http.get("/api/characters?csrf=SECRET", headers=told(5))
            await running.http.get(
                "/api/%0aevil", headers={"x-forwarded-for": "203.0.113.6", "host": "evil.example"}
            )
    lines = [record.getMessage() for record in caplog.records if record.name == "hub.security"]
    assert lines[0] == "refused too_fast: GET /api/characters from 203.0.113.5"
    assert lines[-1] == "refused host: GET /api/%0aevil from 203.0.113.6"
    assert len(lines) < 40
    assert "SECRET" not in caplog.text


async def test_what_the_api_refuses_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hub.security"):
        async with proxied() as running:
            await running.http.get("/api/session", headers=told(5))
            refused = await running.http.post(
                "/api/rooms?invite=SECRET", json={"title": "SECRET"}, headers=told(5)
            )
            assert refused.json()["code"] == "csrf"
    assert "refused csrf: POST /api/rooms from 203.0.113.5" in caplog.text
    assert "SECRET" not in caplog.text


async def test_a_limit_that_a_socket_meets_is_logged_now_and_then(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hub.security"):
        async with proxied(limit_prompts=Rate("1/day")) as running:
            async with running.connect(headers=coming_from(5)) as ada:
                await ada.call("join_room", room="lobby")
                for _ in range(10):
                    await ada.send("send_prompt", {"room": "lobby", "text": "SECRET", "txn": "1"})
                await ada.call("ping")
                assert caplog.text.count("limit of prompts") == 1
                assert f"user {ada.user['id']} at 203.0.113.5" in caplog.text
                await trio.sleep(11)
                await ada.send("send_prompt", {"room": "lobby", "text": "SECRET", "txn": "2"})
                await ada.call("ping")
                assert caplog.text.count("limit of prompts") == 2
    assert "SECRET" not in caplog.text
