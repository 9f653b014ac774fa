"""What strangers might send: JSON that is nearly right, and frames that are nearly frames."""

import random
import struct
from collections.abc import Mapping

import msgspec
from attrs import frozen
from hypothesis import strategies as st

from hub import commands
from tests.e2e.hostile import TEXTS

ODD = [*TEXTS, "", "\0", "\ud7ff", "lobby", "x" * 20_000]


def _long(_: str) -> bytes:
    return b"x" * 70_000  # more than a frame may have


def _odd(at: int) -> str:  # a long list of texts would be in the repr of every strategy
    return ODD[at]


numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=30) | st.integers(0, len(ODD) - 1).map(_odd)
leaves = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=12,
)

FIELDS = sorted(
    {
        field.encode_name
        for kind in commands.BY_METHOD.values()
        for field in msgspec.structs.fields(kind)
    }
)
methods = st.sampled_from(sorted(commands.BY_METHOD))
odd_payloads = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6) | values
odd_calls = st.tuples(methods | texts, odd_payloads, st.none() | texts) | values

_ROOM: Mapping[str, st.SearchStrategy[object]] = {"room": st.just("lobby") | texts}
_RIGHT: dict[str, Mapping[str, st.SearchStrategy[object]]] = {
    "join_room": {**_ROOM, "since": st.fixed_dictionaries({"epoch": texts, "offset": numbers})},
    "leave_room": _ROOM,
    "send_prompt": {**_ROOM, "text": texts, "txn": texts, "reply": st.sampled_from(["room", "me"])},
    "stop": _ROOM,
    "regenerate": {**_ROOM, "message": texts},
    "read_messages": {**_ROOM, "query": texts, "limit": numbers, "before": texts},
    "update_room": {**_ROOM, "title": texts},
    "create_room": {"title": texts, "scenario": texts, "visibility": st.just("public")},
    "set_typing": {**_ROOM, "typing": st.booleans()},
    "llm_chat_prompt": {"prompt": texts},
    "list_rooms": {},
    "ping": {},
}


def _call(method: str) -> st.SearchStrategy[object]:
    fields = dict(_RIGHT[method])
    right = st.fixed_dictionaries(fields) | st.fixed_dictionaries({}, optional=fields)
    return st.tuples(st.just(method), right, st.sampled_from([None, "1", "2"]))


# Mostly right, in any order: what a client with a mistake in it does.
right_calls: st.SearchStrategy[object] = st.sampled_from(sorted(_RIGHT)).flatmap(_call)
calls: st.SearchStrategy[object] = st.just(["join_room", {"room": "lobby"}, "j"]) | right_calls
calls |= odd_calls

TYPES = ["start_game", "send_message", "get_game_state", "join_game", "end_game"]
characters = st.lists(
    st.fixed_dictionaries(
        {"name": texts}, optional=dict.fromkeys(("class", "personality", "emoji"), leaves)
    ),
    max_size=9,
)
game_data = st.fixed_dictionaries(
    {},
    optional={
        "gmPrompt": texts | values,
        "message": texts | values,
        "stream": values,
        "characters": characters | values,
    },
)
games: st.SearchStrategy[object] = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES) | leaves},
    optional={"gameId": texts | values, "data": game_data | values},
)

CARD_FIELDS = [
    "name", "description", "personality", "first_mes", "scenario", "mes_example",
    "character_book", "extensions", "alternate_greetings", "entries", "talkativeness", "hubbub",
    "triggers", "nickname", "spec", "spec_version", "data", "creator_notes", "use_regex", "class",
]  # fmt: skip
card_parts = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(CARD_FIELDS), inner, max_size=6)
    ),
    max_leaves=20,
)
card_data = st.fixed_dictionaries(
    {"name": texts}, optional=dict.fromkeys(CARD_FIELDS[1:14], card_parts)
)
cards: st.SearchStrategy[object] = card_data | st.fixed_dictionaries(
    {"spec": st.sampled_from(["chara_card_v2", "chara_card_v3"]), "data": card_data},
    optional={"spec_version": leaves},
)

MARKS = [*"[]()<>*_`~|#-+!\\&\n\t \"':/", "\n\n", "  \n", "```", "](", "javascript:"]
markdown = st.lists(st.sampled_from(MARKS) | texts, max_size=40).map("".join)

# ── bytes ────────────────────────────────────────────────────────────────────────────────


