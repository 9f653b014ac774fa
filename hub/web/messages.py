"""What the HTTP front says and hears: requests, answers, refusals, and the limits on them."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import TypeAlias

import msgspec
from attrs import field, frozen

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, in the order in which they came; a name may come more than once."""

KIB = 1024
MIB = 1024 * KIB


@frozen
class HttpLimits:
    """How much, and how long, one HTTP connection may take. Bytes and seconds."""

    # trio-websocket parses a handshake again, and its h11 gives up at this size: what passes
    # here passes there. Browsers keep at most 4 KiB for a cookie, so there is room for some.
    head_bytes: int = 16 * KIB
    # Our longest address is a search of a room; half of the head leaves the rest to cookies.
    target_bytes: int = 8 * KIB
    # A head is one packet or two; ten seconds is a bad phone line, not a person thinking.
    head_seconds: float = 10.0
    # Longer than the minute for which nginx and browsers keep a connection: they close first,
    # so that no request crosses our closing on its way.
    idle_seconds: float = 75.0
    # The longest silence in the middle of a body; how long all of it takes is the sender's line.
    body_seconds: float = 30.0
    # What is left of a body that the app did not want: reading this much is cheaper for both
    # sides than a new connection, reading more is not.
    drain_bytes: int = 256 * KIB
    drain_seconds: float = 5.0
    # One write of at most `write_bytes` has this long: who reads slower than 2 KiB/s is cut off.
    write_bytes: int = 64 * KIB
    write_seconds: float = 30.0
    # After the last answer: the time a peer has to stop sending and read it (RFC 9112, 9.6).
    linger_seconds: float = 10.0
    # A peer that ended its side may have gone, or only be done with sending (`nc -N`). So long
    # the answer is still made; then the peer counts as gone.
    half_closed_seconds: float = 1.0
    # Deciding on an upgrade looks into the store; more than this means that the store is stuck.
    upgrade_seconds: float = 30.0


@frozen
class Peer:
    """Who is at the other end.

    Attributes:
        client: None where it had gone before we could ask; port 0 where a proxy told of it.
        scheme: what the client used, ``"http"`` or ``"https"``.
        proxy: the address of the trusted proxy through which it came; None: it came itself.

    """

    client: tuple[str, int] | None = None
    server: tuple[str, int] | None = None
    scheme: str = "http"
    proxy: str | None = None


@frozen
class Request:
    """The head of a request.

    Attributes:
        target: as it came, for instance ``b"/a%20b?c=d"``.
        path: decoded, without the query. `raw_path` and `query` are parts of `target`.
        headers: names in lower case.
        version: ``"1.0"`` or ``"1.1"``.

    """

    method: str
    target: bytes
    path: str
    raw_path: bytes
    query: bytes
    version: str
    headers: Headers
    peer: Peer

    def header(self, name: bytes) -> bytes | None:
        """Return the header's value, several joined by commas (RFC 9110, 5.3), or None."""
        values = [value for known, value in self.headers if known == name]
        return b", ".join(values) if values else None

    def tokens(self, name: bytes) -> list[bytes]:
        """Return the members of a comma-separated header, in lower case."""
        value = self.header(name) or b""
        return [token.strip().lower() for token in value.split(b",")]

    @property
    def is_websocket(self) -> bool:
        """Whether this opens a WebSocket (RFC 6455, 4.1); a handshake has no body."""
        return (
            self.method == "GET"
            and self.version == "1.1"
            and b"websocket" in self.tokens(b"upgrade")
            and b"upgrade" in self.tokens(b"connection")
            and self.header(b"transfer-encoding") is None
            and not (self.header(b"content-length") or b"0").strip(b"0")
        )


@frozen
class Answer:
    """A whole response. Framing headers, `Date` and the site's own are added when it is sent."""

    status: int
    headers: Headers = ()
    body: bytes = field(default=b"", repr=False)

    @classmethod
    def error(
        cls, status: int, code: str, sentence: str, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> "Answer":
        """Make an error as the API writes them: ``{"error": sentence, "code": code}``."""
        body = msgspec.json.encode({"error": sentence, "code": code})
        return cls(status, (*headers, (b"content-type", b"application/json")), body)

    def to_bytes(self, more: Headers = ()) -> bytes:
        """Return it as it is written to a peer who was not listened to, before closing."""
        status = HTTPStatus(self.status)
        framing = ((b"connection", b"close"), (b"content-length", b"%d" % len(self.body)))
        lines = [b"%b: %b" % header for header in (*self.headers, *more, *framing)]
        first = f"HTTP/1.1 {status.value} {status.phrase}".encode()
        return b"\r\n".join([first, *lines, b"", self.body])


class Refused(Exception):
    """The request gets `answer`, and after it the connection is closed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {HTTPStatus(answer.status).phrase}")
        self.answer = answer

    @classmethod
    def because(cls, status: int, code: str, sentence: str) -> "Refused":
        """Refuse with an error in the API's form."""
        return cls(Answer.error(status, code, sentence))
