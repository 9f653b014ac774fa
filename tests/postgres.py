"""A real PostgreSQL, started from Debian's package, on a Unix socket and a loopback port."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

BINARIES = Path("/usr/lib/postgresql")


def find() -> Path | None:
    """Return the newest installed PostgreSQL's folder of binaries, or None."""
    found = sorted(BINARIES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Server:
    """A cluster of its own in a temporary folder. PostgreSQL refuses to run as root, so that
    root runs it as `postgres` or `nobody`."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._names = count(1)
        self.folder = Path(tempfile.mkdtemp(prefix="hubbub-pg-"))
        self.port = _free_port()
        self._user: str | None = None
        if os.geteuid() == 0:
            users = {entry.pw_name for entry in pwd.getpwall()}
            self._user = "postgres" if "postgres" in users else "nobody"
            shutil.chown(self.folder, self._user)
        data = self.folder / "data"
        self._run("initdb", "-D", str(data), "-U", "hub", "-A", "trust", "-E", "UTF8", "-N")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it takes connections (up to 30 s)."""
        settings = [
            f"unix_socket_directories={self.folder}",
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            "fsync=off",  # we kill programs, not the machine
            "shared_buffers=16MB",
            "max_connections=50",
        ]
        options = [part for setting in settings for part in ("-c", setting)]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self.folder / "data", *options],
            stdout=log,
            stderr=log,
            user=self._user,
            cwd="/",
        )
        log.close()
        self._wait()

    def _wait(self) -> None:
        give_up = time.monotonic() + 30
        program = str(self._binaries / "pg_isready")
        ready = [program, "-q", "-h", str(self.folder), "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            if time.monotonic() > give_up:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT in order but fast, SIGQUIT all at once without tidying up."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"hub{next(self._names)}"
        self._run("createdb", "-h", str(self.folder), "-p", str(self.port), "-U", "hub", name)
        return f"postgresql://hub@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, *arguments],
            check=True,
            capture_output=True,
            user=self._user,
            cwd="/",
        )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A running server. Without the package: skipped, but an error on CI."""
    binaries = find()
    if binaries is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have PostgreSQL: apt-get install postgresql")
        pytest.skip("no PostgreSQL is installed (Debian: apt-get install postgresql)")
    server = Server(binaries)
    try:
        server.start()
        yield server
    finally:
        server.remove()
