"""The seven invariants of docs/architecture.md, each broken on purpose nowhere but here."""

import ast
import logging
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
import trio.testing

from hub.conversation import TupleConversation
from hub.store.contract import StoreError
from hub.store.memory import MemoryStore
from llm.demo import Demo
from llm.provider import Item, ModelError, Request, Usage
from tests.hubs import Native, Refusal, Running, running_hub
from tests.scripted import Scripted
from tests.sockets import PATIENCE

ROOT = Path(__file__).parent.parent

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: dm-rpc\r\n\r\n"
)


def masked(text: bytes) -> bytes:
    """A client's text frame; a mask of zeros is a mask (RFC 6455 5.3)."""
    assert len(text) < 126
    return bytes((0x81, 0x80 | len(text))) + b"\0\0\0\0" + text


async def stalled(running: Running, witness: Native) -> trio.SocketStream:
    """A member of the lobby that reads nothing more, with small buffers at both ends."""
    before = set(running.hub._clients)
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(("127.0.0.1", running.port))
    stream = trio.SocketStream(sock)
    await stream.send_all(HANDSHAKE)
    assert (await stream.receive_some(12)).endswith(b"101")
    await stream.send_all(masked(b'["join_room",{"room":"lobby"},null]'))
    await witness.event("member_joined")
    (client,) = set(running.hub._clients) - before
    transport = client.stream._transport
    assert isinstance(transport, trio.SocketStream)
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    return stream


async def reset(stream: trio.SocketStream) -> bool:
    """Whether the connection ends with a reset, not in an orderly way."""
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        return True
    return False


TORRENT = [f"{n:05}" + "x" * 2000 for n in range(100)]


async def torrent(_request: Request) -> AsyncGenerator[Item, None]:
    """Say far more than a socket's buffers hold, slowly enough for who reads."""
    for text in TORRENT:
        yield text
        await trio.sleep(0.001)
    yield Usage(model="script")


class Gate:
    """Says a word, waits to be opened, says the rest."""

    def __init__(self) -> None:
        self._open = trio.Event()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, _request: Request) -> AsyncGenerator[Item, None]:
        yield "Once "
        await self._open.wait()  # opened by the test, or closed with the response
        for word in ("upon ", "a ", "time."):
            yield word
        yield Usage(model="script")


async def joined(client: Native) -> Native:
    await client.call("join_room", room="lobby")
    return client


# ── 1: a write cut short destroys that socket, at once and only that one ──────────────


async def test_a_client_that_takes_nothing_is_cut_off_and_nobody_else_notices() -> None:
    async with (
        running_hub(Scripted(torrent), send_timeout=1, window=64 << 20) as running,
        running.connect() as alice,
    ):
        await joined(alice)
        idler = await stalled(running, alice)
        for _ in range(3):
            await alice.prompt("lobby", "go")
            await alice.event("message_end")
        await alice.prompt("lobby", "go")
        text = ""
        while True:
            name, payload = await alice.next()
            if name == "token":
                text += payload["text"]
            elif name == "message_end":
                break
        assert text == "".join(TORRENT)
        # The deadline of its write has passed, or passes now: the reset tells the peer.
        with trio.fail_after(PATIENCE):
            await alice.event("member_left")
            assert await reset(idler)
        await idler.aclose()


async def test_a_client_that_falls_out_of_the_window_is_told_to_come_back() -> None:
    async with (
        running_hub(Scripted(torrent), window=600_000) as running,
        running.connect() as alice,
    ):
        await joined(alice)
        idler = await stalled(running, alice)
        for _ in range(6):
            await alice.prompt("lobby", "go")
            await alice.event("message_end")
        frames = b""
        with trio.fail_after(PATIENCE):
            while piece := await idler.receive_some():
                frames += piece
        assert b"\x88" in frames[-100:]  # a close frame, whole, after whole frames
        assert (4008).to_bytes(2, "big") in frames[-100:]
        await idler.aclose()


# ── 2: no error of one client leaves its nursery ──────────────────────────────────────


