"""A hub as people run it: a process of its own, started by its command.

with running_server() as server:
    httpx.get(server.url + "healthz")
    server.kill()
    server.restart()   # same port, same data
"""

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent

START_SECONDS: Final = 30.0  # a cold start on a busy machine
STOP_SECONDS: Final = 15.0  # more than the hub's own limit for its farewell

# What the surroundings of the tests must not bring in: a key would make a real model answer.
_NOT_OURS: Final = re.compile(
    r"HUBBUB_|PORT$|(OPENAI|ANTHROPIC|LLAMACPP)_|(http|https|all)_proxy$", re.IGNORECASE
)


class Server:
    """A hub's process. `url` ends with a slash and stays the same when it is restarted."""

    def __init__(self, data: Path, env: Mapping[str, str], folder: Path = ROOT) -> None:
        self.data = data
        self.folder = folder
        self.url = ""
        self.port = 0
        self._env = dict(env)
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        assert self._process is None, "it runs already"
        env = {name: value for name, value in os.environ.items() if not _NOT_OURS.match(name)}
        env |= {"HUBBUB_DATA": str(self.data), "HUBBUB_LLM": "demo", "HUBBUB_DEMO_RATE": "200"}
        with (self.data / "stderr.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hub", "serve", "--port", str(self.port)],
                cwd=self.folder,
                env=env | self._env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        match = re.search(r"http://\S+?:(\d+)", self._first_line())
        assert match, f"it did not start:\n{self.log}"
        self.port = int(match[1])
        self.url = f"http://127.0.0.1:{self.port}/"

    def _first_line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        return self._process.stdout.readline() if ready else ""

    @property
    def log(self) -> str:
        """All that it wrote to standard error, over all its starts."""
        return (self.data / "stderr.log").read_text()

    def kill(self) -> None:
        """End it as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as an administrator would, and return its exit status."""
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Start it again where it was; it is stopped first if it runs."""
        if self._process is not None:
            self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        try:
            return process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@contextmanager
def running_server(
    *, env: Mapping[str, str] | None = None, data: Path | None = None, folder: Path = ROOT
) -> Iterator[Server]:
    """Run a hub with the demo model on a free port; it is gone when the block ends.

    Args:
        env: settings, over `HUBBUB_LLM=demo` and 200 tokens a second.
        data: where it keeps its data, if that must outlive the block.
        folder: where it is started, and looks for `hubbub.toml`.

    """
    with tempfile.TemporaryDirectory(prefix="hubbub-") as fresh:
        server = Server(data or Path(fresh), env or {}, folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
