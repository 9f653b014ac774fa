"""One model's address: asks over HTTP, reads the streamed reply, bounds every wait.

What differs between the clouds is how a question is put (`Ask`) and how an event is read
(`Reading`). All else is the same for all of them and is here: connections, deadlines,
errors, and the end of a reply.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from ipaddress import ip_address
from math import inf
from urllib.request import getproxies

import httpx
import msgspec
import trio
from attrs import define, field, frozen

from llm import transport as carrying
from llm.faults import (
    Report,
    ReportedError,
    fault_of,
    model_error,
    report_of_body,
    retry_after,
)
from llm.provider import (
    Fault,
    Finish,
    Item,
    ModelError,
    Resting,
    SetupError,
    Sink,
    Timeouts,
    Usage,
)
from llm.ratelimits import reset_after
from llm.sse import Events, EventTooLargeError
from llm.stops import Stops
from llm.transport import Kind, Transport, body_of

MAX_BODY = 64 * 1024  # bytes of an answer that is not a stream; errors are a few hundred
BODY_WAIT = 5.0  # s for such a body, which is sent in one go
AFTERMATH = 5.0  # s for counts and the closing event, once the model said why it ended
SLACK = 0.5  # s by which a silence may last longer, for the sake of what a token costs
DRAIN = 0.2  # s for the last bytes of a whole reply, so that its connection can be used again
MAX_REMEMBERED = 256  # models whose refusals are kept; names of models come with requests
KEEP_IDLE = 20  # connections kept for the next call

Body = dict[str, object]

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# The words by which a 400 or 422 says that it will not have a parameter at all, against one
# that complains about its value.
REFUSALS = (
    "unsupported",
    "not supported",
    "does not support",
    "not permitted",
    "unknown",
    "unrecognized",
    "unexpected",
    "extra",
    "deprecated",
)


@define
class Reading:
    """One reply as it is read; each protocol has its own `feed`.

    Attributes:
        model: what answers, as asked for and then as it names itself.
        input_tokens, output_tokens: as far as the model has told.
        finish: why the reply ended, once the model has said so.
        ended: nothing more will come.

    """

    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish: Finish | None = None
    ended: bool = False

    def feed(self, event: bytes) -> str | None:
        """Take in an event; return its text, empty where the model only thinks, else None.

        Raises:
            ReportedError: the event is an error.
            One of `DECODE_ERRORS`: it is not of this protocol.

        """
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        """The reply is whole, whatever happens to the connection from now on."""
        return self.ended or self.finish is not None


@frozen
class Ask:
    """How a provider wants a question put.

    Attributes:
        path: below the base URL.
        body: makes the JSON to be sent; it is given the names of the parameters that this
            model has refused before.
        optional: the parameters that the question can do without, or put otherwise.
        reading: reads the reply.
        stops: texts that end the reply. They are watched for here as well, since servers
            take few of them, or none, or ignore them.

    """

    path: str
    body: Callable[[frozenset[str]], Body]
    reading: Reading
    optional: frozenset[str] = frozenset()
    stops: tuple[str, ...] = ()


class Upstream:
    """See the module's own text.

    Proxies and certificates are taken from the environment, as people behind a company's
    proxy need it, but not for loopback: what runs on this machine is never behind a proxy.

    Connections are kept for the next call only under TLS, where a new one costs three round
    trips. A new plain one costs next to nothing, and llama.cpp closes kept ones without
    saying so after a stream (seen: the next request on it is lost).
    """

    def __init__(
        self,
        base_url: str,
        *,
        who: str,
        headers: Mapping[str, str] | None = None,
        secret: str = "",
        timeouts: Timeouts | None = None,
        keep: bool | None = None,
        transport: Kind = "fast",
    ) -> None:
        """Build it; nothing is sent yet.

        Args:
            base_url: http or https.
            who: what people call the other side; it begins sentences.
            headers: of each request.
            secret: the key; it is taken out of whatever goes to the log.
            timeouts: how long to wait.
            keep: keep connections; None for what the text above says.
            transport: what carries the requests: our own, or httpx's.

        Raises:
            SetupError: `base_url` is none.

        """
        url = _checked(base_url)
        self.timeouts = timeouts or Timeouts()
        self._who = who
        self._secret = secret
        self._refused: dict[str, frozenset[str]] = {}
        self._keep = url.scheme == "https" if keep is None else keep
        self._client = _client(
            url, headers or {}, self.timeouts.connect, keep=self._keep, transport=transport
        )

    @asynccontextmanager
    async def stream(self, ask: Ask) -> AsyncIterator[AsyncIterator[Item]]:
        """Ask and give the reply, as `Provider.stream` has it.

        Raises:
            ModelError: no reply, or no more of it.

        """
        start = trio.current_time()
        response = await self._open(ask, start + self.timeouts.first)
        chunks = _chunks(response)
        rest = reset_after(response.headers)
        reply = _Reply(self, ask.reading, Stops(ask.stops), chunks, start, rest)
        try:
            with reply.patience:
                async with aclosing(reply):
                    yield reply
            if reply.patience.cancelled_caught:
                raise self.fault("stalled", "no text for too long")
            # Only a reply that was read to its end is worth waiting for its last bytes.
            if reply.whole and self._keep:
                await _drain(chunks)
        finally:
            await _close(response, chunks)

    async def call(self, method: str, path: str, body: Body | None = None) -> bytes:
        """Ask for something small, within the time for a first text; return the body.

        Raises:
            ModelError: it was not given.

        """
        response = await self._send(method, path, body, trio.current_time() + self.timeouts.first)
        answer = await _body(response)
        if not response.is_success:
            raise self._error(response, answer)
        return answer

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        await self._client.aclose()

    def fault(self, fault: Fault, detail: str = "") -> ModelError:
        """Make the error for what is wrong with the connection or with what came over it."""
        return model_error(self._who, fault, detail=self._scrubbed(detail))

    def reported(self, report: Report) -> ModelError:
        """Make the error for one that came as an event."""
        return self.fault(fault_of(report), report.words)

    async def _open(self, ask: Ask, deadline: float) -> httpx.Response:
        """Ask; where a parameter is refused, ask again without it and remember that."""
        model = ask.reading.model
        refused = self._refused.get(model, frozenset())
        while True:
            response = await self._send("POST", ask.path, ask.body(refused), deadline)
            if response.is_success:
                if refused and len(self._refused) < MAX_REMEMBERED:
                    self._refused[model] = refused
                return response
            answer = await _body(response)
            name = _refused_parameter(response, answer, ask.optional - refused)
            if name is None:
                raise self._error(response, answer)
            refused |= {name}

    async def _send(
        self, method: str, path: str, body: Body | None, deadline: float
    ) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        request = self._client.build_request(method, path, content=content)
        try:
            with trio.fail_at(deadline):
                return await self._client.send(request, stream=True)
        except trio.TooSlowError:
            raise self.fault("stalled", "no answer") from None
        except httpx.HTTPError as error:
            fault: Fault = "garbled" if _is_garbage(error) else "unreachable"
            raise self.fault(fault, repr(error)) from error

    def _error(self, response: httpx.Response, answer: bytes) -> ModelError:
        status = response.status_code
        text = answer.decode(errors="replace")
        return model_error(
            self._who,
            fault_of(report_of_body(answer), status),
            status=status,
            retry_after=retry_after(response.headers),
            detail=self._scrubbed(f"{status} {text}"),
        )

    def _scrubbed(self, text: str) -> str:
        return text.replace(self._secret, "(key)") if self._secret else text


@define
class _Reply:
    """One reply on its way. Times are of trio's clock.

    `patience` is around all that happens while the reply comes, its reader's own work too,
    and its deadline is moved on: a scope for each wait costs as much as all else that we do
    for a token. So a reader that takes nothing for as long as a model may be silent is cut
    off like one.
    """

    upstream: Upstream
    reading: Reading
    stops: Stops
    chunks: AsyncIterator[bytes]
    start: float
    rest: float | None = None
    whole: bool = False
    patience: trio.CancelScope = field(factory=trio.CancelScope)
    _now: Callable[[], float] = field(factory=lambda: trio.lowlevel.current_clock().current_time)
    _fresh_until: float = -inf
    _alive: bool = False
    _until: float = inf
    _first: float | None = None
    _items: AsyncGenerator[Item, None] = field(init=False)
    _events: Events = field(factory=Events)
    _error: ModelError | None = None

    def __attrs_post_init__(self) -> None:
        self.patience.deadline = self.start + self.upstream.timeouts.first
        self._items = self._all()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    def __anext__(self) -> Awaitable[Item]:
        return anext(self._items)

    async def aclose(self) -> None:
        await self._items.aclose()

    async def pour(self, sink: Sink) -> None:
        """See `llm.provider.pour`; short where the connection has such a way."""

        def take(chunk: bytes) -> bool:
            text = self.stops.feed(self._text(chunk))
            if self._alive:
                self._alive = False
                self._extend()
            if text:
                self._mark_first()
            goes_on = not text or sink(text)
            return goes_on and not (self.stops.hit or self.reading.complete or self._error)

        if isinstance(self.chunks, carrying.Body) and not self.reading.complete:
            try:
                await self.chunks.pour(take)
            except httpx.HTTPError as error:
                if not self.reading.complete:
                    raise self._broken(error) from error

    async def _all(self) -> AsyncGenerator[Item, None]:
        """Give the reply; the texts of all events that one read brought are one item."""
        if self.rest:
            yield Resting(self.rest)
        more = True
        while more and not self.stops.hit and not self.reading.ended:
            chunk = await self._chunk()
            more = chunk != b""
            if text := self.stops.feed(self._text(chunk)):
                self._mark_first()
                self._extend()  # for the reader's work; in `_chunk` again, for the model's
                yield text
            if self._error is not None and not self.reading.complete:
                raise self._error
            more = more and self._error is None
        if not (self.reading.complete or self.stops.hit):
            raise self._cut_short()
        self.patience.deadline = inf
        if rest := self.stops.end():
            self._mark_first()
            yield rest
        self.whole = self.reading.ended
        yield self._usage()

    def _mark_first(self) -> None:
        if self._first is None:
            self._first = trio.current_time()

    async def _chunk(self) -> bytes:
        """Wait for bytes; none mean the stream's end, or that no more is needed."""
        try:
            if self.reading.complete:
                return await self._last_chunk()
            if self._alive:
                self._alive = False
                self._extend()
            return await anext(self.chunks)
        except StopAsyncIteration:
            return b""
        except httpx.HTTPError as error:
            if self.reading.complete:
                return b""
            raise self._broken(error) from error

    def _extend(self) -> None:
        """Move the deadline on, not for each token but once in `SLACK`."""
        now = self._now()
        if now > self._fresh_until:
            self._fresh_until = now + SLACK
            self.patience.deadline = self._fresh_until + self.upstream.timeouts.between

    async def _last_chunk(self) -> bytes:
        """Wait for counts and the closing event, but not for long: the text is all there."""
        self.patience.deadline = inf
        if self._alive or self._until == inf:
            self._alive = False
            self._until = trio.current_time() + AFTERMATH
        with trio.move_on_at(self._until):
            return await anext(self.chunks)
        return b""

    def _text(self, chunk: bytes) -> str:
        """Read the events that `chunk` ends. An error waits until the text before it is out."""
        texts = ""
        reading = self.reading
        try:
            for event in self._events.feed(chunk) if chunk else self._events.end():
                text = reading.feed(event)
                if text is not None:
                    self._alive = True
                    texts += text
                if reading.ended:
                    break
        except ReportedError as error:
            self._error = self.upstream.reported(error.report)
        except (EventTooLargeError, *DECODE_ERRORS) as error:
            if chunk:  # at the end of the stream it is half an event: the stream was cut
                self._error = self.upstream.fault("garbled", repr(error))
        return texts

    def _broken(self, error: httpx.HTTPError) -> ModelError:
        if _is_garbage(error):
            return self.upstream.fault("garbled", repr(error))
        fault: Fault = "unreachable" if self._first is None else "cut"
        return self.upstream.fault(fault, repr(error))

    def _cut_short(self) -> ModelError:
        """Say what it means that the stream ended before the reply did."""
        if self._first is not None:
            return self.upstream.fault("cut", "the stream ended")
        if self._events.count:
            return self.upstream.fault("unreachable", "the stream ended before any text")
        return self.upstream.fault("garbled", "no events came")

    def _usage(self) -> Usage:
        reading = self.reading
        finish: Finish = "stop" if self.stops.hit else reading.finish or "unknown"
        return Usage(
            model=reading.model,
            input_tokens=reading.input_tokens,
            output_tokens=reading.output_tokens,
            finish=finish,
            seconds_to_first=None if self._first is None else self._first - self.start,
            seconds=trio.current_time() - self.start,
        )


