"""One model's address: asks over HTTP, reads the streamed reply, bounds every wait.

What differs between the clouds is how a question is put (`Ask`) and how an event is read
(`Reading`). All else is the same for all of them and is here: connections, deadlines, errors;
and in reply.py, what comes.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from ipaddress import ip_address
from urllib.request import getproxies

import httpx
import msgspec
import trio
from attrs import frozen

from llm.faults import (
    fault_of,
    model_error,
    report_of_body,
    retry_after,
)
from llm.provider import (
    Fault,
    Item,
    ModelError,
    SetupError,
    Timeouts,
)
from llm.ratelimits import reset_after
from llm.reply import Reading, Reply, is_garbage
from llm.stops import Stops
from llm.transport import Kind, Transport, body_of

MAX_BODY = 64 * 1024  # bytes of an answer that is not a stream; errors are a few hundred
BODY_WAIT = 5.0  # s for such a body, which is sent in one go
DRAIN = 0.2  # s for the last bytes of a whole reply, so that its connection can be used again
MAX_REMEMBERED = 256  # models whose refusals are kept; names of models come with requests
KEEP_IDLE = 20  # connections kept for the next call

Body = dict[str, object]

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
        reply = Reply(ask.reading, Stops(ask.stops), chunks, self.timeouts, self.fault, start, rest)
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
            fault: Fault = "garbled" if is_garbage(error) else "unreachable"
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
