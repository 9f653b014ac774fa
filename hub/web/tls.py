"""TLS of our own: the certificate, its renewal, and the handshake of each connection.

The files are read at the start and again at SIGHUP, which is what renewing programs send. New
connections get the new certificate, those that are open keep theirs; files that are not right
are told of in the log, and the old certificate goes on.
"""

import logging
import signal
import socket
import ssl
from pathlib import Path
from typing import Final

import trio

from hub.settings import SettingError
from hub.web.messages import Answer, Headers, HttpLimits
from hub.web.transport import PeerGone, Transport

log = logging.getLogger(__name__)

# Two round trips and a signature; ten seconds is a bad phone line.
HANDSHAKE_SECONDS: Final = 10.0

# The first byte of a TLS connection: a record of the handshake (RFC 8446, 5.1).
_HANDSHAKE: Final = b"\x16"


_PLAIN: Final = Answer.error(400, "https_only", "This port speaks https.")


class Certificate:
    """A certificate and its key, from two files in PEM; the first may hold a whole chain.

    Raises:
        SettingError: they can't be used; the text says why.

    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert: Final = cert
        self._key: Final = key
        self._context = _context(cert, key)

    def reload(self) -> None:
        """Read the files again; keep what there was if they are not right."""
        try:
            self._context = _context(self._cert, self._key)
        except SettingError as error:
            log.error("The certificate was not renewed; the old one goes on. %s", error)  # noqa: TRY400
        else:
            log.info("The certificate was read again")

    async def reload_at_hangup(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Reload at each SIGHUP, until cancelled. Only in the main thread."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:  # no deadline: it is for the owner to send one
                self.reload()

    async def secure(
        self, stream: trio.SocketStream, headers: Headers = ()
    ) -> trio.abc.Stream | None:
        """Return the stream with TLS over it, None for a peer that does not get that far.

        Who speaks plain HTTP is told so, with these headers. Raises nothing but cancellation.
        """
        try:
            with trio.move_on_after(HANDSHAKE_SECONDS):
                first = await stream.socket.recv(1, socket.MSG_PEEK)
                if first == _HANDSHAKE:
                    secured = trio.SSLStream(
                        stream, self._context, server_side=True, https_compatible=True
                    )
                    await secured.do_handshake()
                    return secured
                if first:
                    await _refuse_plain(stream, headers)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer gave up, or trusts us not
        return None


def open_certificate(cert: str, key: str) -> Certificate | None:
    """Return the certificate that the settings name, None where they name none.

    Raises:
        SettingError: only one file is named, or they can't be used.

    """
    if not cert and not key:
        return None
    if not cert or not key:
        given, missing = ("--tls-cert", "--tls-key") if cert else ("--tls-key", "--tls-cert")
        raise SettingError(f"{given} needs {missing} as well.")
    return Certificate(Path(cert), Path(key))


async def _refuse_plain(stream: trio.SocketStream, headers: Headers) -> None:
    try:
        transport = Transport(stream, HttpLimits())
        await transport.write(_PLAIN.to_bytes(headers))
        await transport.linger(unread=True)
    except PeerGone:
        pass


class _Encrypted(Exception):
    """The key needs a password."""


def _ask_for_password() -> str:
    raise _Encrypted  # else OpenSSL would ask at the terminal


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    _check_readable("certificate", cert)
    _check_readable("key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996 has done away with those before
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, _ask_for_password)
    except _Encrypted:
        raise SettingError(f"The key {key} is encrypted; it must be readable as it is.") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingError(f"The key {key} is not that of the certificate {cert}.") from None
        raise SettingError(f"{cert} and {key} are no certificate and key in PEM.") from None
    return context


def _check_readable(what: str, path: Path) -> None:
    # load_cert_chain does not say which of its files is missing.
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise SettingError(f"The {what} {path} can't be read: {error.strerror}.") from None