def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    if response.headers.get("content-encoding", "identity") != "identity":
        return response.aiter_bytes()
    return body_of(response) or response.aiter_raw()


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    with trio.move_on_after(DRAIN), suppress(httpx.HTTPError):
        async for _ in chunks:
            pass


async def _close(response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
    """Close the response and its connection, unless it was read to the end; never waits.

    httpx's stream is a chain of generators. Closing the outer one leaves the inner ones to
    the garbage collector, so the outer is asked once more instead: its source is closed by
    now (or our own task cancelled), and the error goes through all of them and ends them.
    """
    await response.aclose()
    if isinstance(chunks, AsyncGenerator):
        with suppress(httpx.HTTPError, httpx.StreamError):
            async for _ in chunks:
                pass


async def _body(response: httpx.Response) -> bytes:
    """Read a small body as far as it comes, and close the response."""
    chunks = _chunks(response)
    found = b""
    try:
        with trio.move_on_after(BODY_WAIT), suppress(httpx.HTTPError):
            async for chunk in chunks:
                found += chunk
                if len(found) > MAX_BODY:
                    break
    finally:
        await _close(response, chunks)
    return found[:MAX_BODY]


def _refused_parameter(
    response: httpx.Response, answer: bytes, optional: frozenset[str]
) -> str | None:
    """Which of the parameters it is that the other side will not have, or None."""
    if response.status_code not in (400, 422):
        return None
    words = answer.decode(errors="replace").lower()
    if not any(refusal in words for refusal in REFUSALS):
        return None
    # The one that is named first is the one refused; others are what to use instead.
    places = {words.find(name): name for name in optional if name in words}
    return places[min(places)] if places else None


def _is_garbage(error: httpx.HTTPError) -> bool:
    """Whether bytes came that are not HTTP; a connection that was closed is no such thing."""
    text = str(error)
    closed = "disconnected" in text or "closed connection" in text
    return isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError) and not closed


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.rstrip("/") + "/")
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise SetupError(f"{base_url!r} is not the address of a model (http://… or https://…).")
    return url


