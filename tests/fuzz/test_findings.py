"""What fuzzing found, kept found."""

import pytest
import trio

from tests.fuzz.shapes import Frame
from tests.fuzz.targets import UPGRADE, no_complaints, split, talk
from tests.hubs import Running, running_hub

NATIVE = UPGRADE + b"Sec-WebSocket-Protocol: dm-rpc\r\n\r\n"
JOIN = Frame(b'["join_room",{"room":"lobby"},"j"]').encode()
GOODBYE = b"\x88\x82\0\0\0\0" + (1000).to_bytes(2, "big")


async def test_nothing_follows_a_goodbye() -> None:
    """The pump wrote a room's news behind the close frame that trio-websocket had answered."""

    async def come_and_go(running: Running) -> None:
        answer = await talk(running, NATIVE, JOIN * 3 + GOODBYE)
        opcodes = [opcode for opcode, _ in split(answer.partition(b"\r\n\r\n")[2])]
        assert opcodes[-1] == 8

    async with running_hub() as running:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(come_and_go, running)


@pytest.mark.parametrize("origin", ["http://[x", "http://[::1", "http://", "null", "//", "\xff"])
async def test_an_origin_that_is_no_address_is_refused(origin: str) -> None:
    """An unfinished IPv6 address was our fault, 500, and a traceback in the log."""
    header = b"Origin: " + origin.encode("latin-1") + b"\r\n\r\n"
    post = b"POST /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n" + header
    with no_complaints():
        async with running_hub() as running:
            for request in (post, UPGRADE + header):
                assert (await talk(running, request)).startswith(b"HTTP/1.1 403 ")
