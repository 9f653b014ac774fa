"""What benchmarks share: the C programs, processes pinned to a core, and what /proc says of them.

The server that is measured has a core of its own; the clients and the source share another.
"""

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import IO, Any

from attrs import field, frozen

DEBIANS_GO = Path("/usr/share/gocode")
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 30.0
ANSWER_SECONDS = 10.0
QUIET_PART = 0.1  # of all cores, that others may use when a measurement begins
QUIET_SECONDS = 20.0


class BenchError(Exception):
    """Something could not be measured; says what."""


@frozen
class Child:
    """A program under measurement or its helper; it ends when its standard input does."""

    name: str
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    unread: bytearray = field(factory=bytearray)

    def say(self, line: str) -> None:
        """Give it a line on standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def line(self, seconds: float = ANSWER_SECONDS) -> str:
        """Return the next line of its standard output, which must come within `seconds`."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self.unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise BenchError(f"{self.name} said nothing for {seconds:.0f} s{self._complaint()}")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise BenchError(f"{self.name} ended{self._complaint()}")
            self.unread.extend(more)
        line, _, rest = bytes(self.unread).partition(b"\n")
        self.unread[:] = rest
        return line.decode()

    def answer(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Return the next line, which is a JSON object."""
        found: dict[str, Any] = json.loads(self.line(seconds))
        return found

    def ask(self, line: str, key: str, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Say a line and return the first object with this key that comes after it."""
        self.say(line)
        while key not in (found := self.answer(seconds)):
            pass
        return found

    def cpu(self) -> float:
        """Seconds of processor time so far, of user and kernel, of all its threads."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    def waited(self) -> float:
        """Seconds that its main thread was kept from its core by others (proc(5), schedstat)."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) / 1e9

    def memory(self) -> int:
        """Resident memory in KB (proc(5), smaps_rollup)."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1])
        raise BenchError("no Rss in smaps_rollup")

    def settle(self, seconds: float = START_SECONDS) -> None:
        """Wait until it has next to nothing to do."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            before = self.cpu()
            time.sleep(0.3)
            if self.cpu() - before <= 0.02:
                return
        raise BenchError(f"{self.name} does not come to rest{self._complaint()}")

    def _complaint(self) -> str:
        self.errors.flush()
        self.errors.seek(0)
        tail = self.errors.read()[-2000:].decode(errors="replace").strip()
        return f"; it wrote:\n{tail}" if tail else ""


@frozen
class Server:
    """Something that clients connect to."""

    child: Child
    port: int


@frozen
class Load:
    """What a process used of its core over `seconds`, and how long others kept it from it."""

    cpu: float
    seconds: float
    waited: float

    @property
    def part(self) -> float:
        """1.0 is a whole core."""
        return self.cpu / self.seconds


def watch(child: Child, seconds: float) -> Load:
    """Measure its processor time over so many seconds."""
    cpu, waited, begun = child.cpu(), child.waited(), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begun
    return Load(child.cpu() - cpu, took, child.waited() - waited)


@frozen
class Lab:
    """A folder with the compiled programs, and the cores to run on."""

    folder: Path
    server_core: int
    client_core: int

    @contextlib.contextmanager
    def start(
        self, argv: Sequence[str], core: int, env: Mapping[str, str] | None = None
    ) -> Iterator[Child]:
        """Run a program on one core for the time of the `with`."""
        with tempfile.TemporaryFile() as errors, _spawn(argv, core, env or {}, errors) as process:
            try:
                yield Child(Path(argv[0]).name, process, errors)
            finally:
                _end(process)

    @contextlib.contextmanager
    def source(self) -> Iterator[Server]:
        """Run source.c."""
        with self.start([str(self.folder / "source")], self.client_core) as child:
            yield Server(child, int(child.line()))

    @contextlib.contextmanager
    def limit(self, source: Server) -> Iterator[Server]:
        """Run limit.c."""
        argv = [str(self.folder / "limit"), str(source.port)]
        with self.start(argv, self.server_core) as child:
            yield Server(child, int(child.line()))

    @contextlib.contextmanager
    def hub(self, source: Server, **settings: str) -> Iterator[Server]:
        """Run `hubbub serve` with an empty folder of data and `source` for a model."""
        with tempfile.TemporaryDirectory(dir=self.folder) as data:
            env = {
                "HUBBUB_DATA": data,
                "HUBBUB_LLM": "openai",
                "HUBBUB_ROLLUP": "0",
                "OPENAI_API_KEY": "x",
                "OPENAI_BASE_URL": f"http://127.0.0.1:{source.port}/v1",
                **settings,
            }
            argv = [str(Path(sys.executable).parent / "hubbub"), "serve", "--port", "0"]
            with self.start(argv, self.server_core, env) as child:
                yield Server(child, _port_of(child.line(START_SECONDS)))

    @contextlib.contextmanager
    def go(self, program: Path, source: Server) -> Iterator[Server]:
        """Run what `compile_go` made."""
        with self.start([str(program), str(source.port)], self.server_core) as child:
            yield Server(child, int(child.line()))

    def compile_go(self, name: str) -> Path | None:
        """Compile a Go program of this folder; None where there is no Go.

        gorilla/websocket is taken from Debian's package, without a network.
        """
        go = shutil.which("go")
        if go is None or not (DEBIANS_GO / "src/github.com/gorilla/websocket").is_dir():
            return None
        program = self.folder / name
        own = {
            "GO111MODULE": "off",
            "GOPATH": str(DEBIANS_GO),
            "GOCACHE": str(self.folder / "go-cache"),
        }
        made = subprocess.run(
            [go, "build", "-o", program, HERE / f"{name}.go"],
            env={**os.environ, **own},
            capture_output=True,
            check=False,
        )
        if made.returncode:
            raise BenchError(f"{name}.go does not compile:\n{made.stderr.decode()}")
        return program

    @contextlib.contextmanager
    def reader(self, server: Server, clients: int, *options: str) -> Iterator[Child]:
        """Run reader.c and wait until all its connections are ready."""
        argv = [str(self.folder / "reader"), str(server.port), str(clients), *options]
        with self.start(argv, self.client_core) as child:
            ready = child.answer(START_SECONDS + clients / 100)["ready"]
            if ready != clients:
                raise BenchError(f"only {ready} of {clients} connections were ready")
            yield child


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """Compile the programs and choose the cores."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as name:
        folder = Path(name)
        for program in ("source", "limit", "reader"):
            _compile(HERE / f"{program}.c", folder / program)
        yield Lab(folder, cores[0], cores[-1])


def await_quiet() -> None:
    """Wait for others to leave us the machine, but not for long: some never do."""
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        busy, total = _machine()
        time.sleep(1.0)
        now_busy, now_total = _machine()
        if now_busy - busy < QUIET_PART * (now_total - total):
            return


def _machine() -> tuple[int, int]:
    """Return ticks in which cores were busy, and all; proc(5), stat."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def middle(values: Sequence[float]) -> float:
    """Return the median, which a disturbed run does not move."""
    return float(median(values))


def _compile(source: Path, program: Path) -> None:
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise BenchError(f"a C compiler is needed, and there is no {compiler}")
    made = subprocess.run(
        [compiler, "-O2", "-o", program, source], capture_output=True, check=False
    )
    if made.returncode:
        raise BenchError(f"{source.name} does not compile:\n{made.stderr.decode()}")


def _spawn(
    argv: Sequence[str], core: int, env: Mapping[str, str], errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a child on this core: it inherits our own, and so do all its threads."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            cwd=ROOT,
            env={**os.environ, **env},
        )
    finally:
        os.sched_setaffinity(0, own)


def _port_of(line: str) -> int:
    found = re.search(r"http://[^/\s]+:(\d+)", line)
    if not found:
        raise BenchError(f"no address in the hub's first line: {line!r}")
    return int(found[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