def _client(
    url: httpx.URL, headers: Mapping[str, str], connect: float, *, keep: bool, transport: Kind
) -> httpx.AsyncClient:
    own = {
        "accept": "text/event-stream, application/json",
        "accept-encoding": "identity",  # a compressed stream comes in lumps
        "content-type": "application/json",
        "user-agent": "hubbub",
    }
    limits = httpx.Limits(
        max_connections=None,  # how many calls go out at once is the gateway's to say
        max_keepalive_connections=KEEP_IDLE if keep else 0,
    )
    environment = not _is_loopback(url.host)
    # Loading certificates takes 20 ms; without TLS there are none to check.
    secure = url.scheme == "https"
    try:
        tls = httpx.create_ssl_context(trust_env=environment) if secure else None
        stock = transport == "stock" or (environment and _has_proxies())
        return httpx.AsyncClient(
            base_url=url,
            headers={**own, **headers},
            trust_env=environment,
            verify=tls or False,
            timeout=httpx.Timeout(None, connect=connect),  # the rest is timed here
            limits=limits,
            transport=None if stock else Transport(tls=tls, limits=limits),
        )
    except (ImportError, ValueError, OSError) as error:
        raise SetupError(
            "The environment's proxy or certificates cannot be used; look at HTTPS_PROXY, "
            "HTTP_PROXY, ALL_PROXY and SSL_CERT_FILE. (SOCKS proxies are not supported.)"
        ) from error


def _has_proxies() -> bool:
    """Whether the environment names any; who then goes through one, httpx's own transport knows."""
    found = getproxies()
    return any(found.get(scheme) for scheme in ("http", "https", "all"))


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