async def test_a_bug_met_by_one_client_is_logged_once_and_only_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard = TupleConversation.hear

    async def trip(self: TupleConversation, client: object, message: object) -> None:
        if message == "trip":
            raise RuntimeError("a bug")
        await heard(self, client, message)  # type: ignore[arg-type]

    monkeypatch.setattr(TupleConversation, "hear", trip)
    async with (
        running_hub() as running,
        running.connect() as alice,
        running.connect() as bob,
    ):
        await joined(alice)
        with caplog.at_level(logging.ERROR):
            await bob.send_text("trip")
            assert await bob.closed() == 1011
        assert len([one for one in caplog.records if one.exc_info]) == 1
        assert (await alice.prompt("lobby", "still here"))["text"] == "still here"


@pytest.mark.parametrize("part", [0, 10, len(HANDSHAKE) - 2, len(HANDSHAKE)])
async def test_a_peer_that_resets_in_the_handshake_harms_nobody(
    part: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_hub() as running:
        for _ in range(20):
            stream = await trio.open_tcp_stream("127.0.0.1", running.port)
            await stream.send_all(HANDSHAKE[:part] or b"G")
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.aclose()
        async with running.connect() as alice:
            await joined(alice)
    assert not [one for one in caplog.records if one.exc_info]


async def test_a_bug_in_the_middle_of_the_pump_ends_only_that_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        running_hub() as running,
        running.connect() as alice,
        running.connect() as bob,
    ):
        await joined(alice)
        await joined(bob)
        victim = next(c for c in running.hub._clients if c.user.id == bob.user["id"])

        monkeypatch.setattr(victim.stream, "free", "no number")
        await alice.prompt("lobby", "hello")
        assert (await alice.event("message_end"))["status"] == "done"
        assert await bob.closed() == 1011


# ── 3: no shield without a deadline; no heartbeat behind the lock that it watches ─────


def test_every_shield_has_a_deadline() -> None:
    for path in [*(ROOT / "hub").rglob("*.py"), *(ROOT / "llm").rglob("*.py")]:
        for call in [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]:
            if any(keyword.arg == "shield" for keyword in call.keywords):
                name = ast.unparse(call.func)
                timed = name.endswith(("_after", "_at")) or any(
                    keyword.arg in {"deadline", "relative_deadline"} for keyword in call.keywords
                )
                if path.name == "writer.py":  # its deadline is set by `finish`, which always comes
                    timed = "self._scope.deadline = " in path.read_text()
                assert timed, f"{path}:{call.lineno}: {ast.unparse(call)}"


async def test_a_client_that_is_stuck_holds_up_neither_heartbeat_nor_the_hubs_end() -> None:
    async with (
        running_hub(
            Scripted(torrent), ping_interval=0.1, ping_timeout=1, shutdown=0.3, window=64 << 20
        ) as running,
        running.connect() as alice,
    ):
        await joined(alice)
        idler = await stalled(running, alice)
        await alice.prompt("lobby", "go")
        await alice.event("message_end")
        await trio.sleep(1.2)  # alice is alive only if she was pinged meanwhile
        assert (await alice.call("ping"))["time"]
        assert running.hub.connections == 2
    await idler.aclose()


async def test_a_client_that_answers_no_ping_is_gone_and_one_that_does_stays() -> None:
    async with (
        running_hub(ping_interval=0.1, ping_timeout=0.4) as running,
        running.connect() as alice,
    ):
        await joined(alice)
        mute = await stalled(running, alice)
        await alice.event("member_left")
        assert (await alice.call("ping"))["time"]
        await mute.aclose()


# ── 4: every offset once, in order, or `recovered: false`: also tests/test_random_clients.py ──


async def test_ones_own_coming_may_push_what_one_missed_out_of_the_window() -> None:
    async with running_hub(window=4096) as running, running.connect() as alice:
        await joined(alice)
        [room] = running.hub.live
        recovered = set()
        for _ in range(60):
            await alice.call("ping")
            oldest = room.log.dropped
            async with running.connect() as bob:
                since = {"epoch": room.log.epoch, "offset": oldest}
                back = await bob.call("join_room", room="lobby", since=since)
                recovered.add(back["recovered"])
                await bob.call("ping")
                offset = oldest if back["recovered"] else back["offset"]
                assert [its["offset"] for _, its in bob.events] == list(
                    range(offset + 1, room.log.head + 1)
                )
                assert back["offset"] == offset
        assert recovered == {True, False}


