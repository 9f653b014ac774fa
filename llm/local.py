"""A model file of one's own: llama.cpp in a child process, for as long as we need it."""

import importlib.util
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

from llm.llamacpp import LlamaCpp
from llm.local_server import SLOTS
from llm.provider import Item, ModelError, Request, SetupError, Timeouts
from llm.transport import Kind

EXTRA = "xllamacpp"
MAGIC = b"GGUF"
START_WAIT = 600.0  # s; tens of gigabytes from a slow disk take minutes
END_WAIT = 5.0  # s; a killed process with much memory takes a moment to be gone
KEY_VARIABLE = "HUBBUB_LOCAL_KEY"
MAX_ADDRESS = 200  # bytes of the line by which the child tells its address


class LocalModelError(SetupError):
    """A model file cannot be run; the text says in one sentence why."""


class LocalModel:
    """The model in a GGUF file. It answers while it is `running`.

    If its process dies, replies end with an error, and so does each call from then on; it
    is not started again, as what killed it once (mostly too little memory) does so again.
    """

    name = "llamacpp"
    demo = False

    def __init__(
        self,
        path: Path,
        *,
        timeouts: Timeouts | None = None,
        transport: Kind = "fast",
        slots: int = SLOTS,
    ) -> None:
        """Build it; nothing is started or read yet. `slots`: conversations at once."""
        self.model = path.stem
        self._slots = slots
        self._path = path
        self._timeouts = timeouts or Timeouts()
        self._transport = transport
        self._server: LlamaCpp | None = None
        self._process: trio.Process | None = None
        self._address = ""
        self.key = secrets.token_urlsafe(32)
        """Without it nobody but us may use the model: any page and program reaches loopback."""

    @property
    def pid(self) -> int | None:
        """The process of the model, while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def address(self) -> str:
        """The base URL of its llama.cpp, for those who want to look inside; empty before."""
        return self._address

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the model's process; on leaving it is gone.

        Raises:
            LocalModelError: it cannot be run.
        """
        _check(self._path)
        process = self._process = await _start(self._path, self.key, self._slots)
        try:
            with trio.move_on_after(START_WAIT):
                self._address = await _address(process, self._path)
            if not self._address:
                raise LocalModelError(f"{self._path} took longer than {START_WAIT:g} s to load.")
            self._server = LlamaCpp(
                base_url=self._address,
                key=self.key,
                timeouts=self._timeouts,
                transport=self._transport,
            )
            yield
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + END_WAIT):
                await self.aclose()
                await _end(process)

    def stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Item]]:
        """Ask; see `llm.provider`.

        Raises:
            ModelError: the model's process is not there (any more).
        """
        if self._server is None or self.pid is None:
            raise ModelError(
                "unreachable",
                "The local model has stopped. Whoever runs this hub has to start it again.",
            )
        return self._server.stream(request)

    async def aclose(self) -> None:
        """Give back connections; the process goes when `running` is left."""
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()


def _check(path: Path) -> None:
    """Say what can be said without llama.cpp, which itself only says that it failed."""
    if importlib.util.find_spec(EXTRA) is None:
        raise LocalModelError(
            "Running a model file needs llama.cpp, which is not installed: "
            "pip install 'hubbub[local]'."
        )
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except FileNotFoundError:
        raise LocalModelError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise LocalModelError(f"{path} is a folder, not a model file.") from None
    except OSError as error:
        raise LocalModelError(f"{path} cannot be read: {error.strerror}.") from None
    if start != MAGIC:
        raise LocalModelError(f"{path} is not a GGUF file, which is what llama.cpp reads.")


async def _start(path: Path, key: str, slots: int) -> trio.Process:
    """Start the child: away from our terminal's Ctrl-C, as we end it when we are ready."""
    command = [sys.executable, "-P", "-m", "llm.local_server", str(path), path.stem, str(slots)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        KEY_VARIABLE: key,  # a command line could be read by everybody on this machine
    }
    return await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


async def _address(process: trio.Process, path: Path) -> str:
    """Read the address, which the child tells when the model is loaded."""
    line = b""
    if process.stdout is not None:
        while not line.endswith(b"\n") and len(line) < MAX_ADDRESS:
            part = await process.stdout.receive_some(MAX_ADDRESS)
            if not part:
                break
            line += part
    address = line.decode(errors="replace").strip()
    if not address.startswith("http://"):
        raise LocalModelError(f"llama.cpp cannot load {path}; it may be incomplete.")
    return address


async def _end(process: trio.Process) -> None:
    """End the child by force: it has nothing to save."""
    process.kill()
    await process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            await pipe.aclose()
