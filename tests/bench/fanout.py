"""One reply to 500 clients in a room: the hub against a C loop that only writes (limit.c)."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.bench import Row
from tests.bench.lab import BenchError, Child, Lab, Load, Server, await_quiet, lab, middle, watch

CLIENTS = 500
JOIN = '["join_room",{"room":"lobby"},"1"]'
JOINED = '["join_room",{'
WARM_SECONDS = 0.5
TRIES = 3  # of a run, on a machine that does other things as well
MAX_WAITED = 0.05  # of the time; what its own threads take from each other is below
LATE_MS = 100  # a source that is later has been kept from its core
Serve = Callable[[Server], AbstractContextManager[Server]]


@frozen
class Run:
    """What one reply did to the server and to its readers; times in ms."""

    load: Load
    p50: float
    p99: float
    lag: float
    delivered: float
    made: float
    late: float

    @property
    def disturbed(self) -> str:
        """What else on the machine got in the way, or nothing; never what the server did."""
        if self.load.waited > MAX_WAITED * self.load.seconds:
            return f"the server's core was taken for {self.load.waited:.2f} s"
        return f"the source was {self.late:.0f} ms late" if self.late > LATE_MS else ""


def prompt(rate: int, tokens: int) -> str:
    """Return the prompt that makes source.c answer so."""
    return f'["send_prompt",{{"room":"lobby","text":"rate={rate} tokens={tokens}","txn":"1"}},"2"]'


def reply(
    bench: Lab,
    serve: Serve,
    rate: int,
    seconds: float,
    *,
    warm: float = WARM_SECONDS,
    stalled: int = 0,
) -> Run:
    """Start a server, fill its lobby, and let one reply stream through it.

    It is measured for `seconds`, after the first `warm` seconds of it.
    """
    for _ in range(TRIES):
        await_quiet()
        run = _reply(bench, serve, rate, seconds, warm, stalled)
        if not run.disturbed:
            break
        print(f"disturbed: {run.disturbed}", file=sys.stderr, flush=True)
    return run


def _reply(bench: Lab, serve: Serve, rate: int, seconds: float, warm: float, stalled: int) -> Run:
    tokens = int(rate * (seconds + warm + WARM_SECONDS))
    options = ["-j", JOIN, JOINED, "-n", str(tokens), "-w", str(int(warm * 1000))]
    with (
        bench.source() as source,
        serve(source) as server,
        bench.reader(server, CLIENTS, *options, "-s", str(stalled)) as reader,
    ):
        server.child.settle()
        reader.say(f"first {prompt(rate, tokens)}")
        time.sleep(warm)
        load = watch(server.child, seconds)
        found = finish(reader, seconds + 30)
        check(found)
        late = source.child.answer()["late_ms"]
        if stalled:
            _check_stall(server, stalled)
    span, readers = found["seconds"], found["reading"]
    return Run(
        load=load,
        p50=found["p50_ms"],
        p99=found["p99_ms"],
        lag=found["lag_ms"],
        delivered=found["tokens"] / span,
        made=tokens * readers / found["source_seconds"],
        late=late,
    )


def finish(reader: Child, seconds: float) -> dict[str, Any]:
    """Return what the readers saw, once all have all tokens, or after so many seconds."""
    try:
        return reader.answer(seconds)
    except BenchError:
        return reader.ask("result", "missing")


def check(found: dict[str, float]) -> None:
    """Speed is for the table; a token that is lost, doubled or out of order is an error."""
    for fault in ("missing", "disorder", "closed"):
        if found[fault]:
            raise BenchError(f"{found[fault]} {fault}: {found}")


def _check_stall(server: Server, stalled: int) -> None:
    """A client that reads nothing must have filled its buffers, or nothing was measured."""
    server.child.settle()
    port = f":{server.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # By the peer's address: the kernel may list a connection twice while others come and go.
    unsent = {
        row[2]: int(row[4][:8], 16) for row in rows if row[1].endswith(port) and row[3] == "01"
    }
    full = sum(size > 0 for size in unsent.values())
    gone = CLIENTS - len(unsent)
    if full + gone < stalled:
        raise BenchError("the stalled client's buffers did not fill")


def judged(row: Row, *sides: Sequence[Run]) -> Row:
    """Say how far a row is to be trusted: a median is good if most of its runs are."""
    bad = [sum(bool(run.disturbed) for run in side) for side in sides]
    total = sum(map(len, sides))
    trusted = all(2 * count < len(side) for count, side in zip(bad, sides, strict=True))
    return row._replace(
        note=f"{sum(bad)} of {total} runs disturbed" if any(bad) else "", trusted=trusted
    )


def run(quick: bool) -> list[Row]:
    """Measure a slow and a fast model."""
    rows: list[Row] = []
    with lab() as bench:
        for rate in (50, 2000):
            rows += _compare(bench, rate, seconds=2 if quick else 5, times=1 if quick else 3)
    return rows


def _compare(bench: Lab, rate: int, seconds: float, times: int) -> list[Row]:
    limits, hubs = [], []
    for _ in range(times):  # in turn, so that a change of the machine's mood touches both
        limits.append(reply(bench, bench.limit, rate, seconds))
        hubs.append(reply(bench, bench.hub, rate, seconds))
    at = f"{CLIENTS} clients, {rate:,} tok/s"

    def row(what: str, get: Callable[[Run], float], unit: str, goal: float | None) -> Row:
        value, reference = middle([get(r) for r in hubs]), middle([get(r) for r in limits])
        name = f"fanout: {what}, {at}"
        found = Row(name, value, reference, value / reference, goal, unit)
        return judged(found, limits, hubs)

    return [
        row("server CPU", lambda r: r.load.part * 100, "%", 1.5 if rate == 50 else None),
        row("p50", lambda r: r.p50, "ms", None),
        row("p99", lambda r: r.p99, "ms", 3.0 if rate == 2000 else None),
        row("last token's delay", lambda r: r.lag, "ms", None),
        _keeps_up(hubs, at),
    ]


def _keeps_up(hubs: list[Run], at: str) -> Row:
    """A hub that lags delivers more slowly than the source makes."""
    delivered, made = middle([r.delivered for r in hubs]), middle([r.made for r in hubs])
    name = f"fanout: delivered of made, {at}"
    return judged(Row(name, delivered, made, delivered / made, 0.99, "/s", at_least=True), hubs)