async def test_who_comes_back_gets_exactly_what_was_missed() -> None:
    gate = Gate()
    async with running_hub(Scripted(gate)) as running, running.connect() as bob:
        await joined(bob)
        async with running.connect() as alice:
            place = await alice.call("join_room", room="lobby")
            await alice.prompt("lobby", "one")
            token = await alice.event("token")
            assert token["offset"] > place["offset"]
        await bob.event("member_left")
        gate.open()
        missed = await bob.until("turn", state="done")
        async with running.connect() as again:
            result = await again.call(
                "join_room",
                room="lobby",
                since={"epoch": place["epoch"], "offset": token["offset"]},
            )
            assert result["recovered"] is True
            assert result["messages"] == []
            first = await again.next()
            assert first[1]["offset"] == token["offset"] + 1
            seen = [first, *await again.until("turn", state="done")]
            assert [s for s in seen if s[0] in {"token", "message_end", "turn"}] == [
                m for m in missed if m[0] in {"token", "message_end", "turn"}
            ]


@pytest.mark.parametrize("since", [{"epoch": "gone", "offset": 1}, {"epoch": "", "offset": 99}])
async def test_who_can_not_be_caught_up_is_told(since: dict[str, object]) -> None:
    async with running_hub() as running, running.connect() as alice:
        result = await alice.call("join_room", room="lobby", since=since)
        assert result["recovered"] is False


# ── 5: commit, then append, then answer ───────────────────────────────────────────────


async def test_nobody_sees_a_prompt_before_it_is_on_disk() -> None:
    store = MemoryStore()
    async with (
        running_hub(store=store) as running,
        running.connect() as alice,
        running.connect() as bob,
    ):
        await joined(bob)
        await joined(alice)
        await bob.event("member_joined")
        store.held = True
        call = await alice.begin("send_prompt", room="lobby", text="secret", txn="1")
        await alice.send("set_typing", {"room": "lobby", "typing": True})
        await bob.send("set_typing", {"room": "lobby", "typing": True})
        assert (await alice.next())[0] == "typing"  # it is served, and knows of no message
        assert (await bob.call("ping"))["time"]
        assert not [event for event in bob.events if event[0] == "message"]
        store.release()
        message = (await alice.answer(call))["message"]
        # On the wire, the event came before the answer.
        assert [name for name, _ in alice.events] == ["message"]
        assert (await bob.event("message"))["message"] == message


async def test_a_prompt_that_is_not_stored_is_refused_and_seen_by_nobody() -> None:
    store = MemoryStore()
    async with (
        running_hub(store=store) as running,
        running.connect() as alice,
        running.connect() as bob,
    ):
        await joined(bob)
        await joined(alice)
        store.fail = StoreError("The disk is full.")
        with pytest.raises(Refusal, match="store_down"):
            await alice.prompt("lobby", "lost?")
        store.fail = None
        await alice.prompt("lobby", "kept")
        assert (await bob.event("message"))["message"]["text"] == "kept"


async def test_what_was_committed_is_shown_though_its_sender_went_meanwhile() -> None:
    store = MemoryStore()
    async with running_hub(store=store) as running, running.connect() as bob:
        await joined(bob)
        async with running.connect() as alice:
            await joined(alice)
            store.held = True
            await alice.begin("send_prompt", room="lobby", text="last words", txn="1")
            await bob.event("member_joined")
            await trio.testing.wait_all_tasks_blocked(0.01)
        store.release()
        assert (await bob.event("message"))["message"]["text"] == "last words"


async def test_the_same_txn_again_sends_nothing() -> None:
    async with (
        running_hub() as running,
        running.connect() as alice,
    ):
        await joined(alice)
        first = await alice.call("send_prompt", room="lobby", text="once", txn="t")
        again = await alice.call("send_prompt", room="lobby", text="once more", txn="t")
        assert again["message"]["id"] == first["message"]["id"]
        assert again["message"]["text"] == "once"
        await alice.event("turn", state="done")
        history = await alice.call("read_messages", room="lobby")
        assert [m["text"] for m in history["messages"] if m["author"]["kind"] == "human"] == [
            "once"
        ]


# ── 6: a reply always ends, and nobody listening ends it upstream ─────────────────────


async def test_a_reply_that_is_done_says_so() -> None:
    async with running_hub() as running, running.connect() as alice:
        await joined(alice)
        await alice.prompt("lobby", "hello")
        assert (await alice.event("message_end"))["status"] == "done"


