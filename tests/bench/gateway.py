"""The gateway: 200 streams against httpx that only reads; 1,000 who ask the same against one."""

import sys
import time

from attrs import frozen

from tests.bench import Row
from tests.bench.lab import BenchError, Lab, lab, middle, watch
from tests.bench.streams import BEGIN_SECONDS, END_SECONDS, RATE, STREAMS, made

ASKERS = 1000
SHARED_RATE = 50  # tokens a second: each wakes a thousand tasks
FEWEST = 0.9  # of the tokens that should have been made; else the source was disturbed


@frozen
class Sample:
    """Of one token: processor time in µs; and how much of the time others had the core.

    A child that is kept from its core finds several tokens in one read, which is cheaper:
    what was measured beside others that are busy says little.
    """

    micros: float
    taken: float


def run(quick: bool) -> list[Row]:
    """Measure all in turn."""
    seconds, times = (2.0, 1) if quick else (5.0, 3)
    found: dict[str, list[Sample]] = {}
    with lab() as bench:
        for _ in range(times):
            for how in ("bare", "provider", "gateway"):
                found.setdefault(how, []).append(cost(bench, how, STREAMS, RATE, seconds))
            for how in ("fanout", "shared"):
                found.setdefault(how, []).append(cost(bench, how, ASKERS, SHARED_RATE, seconds))
    micros = {how: middle([one.micros for one in samples]) for how, samples in found.items()}
    taken = max(middle([one.taken for one in samples]) for samples in found.values())
    alone = f"provider alone {micros['provider'] / micros['bare']:.2f} x"
    others = f"others had the core for {taken:.0%}"
    streams = f"gateway: CPU per token, {STREAMS} streams of {RATE} tok/s"
    same = f"gateway: CPU per token, {ASKERS} who ask the same"
    return [
        _row(streams, micros["gateway"], micros["bare"], 1.3, f"{alone}, {others}"),
        _row(same, micros["shared"], micros["fanout"], 1.2, others),
    ]


def _row(name: str, value: float, reference: float, goal: float, note: str) -> Row:
    return Row(name, value, reference, value / reference, goal, "µs", note=note)


def cost(bench: Lab, how: str, askers: int, rate: int, seconds: float) -> Sample:
    """Divide processor time by tokens of the source, in the middle of the replies."""
    tokens = int(rate * (BEGIN_SECONDS + seconds + END_SECONDS))
    streams = 1 if how in {"shared", "fanout"} else askers
    words = [str(word) for word in (askers, rate, tokens)]
    with bench.source() as source:
        module, first = ("bare", []) if how == "bare" else ("asking", [how])
        argv = [sys.executable, "-m", f"tests.bench.{module}", *first, str(source.port), *words]
        with bench.start(argv, bench.server_core) as child:
            while made(source.child) < streams:  # it has yet to import and to ask
                time.sleep(0.1)
            time.sleep(BEGIN_SECONDS)
            before = made(source.child)
            load = watch(child, seconds)
            count = made(source.child) - before
            if count < FEWEST * streams * rate * load.seconds:
                raise BenchError(f"{how}: the source made only {count} tokens")
            if child.line(seconds + 30) != "done":
                raise BenchError(f"{how} did not end")
            return Sample(load.cpu / count * 1e6, load.waited / load.seconds)
