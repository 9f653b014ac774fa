"""Private streams: 200 clients, each with a reply of its own, against httpx that only reads.

Measured in one run: httpx as it comes, httpx over our transport, the whole hub, to the last
socket, over either; and, where Go is installed, a Go program that does the same job. The
clients ask different things: the same would be one call.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from tests.bench import Row
from tests.bench.fanout import check, finish
from tests.bench.lab import BenchError, Child, Lab, Server, await_quiet, lab, middle

STREAMS = 200
RATE = 50  # tokens a second
BEGIN_SECONDS = 1.5  # until all the streams run
END_SECONDS = 0.5


Measured = Callable[[Lab, str, float], "Cost"]


@frozen
class Cost:
    """Of one token: the server's processor time in µs; and how busy its core was, 1.0 at most."""

    micros: float
    busy: float


def run(quick: bool) -> list[Row]:
    """Measure both in turn."""
    seconds, times = (2.0, 1) if quick else (5.0, 3)
    ways: list[tuple[Measured, str]] = [
        (measured, kind) for kind in ("stock", "fast") for measured in (bare, hub)
    ]
    with lab() as bench:
        program = bench.compile_go("go")
        if program is not None:
            ways.append((go, str(program)))
        costs: dict[tuple[Measured, str], list[Cost]] = {way: [] for way in ways}
        for _ in range(times):
            await_quiet()
            for way, found in costs.items():
                found.append(way[0](bench, way[1], seconds))
    stock, ours, hubs = costs[bare, "stock"], costs[bare, "fast"], costs[hub, "fast"]
    rows = [
        _row("the hub", hubs, stock, 1.3),
        _row("the hub over httpx's transport", costs[hub, "stock"], stock, None),
        _row("httpx over our transport", ours, stock, None),
        _row("the hub, against httpx over our transport", hubs, ours, None),
    ]
    if program is not None:
        rows.append(_row("the hub, against a Go program", hubs, costs[go, str(program)], 1.0))
    return rows


def _row(what: str, costs: list[Cost], to: list[Cost], goal: float | None) -> Row:
    value, reference = middle([c.micros for c in costs]), middle([c.micros for c in to])
    name = f"streams: CPU per token, {STREAMS} private streams of {RATE} tok/s, {what}"
    note = f"core {middle([c.busy for c in costs]):.0%} busy"
    return Row(name, value, reference, value / reference, goal, "µs", note=note)


def bare(bench: Lab, kind: str, seconds: float) -> Cost:
    """Read the streams with httpx alone, over one of the transports."""
    tokens = _tokens(seconds)
    words = (STREAMS, RATE, tokens)
    with bench.source() as source:
        argv = [sys.executable, "-m", "tests.bench.bare", str(source.port), *map(str, words), kind]
        with bench.start(argv, bench.server_core) as child:
            while made(source.child) < STREAMS:  # it has yet to import and to ask
                time.sleep(0.1)
            cost = measure(child, lambda: made(source.child), seconds)
            if child.line(seconds + 30) != "done":
                raise BenchError("the reference did not end")
            return cost


def hub(bench: Lab, kind: str, seconds: float) -> Cost:
    """Have 200 clients ask the hub for a reply each, over one of the transports."""
    with bench.source() as source, bench.hub(source, HUBBUB_HTTP_TRANSPORT=kind) as server:
        return _asked(bench, server, source, seconds)


def go(bench: Lab, program: str, seconds: float) -> Cost:
    """Have them ask the Go program."""
    with bench.source() as source, bench.go(Path(program), source) as server:
        return _asked(bench, server, source, seconds)


def _asked(bench: Lab, server: Server, source: Server, seconds: float) -> Cost:
    """Have clients ask for a reply each, and count what reaches them."""
    tokens = _tokens(seconds)
    ask = f'["llm_chat_prompt",{{"prompt":"# rate={RATE} tokens={tokens}"}},null]'
    with bench.reader(server, STREAMS, "-n", str(tokens)) as reader:
        server.child.settle()
        reader.say(f"each {ask}")
        cost = measure(
            server.child, lambda: int(reader.ask("count", "delivered")["delivered"]), seconds
        )
        check(finish(reader, seconds + 30))
        if made(source.child) < STREAMS * tokens:
            raise BenchError("several clients were given the same stream")
        return cost


def measure(child: Child, count: Callable[[], int], seconds: float) -> Cost:
    """Divide processor time by tokens in the middle of the streams."""
    time.sleep(BEGIN_SECONDS)
    cpu, tokens, begun = child.cpu(), count(), time.monotonic()
    time.sleep(seconds)
    cpu, tokens, took = child.cpu() - cpu, count() - tokens, time.monotonic() - begun
    if tokens < 0.9 * STREAMS * RATE * took:
        raise BenchError(f"{child.name}: only {tokens / took:.0f} tok/s came through")
    return Cost(cpu / tokens * 1e6, cpu / took)


def made(source: Child) -> int:
    """How many tokens the source has made, of all its streams."""
    return int(source.ask("count", "made")["made"])


def _tokens(seconds: float) -> int:
    return int(RATE * (BEGIN_SECONDS + seconds + END_SECONDS))
