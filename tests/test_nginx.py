"""The nginx configuration in docs/deployment.md, taken from there, run by a real nginx."""

import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
import trustme
from trio_websocket import wrap_client_stream

from hub.wire.tuples import SUBPROTOCOL
from tests.command import Hubbub, started, welcomed
from tests.hubs import Native
from tests.server import ROOT
from tests.sockets import PATIENCE
from tests.test_command import free_port

NAME = "chat.example.org"

pytestmark = pytest.mark.nginx


@pytest.fixture(scope="module")
def nginx() -> str:
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("nginx is missing")
        pytest.skip("nginx is missing")
    return found


def documented(hub: int, port: int, folder: Path) -> str:
    """The lines of the documentation, with ports and certificate of this test."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    (block,) = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    for old, new in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (f"/etc/ssl/{NAME}.pem", str(folder / "pem")),
        (f"/etc/ssl/{NAME}.key", str(folder / "key")),
        ("127.0.0.1:8080", f"127.0.0.1:{hub}"),
    ):
        assert block.count(old) == 1
        block = block.replace(old, new)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{block}}}\n"
    )


@asynccontextmanager
async def proxied(
    nginx: str, hubbub: Hubbub, folder: Path
) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """Run nginx before the hub; gives its port, and what a client needs to trust it."""
    port = free_port()
    authority = trustme.CA()
    certificate = authority.issue_cert(NAME)
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "pem")
    certificate.private_key_pem.write_to_path(folder / "key")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    (folder / "nginx.conf").write_text(documented(hubbub.port, port, folder))
    process = await trio.lowlevel.open_process(
        [nginx, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")],
        stderr=subprocess.PIPE,
    )
    try:
        await listens(process, port)
        yield port, trusting
    finally:
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(PATIENCE, shield=True):
            await process.wait()
        process.kill()
        if process.stderr is not None:
            await process.stderr.aclose()


@asynccontextmanager
async def talking_over_tls(
    port: int, trusting: ssl.SSLContext, csrf: str, headers: list[tuple[bytes, bytes]]
) -> AsyncIterator[Native]:
    """Open a WebSocket as the page does that nginx serves."""
    async with trio.open_nursery() as nursery:
        tcp = await trio.open_tcp_stream("127.0.0.1", port)
        stream = trio.SSLStream(tcp, trusting, server_hostname=NAME, https_compatible=True)
        try:
            with trio.fail_after(PATIENCE):
                ws = await wrap_client_stream(
                    nursery,
                    stream,
                    f"{NAME}:{port}",
                    f"/ws?csrf={csrf}",
                    subprotocols=[SUBPROTOCOL],
                    extra_headers=headers,
                )
            yield await welcomed(ws)
            with trio.move_on_after(PATIENCE):
                await ws.aclose()
        finally:
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()


async def listens(process: trio.Process, port: int) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            if process.poll() is not None:
                assert process.stderr is not None
                pytest.fail((await process.stderr.receive_some()).decode())
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.02)
            else:
                await stream.aclose()
                return


async def test_a_session_through_nginx(nginx: str, tmp_path: Path) -> None:
    async with (
        started(
            *("--port", "0"),
            folder=tmp_path,
            HUBBUB_HOSTS=NAME,
            HUBBUB_TRUSTED_PROXIES="127.0.0.1",
            HUBBUB_DEMO_RATE="200",
        ) as hubbub,
        proxied(nginx, hubbub, tmp_path) as (port, trusting),
    ):
        site = f"{NAME}:{port}"
        async with httpx.AsyncClient(verify=trusting, trust_env=False, timeout=PATIENCE) as http:
            response = await http.get(
                f"https://127.0.0.1:{port}/api/session",
                headers={"host": site},
                extensions={"sni_hostname": NAME},
            )
        assert response.status_code == 200
        assert "Secure" in response.headers["set-cookie"]
        cookie = response.headers["set-cookie"].partition(";")[0]
        csrf, user = response.json()["csrf"], response.json()["user"]
        headers = [
            (b"Cookie", cookie.encode()),
            (b"Origin", f"https://{site}".encode()),
        ]
        async with (
            talking_over_tls(port, trusting, csrf, headers) as alice,
            hubbub.connect() as bob,
        ):
            assert alice.user["id"] == user["id"]
            for one in (alice, bob):
                await one.call("join_room", room="lobby")
            prompt = await alice.prompt("lobby", "Hello through nginx.")
            for one in (alice, bob):
                heard = await one.event("message")
                assert heard["message"]["id"] == prompt["id"]
                tokens = [
                    payload["text"]
                    for name, payload in await one.until("message_end")
                    if name == "token"
                ]
                assert len(tokens) > 1
            await alice.call("ping")


async def test_who_asks_is_known_behind_nginx(nginx: str, tmp_path: Path) -> None:
    settings = {"HUBBUB_HOSTS": NAME, "HUBBUB_LIMIT_REQUESTS": "1/day", "HUBBUB_LIMIT_CROWD": "1"}
    async with (
        started(
            "--port", "0", folder=tmp_path, HUBBUB_TRUSTED_PROXIES="127.0.0.1", **settings
        ) as hubbub,
        proxied(nginx, hubbub, tmp_path) as (port, trusting),
        httpx.AsyncClient(verify=trusting, trust_env=False, timeout=PATIENCE) as http,
    ):

        async def ask(client: str) -> httpx.Response:
            # The test asks from 127.0.0.1, which is trusted here as another proxy would be.
            return await http.get(
                f"https://127.0.0.1:{port}/api/characters",
                headers={"host": f"{NAME}:{port}", "x-forwarded-for": client},
                extensions={"sni_hostname": NAME},
            )

        first = await ask("203.0.113.5")
        assert first.status_code == 200
        assert first.headers["strict-transport-security"] == "max-age=31536000"
        refused = await ask("203.0.113.66, 203.0.113.5")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 80_000
        assert (await ask("203.0.113.6")).status_code == 200
        assert "refused too_fast: GET /api/characters from 203.0.113.5" in hubbub.log


async def test_a_proxy_that_is_not_named_is_told_of(nginx: str, tmp_path: Path) -> None:
    async with (
        started("--port", "0", folder=tmp_path, HUBBUB_HOSTS=NAME) as hubbub,
        proxied(nginx, hubbub, tmp_path) as (port, trusting),
        httpx.AsyncClient(verify=trusting, trust_env=False, timeout=PATIENCE) as http,
    ):
        for _ in range(3):
            answer = await http.get(
                f"https://127.0.0.1:{port}/api/session",
                headers={"host": f"{NAME}:{port}", "x-forwarded-for": "203.0.113.5"},
                extensions={"sni_hostname": NAME},
            )
            assert answer.status_code == 200
            assert "strict-transport-security" not in answer.headers
        assert hubbub.log.count("until HUBBUB_TRUSTED_PROXIES names it") == 1


async def test_other_names_and_other_sites_are_kept_out(nginx: str, tmp_path: Path) -> None:
    async with (
        started("--port", "0", folder=tmp_path, HUBBUB_HOSTS=NAME) as hubbub,
        proxied(nginx, hubbub, tmp_path) as (port, trusting),
        httpx.AsyncClient(verify=trusting, trust_env=False, timeout=PATIENCE) as http,
    ):

        async def post(host: str, origin: str) -> httpx.Response:
            return await http.post(
                f"https://127.0.0.1:{port}/api/session",
                json={"name": "Alice"},
                headers={"host": host, "origin": origin},
                extensions={"sni_hostname": NAME},
            )

        site = f"{NAME}:{port}"
        assert (await post(site, f"https://{site}")).status_code == 200
        assert (await post(site, "https://evil.example")).json()["code"] == "origin"
        assert (await post("evil.example", "https://evil.example")).json()["code"] == "host"
