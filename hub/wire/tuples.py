"""The native dialect, `dm-rpc`: every message is a JSON array `[method, payload, id]`.

Pure: texts in, calls out; events and answers in, frames out. Contract: docs/protocol.md.
"""

import re

import msgspec

from hub import commands
from hub.errors import BadRequest
from hub.events import NAMES, Event, MessageEnded
from hub.wire.frames import text_frame

SUBPROTOCOL = "dm-rpc"


class Call(msgspec.Struct, frozen=True):
    """What a client asks: a command, and the id its answer must carry, if it wants one."""

    method: str
    command: commands.Command
    id: str | None


class BadCall(BadRequest):
    """What came is not a call; `id` is what the error's message must carry."""

    def __init__(self, sentence: str, code: str, id: str | None = None) -> None:
        super().__init__(sentence, code=code)
        self.id = id


class _Envelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    method: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_payloads = {name: msgspec.json.Decoder(kind) for name, kind in commands.BY_METHOD.items()}
_encode = msgspec.json.Encoder().encode


def decode(text: str | bytes) -> Call:
    """Read one message of a client; bytes are what came in a binary frame.

    Raises:
        BadCall: it is no call, or not a right one.

    """
    if isinstance(text, bytes):
        raise BadCall("Send text frames, not binary ones.", "bad_frame")
    try:
        envelope = _envelope.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadCall(
            'A message must be a JSON array: ["method", {payload}, id or null].', "bad_frame"
        ) from error
    if envelope.id == "":
        raise BadCall("The id of a request must not be empty.", "bad_frame")
    decoder = _payloads.get(envelope.method)
    if decoder is None:
        name = envelope.method[:40]
        raise BadCall(f"There is no method “{name}”.", "unknown_method", envelope.id)
    try:
        return Call(envelope.method, decoder.decode(envelope.payload), envelope.id)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadCall(explain(error), "bad_payload", envelope.id) from error


def answer(method: str, result: object, id: str) -> bytes:
    """Return the frame that answers request `id`."""
    return text_frame(_encode((method, result, id)))


def notify(method: str, payload: object) -> bytes:
    """Return the frame of a notification."""
    return text_frame(_encode((method, payload, None)))


def error(code: str, message: str, id: str | None, retry_after: float | None = None) -> bytes:
    """Return the frame that says what is wrong with request `id`, or with what was sent."""
    what: dict[str, object] = {"code": code, "message": message}
    if retry_after is not None:
        what["retry_after"] = round(retry_after, 1)
    return text_frame(_encode(("error", what, id)))


class Tuples:
    """The dialect's events; see `hub.wire.dialect.Dialect`."""

    def event(self, room: str, offset: int | None, inbox: bool, event: Event) -> bytes:
        """Encode `[name, {room, offset, inbox?, …}, null]`."""
        # The head is put before the event's own members by hand: encoding them into a
        # common object first would copy each event once more.
        head = b'["%s",{"room":%s' % (NAMES[type(event)].encode(), _encode(room))
        if offset is not None:
            head += b',"offset":%d' % offset
        if inbox:
            head += b',"inbox":true'
        if isinstance(event, MessageEnded):
            event = msgspec.structs.replace(event, whole=None)  # who is here has heard it come
        rest = _encode(event)[1:]
        return text_frame(head + (b"," if len(rest) > 1 else b"") + rest + b",null]")


TUPLES = Tuples()

_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "nothing",
}


def explain(error: Exception) -> str:
    """Put what msgspec found wrong with a payload into a person's words."""
    text = str(error)
    where = re.search(r"at `\$\.?([^`]*)`", text)
    name = f"“{where[1]}”" if where and where[1] else "The payload"
    if found := re.search(r"missing required field `(\w+)`", text):
        return f"“{found[1]}” is missing."
    if found := re.search(r"unknown field `(.{1,40}?)`", text):
        return f"“{found[1]}” is not known here."
    if found := re.search(r"of length <= (\d+)", text):
        return f"{name} is too long: {found[1]} at most."
    if "of length >= " in text:
        return f"{name} must not be empty."
    if found := re.search(r"Expected `([\w| ]+)`, got `(\w+)`", text):
        wanted = " or ".join(_KINDS.get(kind.strip(), kind) for kind in found[1].split("|"))
        return f"{name} must be {wanted}, not {_KINDS.get(found[2], found[2])}."
    if "Invalid enum value" in text:
        return f"{name} is none of the values that are known."
    if "Expected" in text:
        return f"{name} is out of range."
    return "The payload is not right."
