"""What one client that stops reading does to the 499 others: nothing, if all is well."""

from tests.bench import Row
from tests.bench.fanout import CLIENTS, Run, reply
from tests.bench.lab import lab, middle

# Slow enough for the server to rest between tokens, so that a disturbance shows, and fast
# enough to fill the stalled client's buffers, some 60 KB, in the first second or two.
RATE = 200


def run(quick: bool) -> list[Row]:
    """Measure the same reply with and without the stalled client, in turn."""
    seconds, times = (4, 1) if quick else (8, 3)
    without: list[Run] = []
    beside: list[Run] = []
    with lab() as bench:
        for _ in range(times):
            without.append(reply(bench, bench.hub, RATE, seconds))
            beside.append(reply(bench, bench.hub, RATE, seconds, stalled=1))
    value, reference = middle([r.p99 for r in beside]), middle([r.p99 for r in without])
    name = f"stalled: p99 of the others beside one stalled, {CLIENTS} clients, {RATE} tok/s"
    return [Row(name, value, reference, value / reference, 1.2, "ms")]
