import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.settings import SettingError
from hub.web.asgi import Message, Receive, Send
from hub.web.messages import Peer, Request
from hub.web.proxies import Proxies
from tests.web.raw import serving, site


def request(peer: str | None, **headers: str) -> Request:
    names = {"by": b"x-forwarded-for", "proto": b"x-forwarded-proto"}
    return Request(
        method="GET",
        target=b"/",
        path="/",
        raw_path=b"/",
        query=b"",
        version="1.1",
        headers=tuple((names[name], value.encode("latin-1")) for name, value in headers.items()),
        peer=Peer((peer, 5), ("10.0.0.1", 80)) if peer else Peer(),
    )


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", False),
        ("somewhere", False),
        ("", False),
    ],
)
def test_who_is_trusted(address: str, trusted: bool) -> None:
    assert Proxies("10.0.0.0/8, 192.0.2.7,, 2001:db8::/32").trusted(address) is trusted


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.0/33", "10.0.0", "*"])
def test_what_is_no_address_is_told(wrong: str) -> None:
    with pytest.raises(SettingError, match="HUBBUB_TRUSTED_PROXIES"):
        Proxies(f"127.0.0.1, {wrong}")


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("127.0.0.1, 203.0.113.5", "203.0.113.5"),  # the first was written by the client
        ("10.9.9.9, 203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),  # somebody in our own network
        ("203.0.113.5:4711", "203.0.113.5"),
        ("[2001:db8::5]:4711", "2001:db8::5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("203.0.113.5, unknown", "10.0.0.1"),
        ("203.0.113.5, <script>", "10.0.0.1"),
        ("203.0.113.5,", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_the_client_is_the_rightmost_that_is_no_proxy(forwarded: str, client: str) -> None:
    seen = Proxies("10.0.0.0/8").seen(request("10.0.0.1", by=forwarded)).peer
    assert seen.client == (client, 0)
    assert seen.proxy == "10.0.0.1"


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
def test_whatever_a_client_writes_it_is_not_believed(forwarded: str, proto: str) -> None:
    said = request("203.0.113.5", by=forwarded, proto=proto)
    assert Proxies("10.0.0.0/8").seen(said) is said
    # A proxy that was told the same adds whom it heard.
    added = request("10.0.0.1", by=f"{forwarded}, 203.0.113.5", proto=f"{proto}, https")
    seen = Proxies("10.0.0.0/8").seen(added).peer
    assert (seen.client, seen.scheme) == (("203.0.113.5", 0), "https")


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        ("https, http", "https"),  # TLS ends at the first of two
        ("http, https, http", "https"),
        ("gopher", "http"),
        ("", "http"),
    ],
)
def test_the_scheme_is_what_the_outermost_proxy_saw(proto: str, scheme: str) -> None:
    said = request("10.0.0.1", by="203.0.113.5, 10.0.0.2", proto=proto)
    assert Proxies("10.0.0.0/8").seen(said).peer.scheme == scheme


def test_a_peer_that_has_gone() -> None:
    assert Proxies("10.0.0.0/8").seen(request(None, by="1.2.3.4")).peer == Peer()


def test_a_proxy_that_nobody_named_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    proxies = Proxies()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            proxies.seen(request("127.0.0.1", by="203.0.113.5"))
    assert caplog.text.count("HUBBUB_TRUSTED_PROXIES") == 1


async def show(scope: Message, receive: Receive, send: Send) -> None:
    body = f"{scope['client'][0]} {scope['scheme']} {scope['state']['proxy']}".encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


TOLD = "X-Forwarded-For: 203.0.113.{}\r\nX-Forwarded-Proto: https\r\n"


async def test_each_request_of_a_connection_has_its_own_client() -> None:
    async with serving(site(show, proxies=Proxies("127.0.0.1"))) as connect:
        client = await connect()
        assert (await client.get(headers=TOLD.format(5))).body == b"203.0.113.5 https 127.0.0.1"
        assert (await client.get(headers=TOLD.format(6))).body == b"203.0.113.6 https 127.0.0.1"
        assert (await client.get()).body == b"127.0.0.1 http 127.0.0.1"


async def test_without_the_setting_nothing_is_believed() -> None:
    async with serving(site(show)) as connect:
        assert (await (await connect()).get(headers=TOLD.format(5))).body == b"127.0.0.1 http None"
