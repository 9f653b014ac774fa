"""One request and its response: h11 knows the protocol, this gives it bytes and deadlines."""

import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Final, TypeAlias
from urllib.parse import unquote

import h11
import trio

from hub.web.messages import Answer, Headers, Peer, Refused, Request
from hub.web.transport import PeerGone, Transport

MaxBody: TypeAlias = Callable[[Request], int]

# Sentences for what h11 refuses, by the status that it suggests.
_REFUSALS: Final = {
    400: ("bad_request", "This is not a valid HTTP request."),
    431: ("headers_too_large", "The headers of this request are too large."),
    501: ("not_implemented", "This way of sending a request is not supported."),
    505: ("version_not_supported", "Only HTTP/1.1 and HTTP/1.0 are spoken here."),
}


class Exchange:
    """One request and its response, made afresh for each request of a connection.

    Reading and writing may be done by two tasks. `rest` is what came before: the bytes
    after the end of the last request.
    """

    def __init__(
        self, transport: Transport, headers: Headers, max_body: MaxBody, rest: bytes = b""
    ) -> None:
        self._transport: Final = transport
        self._limits: Final = transport.limits
        self.headers = headers  # until the response begins, they may be others
        self._max_body: Final = max_body
        self._http: Final = h11.Connection(
            h11.SERVER, max_incomplete_event_size=transport.limits.head_bytes
        )
        self._response: h11.Response | None = None
        self._to_head = False
        self._bodyless = False
        self._declared: int | None = 0
        self._body_bytes = 0
        self._body_limit = 0
        self.received = b""  # the request's bytes as they came, for whoever takes over
        self.body_read: Final = trio.Event()
        self.started = False  # some of the response may have reached the peer
        if rest:
            self._feed_head(rest)
        if transport.ended:
            self._http.receive_data(b"")

    @property
    def complete(self) -> bool:
        """Whether the whole response has been sent."""
        return self._http.our_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    # Reading

    async def read_head(self, peer: Peer, idle_seconds: float) -> Request | None:
        """Return the request, or None where the peer has nothing (more) to ask.

        Args:
            peer: becomes part of the request.
            idle_seconds: how long to wait for the first byte; after that, `head_seconds`.

        Raises:
            Refused: it is not HTTP, too big or too slow.
            PeerGone: the connection broke.

        """
        event = await self._head_event(idle_seconds)
        if not isinstance(event, h11.Request):
            return None
        self._to_head = event.method == b"HEAD"
        request = _request(event, peer)
        self._check_size(request)
        self._check_framing(request)
        if self._declared == 0:
            self._http.next_event()  # the end of the message follows at once
            self.body_read.set()
        return request

    async def _head_event(self, idle_seconds: float) -> object:
        limit = self._limits.head_seconds if self.received else idle_seconds
        with trio.move_on_after(limit) as scope:
            while (event := self._next_event()) is h11.NEED_DATA:
                begun = bool(self.received)
                self._feed_head(await self._transport.read())
                if self.received and not begun:
                    scope.deadline = trio.current_time() + self._limits.head_seconds
            return event
        if self.received:
            raise Refused.because(408, "too_slow", "The request took too long to arrive.")
        return None

    def _feed_head(self, data: bytes) -> None:
        if data and not self.received:
            # Empty lines before a request are to be ignored (RFC 9112, 2.2). They don't count
            # as its beginning, so a stream of them lasts no longer than silence.
            data = data.lstrip(b"\r\n")
            if not data:
                return
        self.received += data
        self._http.receive_data(data)

    def _next_event(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            if self._transport.ended:  # half a request: nobody is left to tell
                raise PeerGone from error
            status = error.error_status_hint
            if status == 431 and b"\n" not in self.received:
                raise _target_too_long() from error
            code, sentence = _REFUSALS.get(status, _REFUSALS[400])
            raise Refused.because(status if status in _REFUSALS else 400, code, sentence) from error

    def _check_size(self, request: Request) -> None:
        """Hold heads that came in one piece to the same limits as those that came in several."""
        if len(request.target) > self._limits.target_bytes:
            raise _target_too_long()
        if len(self.received) > self._limits.head_bytes:
            rest = len(self._http.trailing_data[0])
            if len(self.received) - rest > self._limits.head_bytes:
                raise Refused.because(431, *_REFUSALS[431])

    def _check_framing(self, request: Request) -> None:
        """Refuse what two servers in a row could read as two different requests."""
        if request.version not in ("1.0", "1.1"):  # h11 lets any pair of digits pass
            raise Refused.because(505, *_REFUSALS[505])
        length = request.header(b"content-length")
        if request.header(b"transfer-encoding") is not None:
            # RFC 9112, 6.1: both headers, or chunks in HTTP/1.0, look like smuggling.
            if length is not None or request.version != "1.1":
                raise Refused.because(400, *_REFUSALS[400])
            self._declared = None
        else:
            self._declared = int(length or 0)
        self._body_limit = self._max_body(request)
        if self._declared is not None and self._declared > self._body_limit:
            raise self._too_large()

    async def read_body(self) -> bytes:
        """Return the next piece of the body, ``b""`` at its end, and set `body_read` there.

        Raises:
            Refused: it is malformed, too slow, or larger than `max_body` allows.
            PeerGone: the connection broke.

        """
        if self._http.they_are_waiting_for_100_continue:
            await self._transport.write(
                self._http.send(h11.InformationalResponse(status_code=100, headers=[]))
            )
        data = await self._next_piece()
        if self._body_bytes > self._body_limit:
            raise self._too_large()
        return data

    async def _next_piece(self) -> bytes:
        waited = False
        while (event := self._next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._read_in_time())
            waited = True
        if not waited:  # a body of tiny chunks must not keep everybody else waiting
            await trio.lowlevel.checkpoint()
        if isinstance(event, h11.Data):
            self._body_bytes += len(event.data)
            return bytes(event.data)
        self.body_read.set()
        return b""

    async def _read_in_time(self) -> bytes:
        with trio.move_on_after(self._limits.body_seconds):
            return await self._transport.read()
        raise Refused.because(408, "too_slow", "The request's body took too long to arrive.")

    def _too_large(self) -> Refused:
        return Refused.because(
            413, "too_large", f"The body is larger than {self._body_limit:,} bytes."
        )

    async def peer_gone(self) -> None:
        """Return when the peer has gone. Only for use once the body was read.

        A peer may send its next request meanwhile. It is kept, but no more than a head's
        worth: from then on the peer's end cannot be seen until we read again.
        """
        kept = 0
        while kept <= self._limits.head_bytes:
            try:
                data = b"" if self._transport.ended else await self._transport.read()
            except PeerGone:
                return
            self._http.receive_data(data)
            if not data:
                await trio.sleep(self._limits.half_closed_seconds)
                return
            kept += len(data)
        await trio.sleep_forever()  # ends with the response, whose writes have deadlines

    # Writing

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Say how the response begins. It is sent together with the first of its body.

        Raises:
            RuntimeError: it has begun already.
            h11.LocalProtocolError: status or headers are not possible in HTTP.

        """
        if self._response is not None or self.started:
            raise RuntimeError("the response has begun already")
        full = [(name.lower(), value) for name, value in headers]
        known = {name for name, _ in full}
        full += [header for header in self.headers if header[0] not in known]
        if b"date" not in known:
            full.append((b"date", _date()))
        if b"connection" not in known and self._closes_after():
            full.append((b"connection", b"close"))
        self._response = h11.Response(status_code=status, headers=full)
        self._bodyless = self._to_head or status in (204, 304)

    def _closes_after(self) -> bool:
        """Whether the request's unread end is such that draining it makes no sense."""
        if self._http.their_state is h11.ERROR:
            return True
        if self.body_read.is_set():
            return False
        if self._http.they_are_waiting_for_100_continue:
            return True  # a body that may come or not: nobody can tell what follows
        left = 0 if self._declared is None else self._declared - self._body_bytes
        return left > self._limits.drain_bytes

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send the next of the response's body; `more` is false for the last.

        Raises:
            RuntimeError: the response has not begun, or is over.
            h11.LocalProtocolError: more or less than its Content-Length.
            PeerGone: the connection broke, or is too slow.

        """
        if self.complete or (self._response is None and not self.started):
            raise RuntimeError("the response has not begun, or is over")
        data = b""
        if self._response is not None:
            data = self._http.send(self._response)
            self._response = None
        if body and not self._bodyless:
            data += self._http.send(h11.Data(data=body))
        if not more:
            data += self._http.send(h11.EndOfMessage())
        self.started = True
        await self._transport.write(data)

    async def answer(self, answer: Answer) -> None:
        """Send a whole response."""
        length = () if answer.status in (204, 304) else ((b"content-length", _length(answer)),)
        self.start(answer.status, (*answer.headers, *length))
        await self.write(answer.body, more=False)

    async def refuse(self, answer: Answer) -> None:
        """Send an error and close, if not a part of another response was sent already."""
        if not self.started and self._http.our_state is not h11.ERROR:
            self._response = None
            await self.answer(Answer(answer.status, _closing(answer.headers), answer.body))

    async def finish(self) -> bytes | None:
        """Return the bytes after this request, or None if the connection has to be closed."""
        if self._http.our_state is not h11.DONE or not await self._drain():
            return None
        if self._http.their_state is not h11.DONE:
            return None
        return self._http.trailing_data[0]

    async def _drain(self) -> bool:
        """Throw away what the app left of the body; False if that is not worth it."""
        left = self._limits.drain_bytes
        with trio.move_on_after(self._limits.drain_seconds):
            while not self.body_read.is_set():
                try:
                    left -= len(await self._next_piece())
                except (Refused, PeerGone):
                    return False
                if left < 0:
                    return False
        return self.body_read.is_set()


def _request(event: h11.Request, peer: Peer) -> Request:
    target = bytes(event.target)
    headers = tuple((bytes(name), bytes(value)) for name, value in event.headers)
    local = target
    if not target.startswith(b"/"):
        local, headers = _other_form(event.method, target, headers)
    raw_path, _, query = local.partition(b"?")
    return Request(
        method=event.method.decode("ascii"),
        target=target,
        path=unquote(raw_path.decode("ascii")),
        raw_path=raw_path,
        query=query,
        version=event.http_version.decode("ascii"),
        headers=headers,
        peer=peer,
    )


def _other_form(method: bytes, target: bytes, headers: Headers) -> tuple[bytes, Headers]:
    """Return path and headers of a target that is no path (RFC 9112, 3.2)."""
    if target == b"*" and method == b"OPTIONS":
        return target, headers
    scheme, mark, rest = target.partition(b"://")
    if method == b"CONNECT" or not mark or scheme.lower() not in (b"http", b"https"):
        raise Refused.because(400, *_REFUSALS[400])
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    local = rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]
    # The authority in the target wins over Host (RFC 9112, 3.2.2); one check serves both.
    others = tuple(header for header in headers if header[0] != b"host")
    return local, ((b"host", rest[:end]), *others)


def _target_too_long() -> Refused:
    return Refused.because(414, "address_too_long", "The address of this request is too long.")


def _length(answer: Answer) -> bytes:
    return b"%d" % len(answer.body)


def _closing(headers: Headers) -> Headers:
    return (*headers, (b"connection", b"close"))


_now: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """Return the value of `Date`, made once a second."""
    global _now  # noqa: PLW0603  a cache of one
    second = int(time.time())
    if _now[0] != second:
        _now = (second, formatdate(second, usegmt=True).encode("ascii"))
    return _now[1]
