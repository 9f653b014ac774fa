"""PNG files as far as character cards need them: their chunks, and the texts in these.

Source: PNG specification, third edition (W3C), 5 (datastream structure) and 11.3.3 (textual
information). Pixels are passed on as they are, never decoded; APNG is passed on likewise.
What a file says of itself is not believed: lengths, checksums and the size of what is
unpacked are all checked against limits before anything is used.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence

from attrs import frozen

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_CHUNKS = 20_000
"""A picture is split into chunks of some 8 KiB by common tools; 4 MiB make 500 of them."""

MAX_KEYWORD = 79
"""Bytes, by the specification (11.3.3.1)."""


class PngError(Exception):
    """Not a PNG file, or a broken one; the error's text is for people."""


@frozen
class Chunk:
    """A chunk: its type of four letters, and its data."""

    type: bytes
    data: bytes


@frozen
class Text:
    """A keyword and its text, as raw bytes (Latin-1 in tEXt and zTXt, UTF-8 in iTXt)."""

    keyword: str
    value: bytes


def read_chunks(data: bytes) -> list[Chunk]:
    """Split a PNG file into its chunks, IHDR to IEND; what comes after IEND is dropped.

    Raises:
        PngError: not a PNG, cut short, a length or a checksum that isn't true.

    """
    if not data.startswith(SIGNATURE):
        raise PngError("This is not a PNG picture.")
    chunks: list[Chunk] = []
    place = len(SIGNATURE)
    while not chunks or chunks[-1].type != b"IEND":
        chunk = _read_chunk(data, place)
        place += 12 + len(chunk.data)
        chunks.append(chunk)
        if len(chunks) > MAX_CHUNKS:
            raise PngError("This PNG picture has too many parts.")
    if chunks[0].type != b"IHDR" or len(chunks[0].data) != 13:
        raise PngError("This PNG picture does not begin as one.")
    return chunks


def write_chunks(chunks: Iterable[Chunk]) -> bytes:
    """Make a PNG file of chunks."""
    return SIGNATURE + b"".join(map(_write_chunk, chunks))


def text_of(chunk: Chunk, *, limit: int) -> Text | None:
    """Read a tEXt, zTXt or iTXt chunk; None for any other and for one without a keyword.

    Args:
        chunk: any chunk.
        limit: bytes that its text may have, unpacked.

    Raises:
        PngError: the text is longer, or packed in a way that can't be unpacked.

    """
    if chunk.type not in (b"tEXt", b"zTXt", b"iTXt"):
        return None
    keyword, nul, rest = chunk.data.partition(b"\0")
    if not nul or not 0 < len(keyword) <= MAX_KEYWORD:
        return None
    value = _value(chunk.type, rest, limit)
    if len(value) > limit:
        raise PngError(_too_long(limit))
    return Text(keyword.decode("latin-1"), value)


def text_chunk(keyword: str, value: bytes) -> Chunk:
    """Make a tEXt chunk; `value` is Latin-1 and holds no NUL (the specification, 11.3.3.2)."""
    return Chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + value)


def plain_picture(color: tuple[int, int, int], size: int = 256) -> Sequence[Chunk]:
    """Make a square of one color: 8 bits a sample, red, green, blue."""
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    row = b"\0" + bytes(color) * size  # a row begins with its filter; 0 is none
    pixels = zlib.compress(row * size, 9)
    return [Chunk(b"IHDR", header), Chunk(b"IDAT", pixels), Chunk(b"IEND", b"")]


def _read_chunk(data: bytes, place: int) -> Chunk:
    head = data[place : place + 8]
    if len(head) < 8:
        raise PngError("This PNG picture is cut short.")
    length, kind = struct.unpack(">I4s", head)
    end = place + 8 + length
    if length > 0x7FFF_FFFF or end + 4 > len(data):
        raise PngError("This PNG picture is cut short, or a length in it isn't true.")
    if not kind.isalpha():
        raise PngError("This PNG picture is broken: a part of it has no proper name.")
    body = data[place + 8 : end]
    if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end : end + 4], "big"):
        raise PngError("This PNG picture is broken: a checksum in it is wrong.")
    return Chunk(kind, body)


def _write_chunk(chunk: Chunk) -> bytes:
    sum_ = zlib.crc32(chunk.data, zlib.crc32(chunk.type))
    return struct.pack(">I4s", len(chunk.data), chunk.type) + chunk.data + struct.pack(">I", sum_)


def _value(kind: bytes, rest: bytes, limit: int) -> bytes:
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _unpacked(rest[1:], limit) if rest[:1] == b"\0" else b""
    flag, method, rest = rest[:1], rest[1:2], rest[2:]
    _language, _nul, rest = rest.partition(b"\0")
    _translated, _nul, value = rest.partition(b"\0")
    if flag == b"\1" and method == b"\0":
        return _unpacked(value, limit)
    return value if flag == b"\0" else b""


def _unpacked(packed: bytes, limit: int) -> bytes:
    """Unpack no more than the limit: a few KiB can hold gigabytes."""
    unpacker = zlib.decompressobj()
    try:
        value = unpacker.decompress(packed, limit + 1)
    except zlib.error:
        raise PngError("A packed text in this PNG picture is broken.") from None
    if len(value) > limit:
        raise PngError(_too_long(limit))
    if not unpacker.eof:
        raise PngError("A packed text in this PNG picture is cut short.")
    return value


def _too_long(limit: int) -> str:
    return f"A text in this PNG picture is longer than {limit // 1024} KiB."
