"""https and wss by the hub itself, with real certificates of an authority made for the test."""

import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme
from attrs import frozen
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from trio_websocket import wrap_client_stream

from hub.settings import SettingError
from hub.web.tls import Certificate, open_certificate
from hub.wire.tuples import SUBPROTOCOL
from tests.command import refused, started, welcomed
from tests.hubs import Native, running_hub
from tests.scripted import Scripted
from tests.sockets import PATIENCE
from tests.test_invariants import TORRENT, torrent

NAME = "chat.example.org"


@frozen
class Files:
    """An authority, and where the hub finds its certificate and key."""

    authority: trustme.CA
    cert: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> "Files":
        files = cls(trustme.CA(), folder / "cert.pem", folder / "key.pem")
        files.renew()
        return files

    def renew(self) -> None:
        issued = self.authority.issue_cert(NAME, "localhost", "127.0.0.1")
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(self.key)

    @property
    def settings(self) -> dict[str, Any]:
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files.make(tmp_path)


@asynccontextmanager
async def secured(
    port: int, context: ssl.SSLContext, name: str = "localhost"
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    await sock.connect(("127.0.0.1", port))
    tcp = trio.SocketStream(sock)
    stream = trio.SSLStream(tcp, context, server_hostname=name, https_compatible=True)
    try:
        with trio.fail_after(PATIENCE):
            await stream.do_handshake()
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def number_of(port: int, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that is shown."""
    async with secured(port, context) as stream:
        return int(stream.getpeercert()["serialNumber"], 16)


async def another_than(before: int, port: int, context: ssl.SSLContext) -> int:
    """The number of the new certificate, once there is one."""
    with trio.fail_after(PATIENCE):
        while (number := await number_of(port, context)) == before:  # noqa: ASYNC110
            await trio.sleep(0.01)
        return number


@asynccontextmanager
async def talking(port: int, context: ssl.SSLContext) -> AsyncIterator[Native]:
    """A client of `dm-rpc` over wss, as a page of this origin opens it."""
    async with secured(port, context) as stream, trio.open_nursery() as nursery:
        host = f"localhost:{port}"
        with trio.fail_after(PATIENCE):
            ws = await wrap_client_stream(
                nursery,
                stream,
                host,
                "/ws",
                subprotocols=[SUBPROTOCOL],
                extra_headers=[(b"Origin", f"https://{host}".encode())],
            )
        yield await welcomed(ws)
        with trio.move_on_after(PATIENCE):
            await ws.aclose()
        nursery.cancel_scope.cancel()


async def test_people_talk_over_wss(files: Files) -> None:
    async with running_hub(**files.settings) as running:
        assert running.url == f"https://localhost:{running.port}"
        trusting = files.trusting()
        async with (
            talking(running.port, trusting) as ada,
            talking(running.port, trusting) as ben,
        ):
            for one in (ada, ben):
                await one.call("join_room", room="lobby")
            prompt = await ada.prompt("lobby", "Hello over TLS. " * 400)
            for one in (ada, ben):
                assert (await one.event("message"))["message"]["id"] == prompt["id"]
                told = await one.until("message_end")
                assert sum(1 for name, _ in told if name == "token") > 1


async def test_who_reads_nothing_over_tls_is_cut_off_and_nobody_else_notices(
    files: Files,
) -> None:
    trusting = files.trusting()
    async with (
        running_hub(Scripted(torrent), **files.settings, send_timeout=1) as running,
        talking(running.port, trusting) as ada,
        talking(running.port, trusting) as idler,
    ):
        for one in (ada, idler):
            await one.call("join_room", room="lobby")
        (slow,) = (one for one in running.hub._clients if one.user.id == idler.user["id"])
        shrink(slow.stream._transport)
        left: list[str] = []
        while not left:  # from here on the idler's library reads one message, and no more
            await ada.prompt("lobby", "go")
            told = await ada.until("message_end")
            said = "".join(payload["text"] for name, payload in told if name == "token")
            assert said == "".join(TORRENT)
            left = [payload["member"]["id"] for name, payload in told if name == "member_left"]
        assert left == [idler.user["id"]]


def shrink(transport: trio.abc.Stream) -> None:
    """Have a connection's kernel hold little that was not read."""
    assert isinstance(transport, trio.SSLStream)
    bottom = transport.transport_stream
    assert isinstance(bottom, trio.SocketStream)
    bottom.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


async def test_pages_over_https(files: Files) -> None:
    async with (
        running_hub(**files.settings, hosts=NAME) as running,
        httpx.AsyncClient(verify=files.trusting(), timeout=PATIENCE, trust_env=False) as http,
    ):
        site = f"https://localhost:{running.port}"
        page = await http.get(site + "/")
        assert page.status_code == 200
        session = await http.get(site + "/api/session")
        assert "Secure" in session.headers["set-cookie"]
        # Of localhost it would bind every other port, too.
        assert page.headers["strict-transport-security"] == "max-age=0"
        for path in ("/", "/api/session", "/nothing"):
            answer = await http.get(
                f"https://127.0.0.1:{running.port}{path}", headers={"host": NAME}
            )
            assert answer.headers["strict-transport-security"] == "max-age=31536000"


async def test_a_page_without_tls_is_another_site(files: Files) -> None:
    async with (
        running_hub(**files.settings) as running,
        httpx.AsyncClient(verify=files.trusting(), timeout=PATIENCE, trust_env=False) as http,
    ):
        site = f"localhost:{running.port}"
        for scheme, status in (("https", 200), ("http", 403)):
            answer = await http.post(
                f"https://{site}/api/session",
                json={"name": "Ada"},
                headers={"origin": f"{scheme}://{site}"},
            )
            assert answer.status_code == status
            http.cookies.clear()


async def test_what_is_spoken(files: Files) -> None:
    async with running_hub(**files.settings) as running:
        context = files.trusting()
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with secured(running.port, context) as stream:
            assert stream.selected_alpn_protocol() == "http/1.1"
            assert stream.version() == "TLSv1.3"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with secured(running.port, context) as stream:
            assert stream.version() == "TLSv1.2"
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with pytest.raises(trio.BrokenResourceError):
            async with secured(running.port, context):
                pass


async def test_who_speaks_plain_http_is_told(files: Files) -> None:
    async with running_hub(**files.settings) as running:
        async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
            answer = await http.get(f"http://127.0.0.1:{running.port}/")
        assert answer.status_code == 400
        assert answer.json()["code"] == "https_only"
        assert await number_of(running.port, files.trusting())


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"])
async def test_who_stalls_in_the_handshake_is_let_go(
    said: bytes, files: Files, autojump_clock: object
) -> None:
    async with running_hub(**files.settings) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            if said:
                await stream.send_all(said)
            with trio.fail_after(60), suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x00\x05hello", b"\x16" + b"x" * 600])
async def test_nonsense_harms_nobody(
    said: bytes, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_hub(**files.settings) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await stream.send_all(said)
            with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
        assert await number_of(running.port, files.trusting())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_client_that_trusts_us_not_harms_nobody(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_hub(**files.settings) as running:
        with pytest.raises(trio.BrokenResourceError):
            async with secured(running.port, ssl.create_default_context()):
                pass
        assert await number_of(running.port, files.trusting())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_new_certificate_is_shown_after_sighup(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    trusting = files.trusting()
    async with running_hub(**files.settings) as running:
        async with talking(running.port, trusting) as ada:
            before = await number_of(running.port, trusting)
            files.renew()
            assert await number_of(running.port, trusting) == before
            os.kill(os.getpid(), signal.SIGHUP)
            renewed = await another_than(before, running.port, trusting)
            files.key.write_text("no key")
            os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(PATIENCE):
                while "The certificate was not renewed" not in caplog.text:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert await number_of(running.port, trusting) == renewed
            await ada.call("ping")


def encrypted(files: Files) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
        )
    )


def of_another(files: Files) -> None:
    files.authority.issue_cert("other.example").private_key_pem.write_to_path(files.key)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda files: files.cert.unlink(), "cert.pem can't be read: No such file or directory."),
        (lambda files: files.key.unlink(), "key.pem can't be read: No such file or directory."),
        (lambda files: files.key.write_text("x"), "no certificate and key in PEM."),
        (lambda files: files.cert.write_text(""), "no certificate and key in PEM."),
        (encrypted, "is encrypted"),
        (of_another, "is not that of the certificate"),
    ],
)
def test_files_that_are_not_right_are_told_of(spoil: object, sentence: str, files: Files) -> None:
    assert callable(spoil)
    spoil(files)
    with pytest.raises(SettingError, match=sentence):
        Certificate(files.cert, files.key)


def test_both_files_or_none(files: Files) -> None:
    assert open_certificate("", "") is None
    with pytest.raises(SettingError, match="--tls-cert needs --tls-key"):
        open_certificate(str(files.cert), "")
    with pytest.raises(SettingError, match="--tls-key needs --tls-cert"):
        open_certificate("", str(files.key))


async def test_the_command_says_https(files: Files, tmp_path: Path) -> None:
    options = ("--port", "0", "--tls-cert", str(files.cert), "--tls-key", str(files.key))
    async with started(*options, folder=tmp_path) as hubbub:
        assert f"https://localhost:{hubbub.port}" in hubbub.line
        trusting = files.trusting()
        before = await number_of(hubbub.port, trusting)
        files.renew()
        hubbub.process.send_signal(signal.SIGHUP)
        assert await another_than(before, hubbub.port, trusting)
        assert await hubbub.end(signal.SIGTERM) == 0
    said = refused("--tls-cert", str(files.cert), folder=tmp_path)
    assert said == "hubbub: --tls-cert needs --tls-key as well.\n"
