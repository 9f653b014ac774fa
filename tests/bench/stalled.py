"""What one client that stops reading does to the 499 others: nothing, if all is well."""

from tests.bench import Row
from tests.bench.fanout import CLIENTS, Run, judged, reply
from tests.bench.lab import lab, middle

# Slow enough for the server to rest between tokens, so that a disturbance shows.
RATE = 200
# By then the stalled client's buffers, some 120 KB in all, are full.
WARM_SECONDS = 5.0


def run(quick: bool) -> list[Row]:
    """Measure the same reply with and without the stalled client, in turn."""
    seconds, times = (3.0, 1) if quick else (6.0, 3)
    without: list[Run] = []
    beside: list[Run] = []
    with lab() as bench:
        for _ in range(times):
            without.append(reply(bench, bench.hub, RATE, seconds, warm=WARM_SECONDS))
            beside.append(reply(bench, bench.hub, RATE, seconds, warm=WARM_SECONDS, stalled=1))
    value, reference = middle([r.p99 for r in beside]), middle([r.p99 for r in without])
    name = f"stalled: p99 of the others beside one stalled, {CLIENTS} clients, {RATE} tok/s"
    found = Row(name, value, reference, value / reference, 1.2, "ms")
    return [judged(found, without, beside)]
