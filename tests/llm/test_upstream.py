"""What is common to all that ask over HTTP and does not show in the contract."""

import gzip
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from llm.openai import OpenAI, chat
from llm.provider import Item, SetupError, Usage
from llm.upstream import Upstream
from tests.contracts.providers import ASK, TEXTS, all_of, error_of
from tests.llm.servers import LAST_CHUNK, Do, chunk, head, serving
from tests.llm.test_openai import ChatDialect

REPLY = ChatDialect().reply()


@pytest.mark.parametrize(
    "address", ["", "localhost:8080", "ftp://x/", "http://", "http://[::1", "/v1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SetupError, match="is not the address of a model"):
        Upstream(address, who="x")


async def replies(upstream: Upstream, times: int) -> list[Item]:
    found: list[Item] = []
    for _ in range(times):
        async with upstream.stream(chat(ASK, "m")) as items:
            found += [item async for item in items]
    return found


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("keep", "connections"), [(True, 1), (False, 3)])
async def test_a_kept_connection_is_used_again(keep: bool, connections: int, late: bool) -> None:
    """`late`: the last bytes of the body come in a read of their own, after the reply's end."""
    async with serving() as server:
        pieces = [chunk(b"".join(REPLY)), LAST_CHUNK]
        kept = head().replace(b"connection: close\r\n", b"")
        server.answer((kept, *pieces) if late else (kept + b"".join(pieces),))
        upstream = Upstream(server.url, who="x", keep=keep)
        assert len([item for item in await replies(upstream, 3) if isinstance(item, Usage)]) == 3
        opened = server.accepted
        await upstream.aclose()
    assert opened == connections


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's certificate, trusted by whoever trusts the usual ones."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setattr("certifi.where", lambda: str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_tls_is_used_again(tls: ssl.SSLContext) -> None:
    async with serving(tls) as server:
        kept = head().replace(b"connection: close\r\n", b"")
        server.answer((kept, *map(chunk, REPLY), LAST_CHUNK))
        upstream = Upstream(server.url, who="x")
        await replies(upstream, 3)
        assert server.accepted == 1
        await upstream.aclose()


async def test_leaving_does_not_wait_for_the_other_side_of_tls(tls: ssl.SSLContext) -> None:
    async with serving(tls) as server:
        server.answer((head(), chunk(REPLY[0]), Do.STALL))
        upstream = Upstream(server.url, who="x")
        with trio.CancelScope() as scope:
            async with upstream.stream(chat(ASK, "m")) as items:
                async for _ in items:
                    await server.stalled.wait()
                    scope.cancel()
        await server.all_closed()
        await upstream.aclose()


async def test_a_certificate_that_nobody_trusts_is_no_model(tls: ssl.SSLContext) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(stranger)
    async with serving(stranger) as server:
        provider = OpenAI(base_url=server.url)
        assert (await error_of(provider))[1].fault == "unreachable"
        await provider.aclose()


async def test_a_compressed_stream_is_read_all_the_same() -> None:
    async with serving() as server:
        body = gzip.compress(b"".join(REPLY))
        server.answer((head(content_encoding="gzip"), chunk(body), LAST_CHUNK))
        provider = OpenAI(base_url=server.url)
        assert "".join((await all_of(provider))[0]) == "".join(TEXTS)
        await provider.aclose()
        assert server.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("address", "proxied"),
    [
        ("http://localhost:1234", False),
        ("http://127.0.0.2:1234", False),
        ("http://[::1]:1234", False),
        ("http://models.example", True),
    ],
)
def test_proxies_are_not_for_loopback(
    address: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    client = Upstream(address, who="x")._client
    assert bool(client._mounts) is proxied


def test_a_proxy_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://proxy.example")
    with pytest.raises(SetupError, match="ALL_PROXY"):
        Upstream("https://models.example", who="x")
