"""What is fuzzed: each takes any bytes, and fails where something happens that must not.

The pure ones are plain functions. The live ones speak to a hub that is running: whatever they
say, each ends with an answer or a close with a code, and `well` must hold afterwards.
"""

import base64
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec
import trio
from attrs import define, field

from hub import cards, png
from hub.errors import BadRequest
from hub.markup import render
from hub.wire import objects, tuples
from tests.hubs import Running
from tests.sockets import PATIENCE
from tests.test_markup import check

# The closes that the hub may answer rubbish with; 1000 and 1001 echo the client's own.
CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 4008}

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)

_KINDS = (objects.StartGame, objects.SendMessage, objects.JoinGame)


def fuzz_tuples(data: bytes) -> None:
    for message in (data.decode(errors="replace"), data):
        try:
            call = tuples.decode(message)
        except tuples.BadCall as error:
            presentable(str(error))
            tuples.error(error.code, str(error), error.id)
        else:
            tuples.answer(call.method, call.command, call.id or "1")


def fuzz_objects(data: bytes) -> None:
    try:
        said = objects.decode(data.decode(errors="replace"))
        objects.game_id(said.game)
        for kind in _KINDS:
            objects.read(said.data, kind)
        raise objects.unknown(said.type)
    except BadRequest as error:
        presentable(str(error))
        objects.error(str(error))
    for body in _KINDS:
        try:
            objects.read(data, body)
        except BadRequest as error:
            presentable(str(error))


def fuzz_cards(data: bytes) -> None:
    """As a file, and as the card inside a picture that is right otherwise."""
    picture = [*png.plain_picture((1, 2, 3), 1)]
    for chunk in (
        png.text_chunk("ccv3", base64.b64encode(data)),
        png.text_chunk("chara", data),
        png.Chunk(b"zTXt", b"chara\0" + data),
        png.Chunk(b"iTXt", b"ccv3\0" + data),
    ):
        _card(png.write_chunks([*picture[:-1], chunk, picture[-1]]))
    _card(data)


def _card(data: bytes) -> None:
    try:
        found = cards.import_card(data)
    except cards.CardError as error:
        presentable(str(error))
        return
    msgspec.json.encode(found.character)
    again = cards.import_card(cards.export_png(found.character, "v3", found.image))
    assert again.character.name == found.character.name
    cards.import_card(cards.export_json(found.character, "v2"))


def fuzz_png(data: bytes) -> None:
    """Any chunks, whose checksums are right."""
    header = png.plain_picture((1, 2, 3), 1)[0]
    parts = data.split(b"\xff\xff")
    kinds = (b"tEXt", b"zTXt", b"iTXt", b"IDAT", b"IHDR")
    chunks = [png.Chunk(kinds[at % 5], part) for at, part in enumerate(parts)]
    for file in (
        png.write_chunks([header, *chunks, png.Chunk(b"IEND", b"")]),
        png.SIGNATURE + data,
    ):
        try:
            read = png.read_chunks(file)
            for chunk in read:
                text = png.text_of(chunk, limit=10_000)
                assert text is None or len(text.value) <= 10_000
        except png.PngError as error:
            presentable(str(error))


def fuzz_markup(data: bytes) -> None:
    check(render(data.decode(errors="replace")))


PURE: dict[str, Callable[[bytes], None]] = {
    "tuples": fuzz_tuples,
    "objects": fuzz_objects,
    "cards": fuzz_cards,
    "png": fuzz_png,
    "markup": fuzz_markup,
}


def presentable(sentence: str) -> None:
    """Fail if a sentence for people is none."""
    assert sentence, "no words"
    assert len(sentence) < 600, sentence
    for word in ("Traceback", "msgspec", "Error(", "Expected `", "byte ", "codec", "struct."):
        assert word not in sentence, sentence
    sentence.encode()


# ── live ─────────────────────────────────────────────────────────────────────────────────


async def fuzz_http(running: Running, data: bytes) -> None:
    """Any bytes in place of a request: HTTP comes back, or the connection is closed."""
    answer = await talk(running, data)
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:100]
    if b"switching" not in answer[:40].lower():
        assert b"HTTP/1.1 500" not in answer, answer[:500]
        assert b"Traceback" not in answer


async def fuzz_frames(running: Running, data: bytes) -> None:
    """Any bytes after a handshake; the first one chooses the dialect.

    Behind them comes a goodbye, and then the end, in case that they were frames.
    """
    offer = b"Sec-WebSocket-Protocol: dm-rpc\r\n" if data[:1] < b"\x80" else b""
    goodbye = b"\x88\x82\0\0\0\0" + (1000).to_bytes(2, "big")
    answer = await talk(running, UPGRADE + offer + b"\r\n", data[1:] + goodbye)
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    said = list(split(frames))
    for opcode, payload in said:
        assert opcode in (1, 8, 9, 10), opcode
        if opcode == 1:
            assert "Traceback" not in payload.decode()
        if opcode == 8:
            check_goodbye(payload)


def check_goodbye(payload: bytes) -> None:
    """Fail on a close frame that no client may get; one without a code answers one without."""
    if payload:
        code = int.from_bytes(payload[:2], "big")
        assert code in CODES or 3000 <= code < 5000, code
        payload[2:].decode()


LIVE: dict[str, Callable[[Running, bytes], Awaitable[None]]] = {
    "http": fuzz_http,
    "frames": fuzz_frames,
}


async def talk(running: Running, head: bytes, rest: bytes = b"") -> bytes:
    """Send bytes and return all that comes until the other side has ended.

    Args:
        running: the hub.
        head: what is sent first.
        rest: sent when an answer has come (RFC 6455, 4.1 wants a client to wait for it).

    """
    answer = b""
    heard = trio.Event()

    async def say() -> None:
        with suppress(trio.BrokenResourceError):  # it would not hear all of that
            await stream.send_all(head)
            if rest:
                await heard.wait()
                await stream.send_all(rest)
            await stream.send_eof()

    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say)
                with suppress(trio.BrokenResourceError):
                    while more := await stream.receive_some(65_536):
                        answer += more
                        assert len(answer) < 8 << 20
                        if b"\r\n\r\n" in answer:
                            heard.set()
                nursery.cancel_scope.cancel()
    return answer


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split what a server sent into frames, strictly (RFC 6455, 5.2); the last may be cut."""
    while len(data) >= 2:
        opcode, size, start = data[0] & 15, data[1], 2
        assert data[0] & 0xF0 == 0x80, "no whole frame, or reserved bits"
        assert size < 128, "a server masks nothing"
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        yield opcode, data[start : start + size]
        if opcode == 8:
            assert len(data) == start + size, "something after goodbye"
        data = data[start + size :]


async def well(running: Running) -> None:
    """Fail unless everybody has gone, and whoever behaves is served."""
    with trio.fail_after(PATIENCE):
        while running.hub.connections:  # noqa: ASYNC110 - it tells nobody when they go
            await trio.sleep(0.01)
    answer = await running.http.get("/api/session")
    assert answer.status_code == 200, answer.text
    running.http.cookies.clear()
    async with running.connect() as client:
        assert await client.call("ping")
    async with running.connect_objects() as player:
        assert (await player.ask("x"))["type"] == "error"


@define(eq=False, slots=False)
class Complaints(logging.Handler):
    """What was logged as an error: there must be nothing."""

    found: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


@contextmanager
def no_complaints() -> Iterator[Complaints]:
    """Fail if anything is logged as an error while the block runs."""
    handler = Complaints()
    logging.getLogger().addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger().removeHandler(handler)
    assert not handler.found, "\n".join(handler.found[:3])
