"""WebSocket frames that a server writes (RFC 6455 section 5.2): whole, unmasked."""

import struct

_TEXT = 0x81
_PING = 0x89


def text_frame(payload: bytes) -> bytes:
    """Put UTF-8 `payload` into one frame."""
    return _frame(_TEXT, payload)


def ping_frame(payload: bytes = b"") -> bytes:
    """Make a ping; `payload` of at most 125 bytes comes back in the pong."""
    return _frame(_PING, payload)


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", opcode, 126, size) + payload
    return struct.pack("!BBQ", opcode, 127, size) + payload
