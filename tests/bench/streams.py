"""Private streams: 200 clients, each with a reply of its own, against httpx that only reads."""

import sys
import time
from collections.abc import Callable

from attrs import frozen

from tests.bench import Row
from tests.bench.fanout import check, finish
from tests.bench.lab import BenchError, Child, Lab, await_quiet, lab, middle

STREAMS = 200
RATE = 50
BEGIN_SECONDS = 1.5  # until all the streams run
END_SECONDS = 0.5


@frozen
class Cost:
    """Of one token: the server's processor time in µs; and how busy its core was, 1.0 at most."""

    micros: float
    busy: float


def run(quick: bool) -> list[Row]:
    """Measure both in turn."""
    seconds, times = (2.0, 1) if quick else (5.0, 3)
    bare: list[Cost] = []
    hub: list[Cost] = []
    with lab() as bench:
        for _ in range(times):
            await_quiet()
            bare.append(through_bare(bench, seconds))
            hub.append(through_hub(bench, seconds))
    value, reference = middle([c.micros for c in hub]), middle([c.micros for c in bare])
    name = f"streams: CPU per token, {STREAMS} private streams of {RATE} tok/s"
    note = f"core {middle([c.busy for c in hub]):.0%} busy"
    return [Row(name, value, reference, value / reference, 1.3, "µs", note=note)]


def through_bare(bench: Lab, seconds: float) -> Cost:
    """Read the streams with httpx alone."""
    tokens = _tokens(seconds)
    words = (STREAMS, RATE, tokens)
    with bench.source() as source:
        argv = [sys.executable, "-m", "tests.bench.bare", str(source.port), *map(str, words)]
        with bench.start(argv, bench.server_core) as child:
            while made(source.child) < STREAMS:  # it has yet to import and to ask
                time.sleep(0.1)
            cost = measure(child, lambda: made(source.child), seconds)
            if child.line(seconds + 30) != "done":
                raise BenchError("the reference did not end")
            return cost


def through_hub(bench: Lab, seconds: float) -> Cost:
    """Have 200 clients ask the hub for a reply each, and count what reaches them."""
    tokens = _tokens(seconds)
    ask = f'["llm_chat_prompt",{{"prompt":"rate={RATE} tokens={tokens}"}},null]'
    with (
        bench.source() as source,
        bench.hub(source) as hub,
        bench.reader(hub, STREAMS, "-n", str(tokens)) as reader,
    ):
        hub.child.settle()
        reader.say(f"each {ask}")
        cost = measure(
            hub.child, lambda: int(reader.ask("count", "delivered")["delivered"]), seconds
        )
        check(finish(reader, seconds + 30))
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
