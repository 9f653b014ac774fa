"""The HTTP API and the handshake: who is let in, what is refused, in which words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from hub.store.contract import StoreError
from hub.store.memory import MemoryStore
from tests.hubs import Native, Running, running_hub
from tests.scripted import Gate, Scripted


@asynccontextmanager
async def guest(running: Running) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, Any]]]:
    """A browser with a session."""
    async with httpx.AsyncClient(base_url=running.url.replace("localhost", "127.0.0.1")) as client:
        me = (await client.get("/api/session")).json()
        client.headers["x-csrf-token"] = me["csrf"]
        yield client, me


def cookie(client: httpx.AsyncClient) -> str:
    return f"hubbub_session={client.cookies['hubbub_session']}"


@asynccontextmanager
async def signed_in(
    running: Running,
) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, Any], Native]]:
    """A browser with a session and a socket."""
    async with guest(running) as (client, me):
        path, headers = f"/ws?csrf={me['csrf']}", [(b"cookie", cookie(client).encode())]
        async with running.connect(path=path, headers=headers) as socket:
            yield client, me, socket


async def test_a_session_is_made_once_and_known_again() -> None:
    async with running_hub() as running, guest(running) as (client, me):
        assert me["user"]["guest"] is True
        again = (await client.get("/api/session")).json()
        assert again == me
        fresh = (await running.http.get("/api/session")).json()
        assert fresh["user"]["id"] != me["user"]["id"]


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites() -> None:
    async with running_hub() as running:
        header = (await running.http.get("/api/session")).headers["set-cookie"].lower()
        assert "httponly" in header
        assert "samesite=lax" in header


async def test_a_cookie_that_was_tampered_with_is_nobodys() -> None:
    async with running_hub() as running, guest(running) as (client, me):
        value = client.cookies["hubbub_session"]
        client.cookies.clear()
        client.cookies.set("hubbub_session", "x" + value[1:])
        assert (await client.get("/api/session")).json()["user"] != me["user"]


async def test_a_name_is_taken_everywhere_at_once() -> None:
    async with running_hub() as running, signed_in(running) as (client, me, ada):
        assert ada.user == me["user"]
        await ada.call("join_room", room="lobby")
        answer = await client.post("/api/session", json={"name": "  Ada\u202e  Lovelace "})
        assert answer.json()["user"]["name"] == "Ada Lovelace"
        member = (await ada.event("member_joined"))["member"]
        assert member["name"] == "Ada Lovelace"
        assert (await ada.prompt("lobby", "hi"))["author"]["name"] == "Ada Lovelace"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": ""}, "empty"),
        ({"name": "\u200b\u202e"}, "empty"),
        ({"name": "x" * 41}, "too_long"),
        ({"name": 7}, "bad_payload"),
        ({}, "bad_payload"),
        ({"name": "x", "role": "admin"}, "bad_payload"),
        ([], "bad_payload"),
    ],
)
async def test_a_bad_name_is_refused_in_words(body: object, code: str) -> None:
    async with running_hub() as running, guest(running) as (client, _):
        answer = await client.post("/api/session", json=body)
        assert answer.status_code == 400
        assert answer.json()["code"] == code
        assert answer.json()["error"].endswith(".")


@pytest.mark.parametrize("token", [None, "", "wrong", "é"])
async def test_changes_need_the_sessions_own_token(token: str | None) -> None:
    async with running_hub() as running:
        async with guest(running) as (client, _), guest(running) as (other, _):
            client.headers.pop("x-csrf-token")
            headers = {} if token is None else {b"x-csrf-token": token.encode()}
            answer = await client.post("/api/session", json={"name": "x"}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
            foreign = {"x-csrf-token": other.headers["x-csrf-token"]}
            answer = await client.post("/api/session", json={"name": "x"}, headers=foreign)
            assert answer.status_code == 403


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_a_foreign_page_may_change_nothing(method: str) -> None:
    async with running_hub() as running:
        path = "/api/session" if method != "PATCH" else "/api/rooms/lobby"
        answer = await running.http.request(
            method, path, json={"name": "x"}, headers={"origin": "https://evil.example"}
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "origin")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example"])
async def test_another_sites_name_for_our_address_is_refused(host: str) -> None:
    async with running_hub() as running:
        answer = await running.http.get("/api/session", headers={"host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "host")
        assert await refused(running, "/ws", "dm-rpc", host=host) == (403, "host")


async def test_log_out_ends_session_and_sockets() -> None:
    async with running_hub() as running, signed_in(running) as (client, me, ada):
        old = client.cookies["hubbub_session"]
        assert (await client.delete("/api/session")).status_code == 204
        assert await ada.closed() == 1008
        client.cookies.set("hubbub_session", old)
        assert (await client.get("/api/session")).json()["user"]["id"] != me["user"]["id"]


# ── the handshake ─────────────────────────────────────────────────────────────────────


HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "WebSocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def refused(
    running: Running, path: str, subprotocol: str | None, **headers: str
) -> tuple[int, str]:
    """Try to open a WebSocket; return the status and code of the refusal."""
    offered = {"sec-websocket-protocol": subprotocol} if subprotocol else {}
    answer = await running.http.get(path, headers=HANDSHAKE | offered | headers)
    return answer.status_code, answer.json()["code"]


async def test_handshakes_that_are_refused() -> None:
    async with running_hub() as running, guest(running) as (client, me):
        mine = cookie(client)
        csrf = f"/ws?csrf={me['csrf']}"
        evil = "https://evil.example"
        assert await refused(running, "/ws", "dm-rpc", cookie=mine) == (403, "csrf")
        assert await refused(running, "/ws?csrf=x", "dm-rpc", cookie=mine) == (403, "csrf")
        assert await refused(running, "/ws", "soap") == (400, "subprotocol")
        assert await refused(running, "/nowhere", "dm-rpc") == (404, "not_found")
        assert await refused(running, "/ws", "dm-rpc", origin=evil) == (403, "origin")
        assert await refused(running, "/ws", "dm-rpc", origin="null") == (403, "origin")
        assert await refused(running, csrf, "dm-rpc", cookie=mine, origin=evil) == (
            403,
            "origin",
        )


@pytest.mark.parametrize("path", ["/ws", "/", "/chat"])
async def test_handshakes_that_are_let_in(path: str) -> None:
    async with running_hub(origins="https://friend.example") as running:
        own = (b"origin", f"http://127.0.0.1:{running.port}".encode())
        for headers in [(), (own,), ((b"origin", b"https://friend.example"),)]:
            async with running.connect(path=path, headers=headers) as client:
                assert client.welcome["user"]["guest"] is True
        async with running.socket(path, ["soap", "dm-rpc"]) as ws:
            assert ws.subprotocol == "dm-rpc"


async def test_the_same_token_opens_many_sockets_of_its_session() -> None:
    async with running_hub() as running, signed_in(running) as (client, me, one):
        path = f"/ws?csrf={me['csrf']}"
        async with running.connect(
            path=path, headers=[(b"cookie", cookie(client).encode())]
        ) as two:
            assert one.user == two.user


# ── frames ────────────────────────────────────────────────────────────────────────────


async def test_twenty_bad_frames_in_a_row_close_the_connection() -> None:
    async with running_hub() as running, running.connect() as client:
        for _ in range(19):
            await client.send_text("nonsense")
            assert (await client.receive())[0] == "error"
        assert (await client.call("ping"))["time"]  # a good one in between starts the count anew
        for _ in range(20):
            await client.send_text("nonsense")
        assert await client.closed() == 1002


async def test_a_frame_that_is_too_big_closes_with_1009() -> None:
    async with running_hub(frame_bytes=4096) as running, running.connect() as client:
        await client.send_text(" " * 5000)
        assert await client.closed() == 1009


# ── rooms over HTTP ───────────────────────────────────────────────────────────────────


async def test_a_private_room_is_there_for_its_owner_only() -> None:
    async with running_hub() as running, guest(running) as (ada, _), guest(running) as (bob, _):
        made = await ada.post("/api/rooms", json={"title": "Secret", "visibility": "private"})
        assert made.status_code == 201
        id = made.json()["room"]["id"]
        for path in (f"/api/rooms/{id}", f"/api/rooms/{id}/messages"):
            assert (await ada.get(path)).status_code == 200
            answer = await bob.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "no_room")
        for answer in (
            await bob.patch(f"/api/rooms/{id}", json={"title": "Mine"}),
            await bob.delete(f"/api/rooms/{id}"),
        ):
            assert answer.status_code == 404
        titles = [room["title"] for room in (await bob.get("/api/rooms")).json()["rooms"]]
        assert titles == ["Lobby"]
        assert (await ada.patch(f"/api/rooms/{id}", json={"title": "Ours"})).json()["room"][
            "title"
        ] == "Ours"
        assert (await ada.delete(f"/api/rooms/{id}")).status_code == 204
        assert (await ada.get(f"/api/rooms/{id}")).status_code == 404


async def test_a_room_by_link_opens_with_its_invite_and_stays_open() -> None:
    async with running_hub() as running, running.connect() as ada, running.connect() as bob:
        room = (await ada.call("create_room", title="Party", visibility="link"))["room"]
        for wrong in ({}, {"invite": "x"}, {"invite": None}):
            with pytest.raises(Exception, match="no_room"):
                await bob.call("join_room", room=room["id"], **wrong)
        joined = await bob.call("join_room", room=room["id"], invite=room["invite"])
        assert joined["room"]["title"] == "Party"
        await bob.call("leave_room", room=room["id"])
        assert (await bob.call("join_room", room=room["id"]))["recovered"] is False


async def test_whoever_is_in_a_room_is_told_when_it_is_deleted() -> None:
    async with running_hub() as running:
        async with signed_in(running) as (ada, _, own), running.connect() as bob:
            room = (await own.call("create_room", visibility="link"))["room"]
            await bob.call("join_room", room=room["id"], invite=room["invite"])
            assert (await ada.delete(f"/api/rooms/{room['id']}")).status_code == 204
            assert (await bob.event("room_removed"))["room"] == room["id"]
            with pytest.raises(Exception, match="not_joined"):
                await bob.prompt(room["id"], "anybody?")


async def test_only_who_made_a_room_may_change_it() -> None:
    async with running_hub() as running, running.connect() as ada, running.connect() as bob:
        room = (await ada.call("create_room", visibility="public"))["room"]["id"]
        await bob.call("join_room", room=room)
        for client, id in ((bob, room), (ada, "lobby")):
            with pytest.raises(Exception, match="forbidden"):
                await client.call("update_room", room=id, title="Mine")
        await ada.call("update_room", room=room, title="Ours", answer="mention")
        assert (await bob.event("room_updated"))["settings"] == {
            "title": "Ours",
            "answer": "mention",
        }


@pytest.mark.parametrize("limit", ["0", "201", "x", "-1", "1e3", "²", "9" * 400])
async def test_a_bad_page_is_refused(limit: str) -> None:
    async with running_hub() as running, guest(running) as (client, _):
        answer = await client.get("/api/rooms/lobby/messages", params={"limit": limit})
        assert answer.status_code == 400


async def test_errors_have_the_apis_form() -> None:
    async with running_hub() as running:
        wrong = await running.http.put("/api/session", json={})
        assert wrong.status_code == 405
        assert set(wrong.headers["allow"].replace(" ", "").split(",")) >= {"GET", "POST", "DELETE"}
        assert wrong.json()["code"] == "method_not_allowed"
        missing = await running.http.get("/api/nothing")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        text = await running.http.post(
            "/api/rooms", content=b"x", headers={"content-type": "text/plain"}
        )
        assert text.status_code in {400, 401}


async def test_a_store_that_is_down_is_said_so_with_a_time_to_come_back() -> None:
    store = MemoryStore()
    async with running_hub(store=store) as running:
        assert (await running.http.get("/readyz")).status_code == 200
        store.fail_reads = store.fail = StoreError("The disk is gone.")
        for path in ("/readyz", "/api/session"):
            answer = await running.http.get(path)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["code"] == "store_down"
        assert (await running.http.get("/healthz")).status_code == 200


async def test_every_answer_carries_the_security_headers() -> None:
    async with running_hub() as running:
        for path in ("/", "/script.js", "/api/session", "/api/nothing", "/nowhere"):
            headers = (await running.http.get(path)).headers
            assert "default-src 'none'" in headers["content-security-policy"], path
            assert headers["x-content-type-options"] == "nosniff"


# ── the prompt without a room ─────────────────────────────────────────────────────────


async def tokens_until_end(client: Native) -> tuple[str, dict[str, Any]]:
    text = ""
    while True:
        name, payload = await client.next()
        if name == "llm_token":
            text += payload
        elif name == "llm_end":
            return text, payload


async def test_prompts_without_a_room_are_answered_one_after_the_other() -> None:
    async with running_hub() as running, running.connect() as client, running.connect() as other:
        await client.send("llm_chat_prompt", {"prompt": "first"})
        id = await client.begin("llm_chat_prompt", prompt="second")
        assert (await client.answer(id)) == {"text": "nobody heard: second", "status": "done"}
        assert await tokens_until_end(client) == ("nobody heard: first", {"status": "done"})
        assert await tokens_until_end(client) == ("nobody heard: second", {"status": "done"})
        assert (await other.call("ping"))["time"]
        assert not other.events


async def test_a_flood_of_prompts_is_refused() -> None:
    gate = Gate()
    async with running_hub(Scripted(gate), prompts_waiting=2) as running:
        async with running.connect() as client:
            for _ in range(8):
                await client.send("llm_chat_prompt", {"prompt": "x"})
            answers: list[str] = []
            while len(answers) < 8:
                name, payload = await client.next()
                if name in {"error", "llm_end"}:
                    answers.append(payload.get("code", "answered"))
                if answers == ["too_many_prompts"] * 5:
                    gate.open()
            assert answers == ["too_many_prompts"] * 5 + ["answered"] * 3
