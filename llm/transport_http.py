"""HTTP/1.1 without I/O, from the side that asks: the head of a request, the parts of a response.

Source: RFC 9112. `httptools` (llhttp, the parser of Node) does the parsing; what it does not
know of is here: which responses have no body, what a closed connection means, and limits.
"""

import re
from collections.abc import Callable

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_SILENT = 100 * 1024  # bytes on end that are no body: heads, trailers, chunk extensions

# RFC 9110, 5.6.2 and 5.5; a line end in a value would begin a header that nobody asked for.
_is_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_value = re.compile(rb"[^\x00\r\n]*").fullmatch
_is_target = re.compile(rb"[\x21-\x7e\x80-\xff]+").fullmatch


def request_head(request: httpx.Request) -> bytes:
    """Return the request line and the headers, with the empty line after them.

    Raises:
        httpx.LocalProtocolError: something in it cannot be sent.

    """
    method, target = request.method.encode("ascii", "replace"), request.url.raw_path
    if not _is_token(method) or not _is_target(target):
        raise httpx.LocalProtocolError("The method or the path holds characters that it cannot.")
    lines = [b"%s %s HTTP/1.1" % (method, target)]
    for name, value in request.headers.raw:
        if not _is_token(name) or not _is_value(value):
            raise httpx.LocalProtocolError(f"The header {name!r} holds characters that it cannot.")
        lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join([*lines, b"", b""])


class Incoming:
    """One response, fed by what comes over the connection.

    Attributes:
        status, reason, version, headers: of the head, once `has_head`.
        parts: bytes of the body that nobody has taken yet.
        whole: nothing more belongs to the response.
        fault: why what came is no HTTP, or empty. Parts that came before it are good.
        reusable: the connection can carry another request, once this is `whole`.

    """

    def __init__(self, method: str) -> None:
        """Build it; `method` is the request's: the answer to a HEAD is a head."""
        self.status = 0
        self.reason = b""
        self.version = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []
        self.has_head = False
        self.whole = False
        self.reusable = False
        self.fault = ""
        # The parser calls these by name. One for each token, hence no method of our own.
        self.on_body: Callable[[bytes], None] = self.parts.append
        self._bodiless = method == "HEAD"
        self._interim = False
        self._until_close = False
        self._silent = 0
        self._parser = HttpResponseParser(self)
        # What llhttp calls leniencies is what h11, the stock transport's parser, takes too.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def feed(self, data: bytes) -> None:
        """Take in what one read brought; none means that the other side closed."""
        if not data:
            self._close()
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(f"What came is not HTTP: {error}.")
        if self.parts:
            self._silent = 0
            if self._bodiless:
                self.parts.clear()
                self.reusable = False
        elif not self.whole:
            self._silent += len(data)
            if self._silent > MAX_SILENT:
                self._fail("The head of the response is too long.")

    def take(self) -> bytes:
        """Return the parts as one, and forget them."""
        parts = self.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return body

    def finish(self) -> None:
        """Let go of the parser, which holds us as we hold it; nothing is fed any more."""
        del self._parser

    def _fail(self, words: str) -> None:
        """Remember the first fault; what comes after the end is only bad for the next request."""
        self.reusable = False
        if not self.whole:
            self.fault = self.fault or words

    def _close(self) -> None:
        if self._until_close:
            self.whole = True
        elif self.has_head:
            self._fail("The server closed connection within its response.")
        else:
            self._fail("The server disconnected without a response.")
        self.reusable = False

    # ── called by the parser ─────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """Stop the parser where another response begins: nobody has asked for one."""
        if self.whole:
            raise HttpParserError("more than one response")

    def on_status(self, reason: bytes) -> None:
        """Take the words after the status, which two reads may have between them."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those after the body (trailers) are nobody's."""
        if not self.has_head:
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Look at the head: whether it is the one, and what comes after it."""
        self.status = self._parser.get_status_code()
        self.version = self._parser.get_http_version().encode()
        if self.version not in (b"1.1", b"1.0") or self.status < 100 or self.status == 101:
            self._fail("The server wants to speak something other than HTTP/1.1.")
        elif self.status < 200:  # such as 100 Continue: the response itself is yet to come
            self._interim = True
            self.headers = []
            self.reason = b""
        else:
            self._begin_body()

    def on_message_complete(self) -> None:
        """Take note of the end."""
        if self._interim:
            self._interim = False
        elif not self.fault:
            self.whole = True

    def _begin_body(self) -> None:
        """Find out how the body ends (RFC 9112, 6.3)."""
        named = {name.lower(): value for name, value in self.headers}
        coding = named.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            self._fail("The server uses a transfer coding that we cannot read.")
            return
        self.has_head = True
        self.reusable = self._parser.should_keep_alive()
        self._until_close = coding is None and b"content-length" not in named
        self.whole = self._bodiless
