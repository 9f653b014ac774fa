"""Splits a stream of server-sent events, the form in which all clouds stream their replies.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from attrs import define, field

MAX_EVENT = 256 * 1024  # bytes; an event holds a token or two, a megabyte of it is an attack
BOM = b"\xef\xbb\xbf"
DATA_FIELDS = (b"data", b"error")  # early llama.cpp servers wrote errors as `error: {…}`


class EventTooLargeError(ValueError):
    """What came is longer than any event may be."""


@define
class Events:
    """Takes bytes as they come and gives the data of each event that is whole.

    Only the data: the names of events are repeated inside it by those who use them. Since
    only whole events are given, a character that is split between two reads needs no care.
    """

    _rest: bytes = b""
    _after_cr: bool = False
    _begun: bool = False
    count: int = field(default=0, init=False)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that end within `chunk`.

        Raises:
            EventTooLargeError: the event at the end is longer than `MAX_EVENT`.

        """
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_plain_ends(chunk)
        # The common case, one whole event of one line, is told apart without taking it to pieces.
        if not self._rest and self.count and chunk.startswith(b"data:"):
            data = chunk[5:-2]
            if chunk.endswith(b"\n\n") and b"\n" not in data:
                self.count += 1
                return [data]
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        if len(self._rest) > MAX_EVENT:
            raise EventTooLargeError
        return self._data_of(blocks) if blocks else []

    def end(self) -> list[bytes]:
        """Return what the stream's end left open; some servers forget the last empty line."""
        block, self._rest = self._rest, b""
        return self._data_of([block]) if block.strip() else []

    def _with_plain_ends(self, chunk: bytes) -> bytes:
        r"""Make each end of line a `\n`, also a `\r\n` that two reads have between them."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _data_of(self, blocks: list[bytes]) -> list[bytes]:
        if not self._begun:
            self._begun = True
            blocks[0] = blocks[0].removeprefix(BOM)
        found = []
        for block in blocks:
            if block.startswith(b"data:") and b"\n" not in block:
                found.append(block[5:])
            elif (data := _data(block)) is not None:
                found.append(data)
        self.count += len(found)
        return found


def _data(block: bytes) -> bytes | None:
    """Join the data lines of an event; None for one that has none, such as a comment."""
    lines = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name in DATA_FIELDS:
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None