def as_json(value: object) -> bytes:
    return msgspec.json.encode(value)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes, with a few of them changed, dropped or said again."""
    out = bytearray(data)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(3):
            case 0:
                out[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del out[at : at + chance.randrange(8)]
            case _:
                out[at:at] = out[max(0, at - chance.randrange(30)) : at]
    return bytes(out)


chances = st.randoms(use_true_random=False)


@frozen
class Frame:
    """A frame as RFC 6455, 5.2 draws it, where each part may be a lie."""

    payload: bytes
    first: int = 0x81
    masked: bool = True
    said: int | None = None

    def encode(self) -> bytes:
        size = len(self.payload) if self.said is None else self.said
        bit = 0x80 if self.masked else 0
        if size < 126:
            head = bytes((self.first, bit | size))
        elif size < 65_536:
            head = struct.pack("!BBH", self.first, bit | 126, size)
        else:
            head = struct.pack("!BBQ", self.first, bit | 127, size)
        return head + (b"\0\0\0\0" if self.masked else b"") + self.payload


FIRST = [0x81, 0x01, 0x00, 0x80, 0x82, 0x88, 0x89, 0x8A, 0x09, 0xC1, 0xF1, 0x83, 0x8F]
SIZES = [None, None, None, 0, 1, 125, 126, 65_535, 65_537, 2**31, 2**63 - 1, 2**63, 2**64 - 1]
closes = st.integers(0, 0xFFFF).map(lambda code: code.to_bytes(2, "big")) | st.binary(max_size=130)
right_frames = (calls | games).map(lambda value: Frame(as_json(value)))
odd_frames = st.builds(
    Frame,
    payload=closes | calls.map(as_json) | st.binary(max_size=300) | st.just("").map(_long),
    first=st.sampled_from(FIRST),
    masked=st.sampled_from([True, True, True, False]),
    said=st.sampled_from(SIZES),
)


def fragments(payload: bytes) -> list[Frame]:
    """One message in pieces of a byte, a ping in between."""
    pieces = [Frame(payload[at : at + 1], first=0) for at in range(len(payload))]
    return [
        Frame(b"", first=1),
        *pieces[:3],
        Frame(b"p", first=0x89),
        *pieces[3:],
        Frame(b"", 0x80),
    ]


conversations = st.lists(right_frames, max_size=12) | st.lists(odd_frames, max_size=6)
conversations |= st.builds(lambda a, b: [*a, b], st.lists(right_frames, max_size=8), odd_frames)
conversations |= calls.map(as_json).map(lambda data: fragments(data[:200]))
frames = st.builds(
    lambda native, said: (b"\0" if native else b"\xff") + b"".join(one.encode() for one in said),
    st.booleans(),
    conversations,
)

LINES = [
    "GET / HTTP/1.1", "GET /ws HTTP/1.1", "POST /api/session HTTP/1.1", "GET /api/rooms HTTP/1.0",
    "PATCH /api/rooms/lobby HTTP/1.1", "GET /api/rooms/lobby/messages?limit=x&q=%00 HTTP/1.1",
    "GET /api/rooms/%00/export?format=md HTTP/1.1", "GET /../../etc/passwd HTTP/1.1",
    "PRI * HTTP/2.0",
    "GET http://[::1 HTTP/1.1", "GET http://127.0.0.1/api/session HTTP/1.1", "OPTIONS * HTTP/1.1",
    "POST /api/game/start HTTP/1.1", "CONNECT a:1 HTTP/1.1", "GET /%ff%fe HTTP/1.1", "GET",
    "GET /api/characters HTTP/1.1", "DELETE /api/session HTTP/1.1", "HEAD /metrics HTTP/1.1",
    "GET /api/rooms/lobby/messages?before=%ed%a0%80 HTTP/1.1", "GET /api/rooms/%ed%a0%80 HTTP/1.1",
]  # fmt: skip
HEADERS = [
    "Host: 127.0.0.1", "Host: [::1", "Host: a:b:c", "Host:", "Host: \xff", "Origin: http://[x",
    "Origin: null", "Origin: http://127.0.0.1", "Origin: //", "Cookie: hubbub_session=\"\\\xff.x",
    "Cookie: hubbub_session=a.b; =; x", "Cookie: \x80=1", "Content-Length: 2", "Content-Length: -1",
    "Content-Length: 9999999999999999999999", "Transfer-Encoding: chunked", "Expect: 100-continue",
    "Transfer-Encoding: gzip", "Upgrade: websocket", "Connection: Upgrade", "Connection: close",
    "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: x",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: dm-rpc",
    "Sec-WebSocket-Protocol: ,", "Sec-WebSocket-Extensions: permessage-deflate; x=\"",
    "Content-Type: application/json", "X-CSRF-Token: \xff", "Range: bytes=1-0,-",
    "X: " + "y" * 20_000,
    "If-None-Match: \"", "Accept-Encoding: gzip;q=x", "Authorization: Bearer \xff", "Bad",
    " folded",
    "Authorization: Basic Og==", "X-Forwarded-For: x, [::1", "Forwarded: for=\"[::1\"",
]  # fmt: skip
BODIES = ["", "{}", '{"name":1}', '{"name":"\\ud800"}', "2\r\n{}\r\n0\r\n\r\n", "g\r\n", "\0" * 9]


def _request(line: str, headers: list[str], body: str) -> bytes:
    return "\r\n".join([line, *headers, "", body]).encode("latin-1")


requests = st.builds(
    _request,
    st.sampled_from(LINES),
    st.lists(st.sampled_from(HEADERS), max_size=8).map(lambda some: ["Host: 127.0.0.1", *some])
    | st.lists(st.sampled_from(HEADERS), max_size=8),
    st.sampled_from(BODIES),
)