async def test_stop_closes_the_models_response() -> None:
    provider = Scripted(Gate())
    async with running_hub(provider) as running, running.connect() as alice:
        await joined(alice)
        await alice.prompt("lobby", "hello")
        token = await alice.event("token")
        stopped = await alice.call("stop", room="lobby")
        assert stopped["stopped"] == [token["id"]]
        assert (await alice.event("message_end"))["status"] == "stopped"
        assert provider.open == 0


async def broken(_request: Request) -> AsyncGenerator[Item, None]:
    yield "So far"
    raise ModelError("cut", "The model broke off.", detail="secret detail")


async def buggy(_request: Request) -> AsyncGenerator[Item, None]:
    yield "So far"
    raise RuntimeError("secret detail")


@pytest.mark.parametrize("play", [broken, buggy])
async def test_a_reply_that_fails_keeps_its_text_and_says_why(play: object) -> None:
    async with running_hub(Scripted(play)) as running, running.connect() as alice:  # type: ignore[arg-type]
        await joined(alice)
        await alice.prompt("lobby", "hello")
        end = await alice.event("message_end")
        assert end["status"] == "failed"
        assert end["error"]
        assert "secret" not in end["error"]
        history = (await alice.call("read_messages", room="lobby"))["messages"]
        assert history[-1]["text"] == "So far"
        assert history[-1]["status"] == "failed"


async def test_nobody_listening_for_the_grace_time_stops_the_model() -> None:
    provider = Scripted(Gate())
    async with running_hub(provider, grace=0.2) as running:
        async with running.connect() as alice:
            await joined(alice)
            await alice.prompt("lobby", "hello")
            await alice.event("token")
        assert provider.open == 1  # the grace time runs
        await provider.until(lambda: provider.open == 0)
        async with running.connect() as alice:
            messages = (await alice.call("join_room", room="lobby"))["messages"]
            assert messages[-1]["status"] == "stopped"


async def test_somebody_who_comes_back_in_time_keeps_the_reply_going() -> None:
    gate = Gate()
    provider = Scripted(gate)
    async with running_hub(provider, grace=5) as running:
        async with running.connect() as alice:
            await joined(alice)
            await alice.prompt("lobby", "hello")
            await alice.event("token")
        async with running.connect() as alice:
            replies = (await alice.call("join_room", room="lobby"))["replies"]
            assert [reply["status"] for reply in replies] == ["running"]
            gate.open()
            assert (await alice.event("message_end"))["status"] == "done"


async def test_closing_the_connection_stops_a_prompt_without_a_room_at_once() -> None:
    provider = Scripted(Gate())
    async with running_hub(provider, grace=1000) as running:
        async with running.connect() as alice:
            await alice.send("llm_chat_prompt", {"prompt": "hello"})
            assert (await alice.receive())[0] == "llm_token"
            assert provider.open == 1
        await provider.until(lambda: provider.open == 0)


async def test_the_hubs_end_interrupts_replies_and_says_so_first() -> None:
    store = MemoryStore()
    provider = Scripted(Gate())
    async with trio.open_nursery() as nursery:
        ready = trio.Event()
        seen: list[str] = []

        async def listen(running: Running) -> None:
            async with running.connect() as alice:
                await joined(alice)
                await alice.prompt("lobby", "hello")
                await alice.event("token")
                ready.set()
                seen.append((await alice.event("message_end"))["status"])
                seen.append(str(await alice.closed()))

        async with running_hub(provider, store=store) as running:
            nursery.start_soon(listen, running)
            await ready.wait()
    assert seen == ["interrupted", "1001"]
    assert provider.open == 0
    messages, _ = await store.messages("lobby", viewer=None)
    assert messages[-1].status == "interrupted"


# ── 7: what is made up is marked, wherever it is shown or stored ──────────────────────


async def test_demo_replies_are_marked(autojump_clock: object) -> None:
    async with running_hub(Demo()) as running, running.connect() as alice:
        assert alice.welcome["llm"]["demo"] is True
        await joined(alice)
        prompt = await alice.prompt("lobby", "hello")
        assert prompt["demo"] is False
        assert (await alice.event("message_start"))["message"]["demo"] is True
        await alice.event("message_end")
        assert (await alice.call("read_messages", room="lobby"))["messages"][-1]["demo"] is True
        await alice.send("llm_chat_prompt", {"prompt": "hello"})
        assert (await alice.event("llm_end"))["demo"] is True
