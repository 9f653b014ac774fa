"""What replies took, summed for people: by user, room, day or model."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal, TypeAlias, get_args

import msgspec

from hub.records import Tally
from hub.store.contract import Store

By: TypeAlias = Literal["user", "room", "day", "model"]
WAYS: tuple[By, ...] = get_args(By)

DAYS = 30
"""How far one looks back where nobody says; a month, as bills do."""


class Line(msgspec.Struct, frozen=True):
    """The sum of one user, room, day or model.

    Attributes:
        key: the id, the day or the model's name; empty for prompts without a room.
        name: what people call it.
        calls: replies, those of the demo and of the cache included.
        cost: in the currency of the owner's prices.

    """

    key: str
    name: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float


Namer: TypeAlias = Callable[[Line], Awaitable[Line]]


def first_day(days: int = DAYS, today: date | None = None) -> str:
    """Return the first of so many days up to today, in UTC."""
    return ((today or datetime.now(UTC).date()) - timedelta(days - 1)).isoformat()


def summed(tallies: Iterable[Tally], by: By) -> list[Line]:
    """Sum up: days in their order, all else with the most costly first."""
    sums: dict[str, Line] = {}
    for tally in tallies:
        key = str(getattr(tally, by))
        sums[key] = _add(sums.get(key, Line(key, key, 0, 0, 0, 0.0)), tally)
    if by == "day":
        return sorted(sums.values(), key=lambda line: line.key)
    return sorted(sums.values(), key=_weight, reverse=True)


def total(lines: Sequence[Line]) -> Line:
    """Sum up all of it."""
    whole = Line("", "total", 0, 0, 0, 0.0)
    for line in lines:
        whole = _add(whole, line)
    return whole


def names(store: Store, by: By) -> Namer:
    """Return what puts names in the place of ids, as far as they are known."""

    async def user(line: Line) -> Line:
        found = await store.user(line.key)
        return called(line, found.name if found else f"somebody ({line.key[:8]})")

    async def room(line: Line) -> Line:
        if not line.key:
            return called(line, "no room")
        found = await store.room(line.key)
        return called(line, found.title if found else f"a room that is gone ({line.key[:8]})")

    async def as_it_is(line: Line) -> Line:
        return line

    return {"user": user, "room": room}.get(by, as_it_is)


def called(line: Line, name: str) -> Line:
    """Give a line a name."""
    return msgspec.structs.replace(line, name=name)


def table(lines: Sequence[Line], by: By) -> str:
    """Lay the lines out in columns, with their sum."""
    head = (by, "replies", "tokens in", "tokens out", "cost")
    rows = [head, *(_cells(line) for line in (*lines, total(lines)))]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _cells(line: Line) -> tuple[str, ...]:
    counts = (line.calls, line.input_tokens, line.output_tokens)
    return (" ".join(line.name.split()), *(f"{count:,}" for count in counts), f"{line.cost:,.4f}")


def _weight(line: Line) -> tuple[float, int, int]:
    return line.cost, line.input_tokens + line.output_tokens, line.calls


def _add(line: Line, more: Tally | Line) -> Line:
    return msgspec.structs.replace(
        line,
        calls=line.calls + more.calls,
        input_tokens=line.input_tokens + more.input_tokens,
        output_tokens=line.output_tokens + more.output_tokens,
        cost=line.cost + more.cost,
    )
