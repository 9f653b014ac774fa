"""Every answer has the headers that browsers need, whoever makes it; refusals are pages."""

import re

import pytest
import trio
from attrs import evolve

from hub.app import SECURITY_HEADERS, over_tls
from hub.errors import Forbidden, TooMany
from hub.limits import Rate
from hub.web.messages import Peer, Request
from hub.web.refusals import refusal
from tests.hubs import Running, running_hub
from tests.web.raw import Client

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def said(running: Running, head: str) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to exactly these bytes."""
    client = Client(await trio.open_tcp_stream("127.0.0.1", running.port))
    async with client.stream:
        await client.send(head.encode("latin-1"))
        with trio.fail_after(10):
            return await client.head()


HERE = "Host: localhost\r\n"
SOCKET = f"Upgrade: websocket\r\nConnection: Upgrade\r\n{HERE}"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET / HTTP/1.1\r\n{HERE}\r\n", 200),
        (f"GET /healthz HTTP/1.1\r\n{HERE}\r\n", 200),
        (f"GET /nothing HTTP/1.1\r\n{HERE}\r\n", 404),
        (f"DELETE /healthz HTTP/1.1\r\n{HERE}\r\n", 405),
        (f"DELETE / HTTP/1.1\r\n{HERE}\r\n", 405),
        (f"POST /api/rooms HTTP/1.1\r\n{HERE}Content-Length: 0\r\n\r\n", 401),
        (f"POST /api/rooms HTTP/1.1\r\n{HERE}Content-Length: 99999999\r\n\r\n", 413),
        (f"POST /api/rooms HTTP/1.1\r\n{HERE}Transfer-Encoding: x\r\n\r\n", 501),
        (f"GET / HTTP/1.1\r\n{HERE}If-None-Match: *\r\n\r\n", 304),
        (f"GET / HTTP/1.1\r\n{HERE}Range: bytes=0-1\r\n\r\n", 206),
        (f"GET / HTTP/1.1\r\n{HERE}Range: bytes=9999999-\r\n\r\n", 416),
        (f"GET / HTTP/1.1\r\n{HERE}X: {'x' * 20_000}\r\n\r\n", 431),
        (f"GET /{'x' * 20_000} HTTP/1.1\r\n{HERE}\r\n", 414),
        ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (f"GET /nowhere HTTP/1.1\r\n{SOCKET}\r\n", 404),
        (f"GET /ws HTTP/1.1\r\n{SOCKET}Origin: https://evil.example\r\n\r\n", 403),
    ],
)
async def test_every_answer_has_them(head: str, status: int) -> None:
    async with running_hub() as running:
        found, headers = await said(running, head)
    assert found == status
    for name, value in SECURITY_HEADERS:
        assert headers[name.decode()] == value.decode()
    assert "strict-transport-security" not in headers


async def test_so_does_an_answer_to_a_connection_too_many() -> None:
    async with running_hub(connections=1) as running, running.connect():
        found, headers = await said(running, "")
        assert found == 503
        for name, value in SECURITY_HEADERS:
            assert headers[name.decode()] == value.decode()


async def test_an_error_of_ours_has_them_and_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_hub() as running:

        async def fail(_id: str) -> None:
            raise ZeroDivisionError("secret of ours")

        monkeypatch.setattr(running.hub.store, "room", fail)
        answer = await running.http.get("/readyz")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret" not in answer.text
    for name, value in SECURITY_HEADERS:
        assert answer.headers[name.decode()] == value.decode()


def test_the_policy_lets_in_nothing_but_our_own_files() -> None:
    policy = dict(SECURITY_HEADERS)[b"content-security-policy"].decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["base-uri"] == "'none'"
    assert not re.search(r"unsafe|\*|http|blob", policy)
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"


# ── refusals ─────────────────────────────────────────────────────────────────────────────


async def test_a_foreign_host_gets_a_page_or_json() -> None:
    async with running_hub() as running:
        for path in ("/", "/chat", "/api/session", "/styles.css"):
            page = await running.http.get(path, headers={"host": "evil.example", "accept": HTML})
            assert page.status_code == 403
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert "This server does not go by that name." in page.text
            assert not re.search(r"style|script|\bon\w+=", page.text)
            assert "set-cookie" not in page.headers
            answer = await running.http.get(path, headers={"host": "evil.example"})
            assert (answer.status_code, answer.json()["code"]) == (403, "host")


async def test_a_form_of_another_site_gets_a_page() -> None:
    async with running_hub() as running:
        page = await running.http.post(
            "/api/session",
            data={"name": "Eve"},
            headers={"origin": "https://evil.example", "accept": HTML},
        )
        assert page.status_code == 403
        assert "Pages of other sites may not do this." in page.text


async def test_a_page_too_many_says_when_to_come_back() -> None:
    async with running_hub(
        trusted_proxies="127.0.0.1", limit_requests=Rate("2/h burst 1"), limit_crowd=1
    ) as running:
        headers = {"x-forwarded-for": "203.0.113.5", "accept": HTML}
        assert (await running.http.get("/api/characters", headers=headers)).status_code == 200
        page = await running.http.get("/api/characters", headers=headers)
        assert page.status_code == 429
        assert 1700 < int(page.headers["retry-after"]) <= 1800
        assert page.headers["content-type"] == "text/html; charset=utf-8"


def asked(**headers: str) -> Request:
    return Request(
        method="GET",
        target=b"/",
        path="/",
        raw_path=b"/",
        query=b"",
        version="1.1",
        headers=tuple((name.encode(), value.encode()) for name, value in headers.items()),
        peer=Peer(),
    )


def test_a_page_escapes_what_it_tells() -> None:
    answer = refusal(Forbidden("<img src=x onerror=alert(1)> & so on."), asked(accept=HTML))
    assert b"&lt;img src=x onerror=alert(1)&gt; &amp; so on." in answer.body
    assert b"<img" not in answer.body


def test_the_wait_is_rounded_up() -> None:
    answer = refusal(TooMany("Wait.", retry_after=1.2), asked())
    assert dict(answer.headers)[b"retry-after"] == b"2"
    assert b"json" in dict(answer.headers)[b"content-type"]


@pytest.mark.parametrize(
    ("host", "seconds"),
    [
        ("chat.example.org", 31_536_000),
        ("chat.example.org:8443", 31_536_000),
        ("localhost:8443", 0),
        ("127.0.0.1", 0),
        ("[::1]:8443", 0),
        ("app.localhost", 0),
    ],
)
def test_https_only(host: str, seconds: int) -> None:
    request = evolve(asked(host=host), peer=Peer(scheme="https"))
    assert over_tls(request) == ((b"strict-transport-security", b"max-age=%d" % seconds),)
