"""What a connection costs while nothing happens, and how many there can be."""

from tests.bench import Row
from tests.bench.fanout import JOIN, JOINED
from tests.bench.lab import Lab, lab

GOAL_KB = 30.0
SOCKETS = 10_000
FIRST = 500  # not counted: they also pay for what is loaded and allocated only once


def run(quick: bool) -> list[Row]:
    """Measure connections that only exist, and such as are in a room and read its log."""
    many = 2_000 if quick else SOCKETS
    with lab() as bench:
        idle = per_connection(bench, many)
        here = per_connection(bench, 1_500, "-j", JOIN, JOINED)
    return [
        # `reader` raises unless all of them were open at once.
        Row(
            "idle: sockets open without a flag",
            many,
            goal=None if quick else SOCKETS,
            at_least=True,
        ),
        Row(f"idle: memory per connection, {many:,} open", idle, None, None, GOAL_KB, "KB"),
        Row("idle: memory per member of a room, 1,500 in it", here, None, None, GOAL_KB, "KB"),
    ]


def per_connection(bench: Lab, many: int, *options: str) -> float:
    """Return the hub's KB for each connection beyond the first few; kernel buffers don't count."""
    with (
        bench.source() as source,
        bench.hub(source) as hub,
        bench.reader(hub, FIRST, *options),
    ):
        hub.child.settle()
        before = hub.child.memory()
        with bench.reader(hub, many - FIRST, *options):
            hub.child.settle()
            return (hub.child.memory() - before) / (many - FIRST)
