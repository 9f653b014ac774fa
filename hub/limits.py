"""How much one user, and all users of one address, may do in a time.

A token bucket holds `burst` tokens and gains so many a second; what is done takes tokens out,
and where there are too few it is refused, with the time until there will be enough. Of a bucket
only one number is kept: when it will be full again (GCRA, the "virtual scheduling" of ITU-T
I.371). A bucket that is full is like one that was never used, so those are forgotten.

Nothing here waits or looks at a clock by itself: the clock is passed in.

    Limits ─ allowance(user, address) ─→ Allowance ─ take("prompt") ─→ nothing, or TooMany
"""

import re
from collections.abc import Callable, Hashable, Mapping
from ipaddress import IPv6Address, ip_address
from math import ceil, inf
from typing import Final, Literal, TypeAlias, get_args

from attrs import field, frozen

from hub.errors import TooMany

Kind: TypeAlias = Literal["request", "handshake", "login", "message", "byte", "prompt", "room"]

Clock: TypeAlias = Callable[[], float]
"""Seconds, of any beginning, that never go back."""

# Buckets of one kind that are kept at most: 100 bytes each, and nobody has so many addresses
# in use at once but to fill our memory.
MOST_BUCKETS: Final = 100_000

# Below this many buckets looking for full ones is not worth it.
_FEW: Final = 1_000

# In tokens: who waited as long as they were told must get what they waited for, whatever a sum
# of floats makes of it.
_ROUNDING: Final = 1e-3

_UNITS: Final = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
_RATE: Final = re.compile(r"(\d{1,12})/(s|min|h|day)(?: burst (\d{1,12}))?", re.ASCII)

_SENTENCES: Final[dict[Kind, str]] = {
    "request": "This is asked too often",
    "handshake": "You connect too often",
    "login": "You try to come in too often",
    "message": "You send too fast",
    "byte": "You send too much",
    "prompt": "You ask too fast",
    "room": "You make rooms too fast",
}


@frozen
class Rate:
    """So many in a time, and so many at once: ``20/s burst 60``; ``off`` is no limit.

    Without a burst, it is what is allowed in one unit of time.

    Raises:
        ValueError: the text is not of this form, or would never allow anything.

    """

    text: str
    per_second: float = field(init=False)
    burst: float = field(init=False)

    @per_second.default
    def _read_amount(self) -> float:
        if self.text == "off":
            return inf
        match = _RATE.fullmatch(self.text)
        if match is None or not int(match[1]):
            raise ValueError(self.text)
        return int(match[1]) / _UNITS[match[2]]

    @burst.default
    def _read_burst(self) -> float:
        match = _RATE.fullmatch(self.text)
        burst = int(match[3] or match[1]) if match else inf
        if not burst:
            raise ValueError(self.text)
        return burst

    def __str__(self) -> str:
        return self.text


OFF: Final = Rate("off")


class Buckets:
    """Buckets of `factor` times a rate, by key, full at first. Bounded: see `MOST_BUCKETS`."""

    __slots__ = ("_clock", "_depth", "_full_at", "_interval", "_limit", "_look", "_most")

    def __init__(
        self, rate: Rate, clock: Clock, *, factor: float = 1.0, most: int = MOST_BUCKETS
    ) -> None:
        self._limit: Final = rate.per_second != inf
        self._interval: Final = 1 / (rate.per_second * factor)
        self._depth: Final = rate.burst * factor * self._interval if self._limit else inf
        self._clock: Final = clock
        self._most: Final = most
        self._look = min(_FEW, most)
        self._full_at: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable, cost: float = 1.0, now: float | None = None) -> float:
        """Take `cost` tokens; returns 0, or the seconds until there will be so many.

        What costs more than a bucket holds takes all that is in a full one. Who has looked at
        the clock already passes `now`.
        """
        if not self._limit:
            return 0.0
        if now is None:
            now = self._clock()
        full_at = self._full_at.get(key, now)
        if full_at < now:
            full_at = now
        price = cost * self._interval
        full_at += min(self._depth, price)
        wait = full_at - now - self._depth
        if wait > _ROUNDING * self._interval:
            return wait
        self._full_at[key] = full_at
        if len(self._full_at) >= self._look:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop full buckets; if there are too many still, the fuller half."""
        kept = {key: at for key, at in self._full_at.items() if at > now}
        if len(kept) >= self._most:
            middle = sorted(kept.values())[len(kept) // 2]
            kept = {key: at for key, at in kept.items() if at > middle}
        self._full_at = kept
        # Twice as many until the next look: each look costs no more than what came since.
        self._look = min(max(_FEW, 2 * len(kept)), self._most)


class Allowance:
    """What one user may do, coming from one address."""

    __slots__ = ("_address", "_limits", "_user")

    def __init__(self, limits: "Limits", user: str, address: str) -> None:
        self._limits = limits
        self._user = user
        self._address = address

    def take(self, kind: Kind, cost: float = 1.0) -> None:
        """Do something once (or `cost` times).

        Raises:
            TooMany: the user, or all who come from that address, did too much of it.

        """
        of_user, of_address = self._limits.buckets[kind]
        now = self._limits.clock()
        # The user first: what one user is refused must not count against the others there.
        wait = of_user.take(self._user, cost, now) or of_address.take(self._address, cost, now)
        if wait:
            raise too_fast(kind, wait)

    def take_as_user(self, kind: Kind) -> None:
        """Do something that was counted for the address already.

        Raises:
            TooMany: the user did too much of it.

        """
        if wait := self._limits.buckets[kind][0].take(self._user):
            raise too_fast(kind, wait)

    def enter(self) -> None:
        """Open a socket; each that was opened is to be followed by `leave`.

        Raises:
            TooMany: the user, or all who come from that address, have as many as they may.

        """
        of_user, of_address = self._limits.places
        if not of_user.enter(self._user):
            raise _no_place("You have too many connections open; close some.")
        if not of_address.enter(self._address):
            of_user.leave(self._user)
            raise _no_place("Too many connections are open from where you are; try again later.")

    def leave(self) -> None:
        """Give back the place of a socket that was closed."""
        for places, key in zip(self._limits.places, (self._user, self._address), strict=True):
            places.leave(key)


class Limits:
    """All buckets of a hub.

    Args:
        rates: what one user may do; a kind that is left out has no limit.
        sockets: how many one user may have at once.
        crowd: how many times that all who come from one address may do, and have.
        clock: see `Clock`.

    """

    def __init__(
        self, rates: Mapping[Kind, Rate], *, sockets: int, crowd: int, clock: Clock
    ) -> None:
        self.buckets: Final[dict[Kind, tuple[Buckets, Buckets]]] = {
            kind: (
                Buckets(rates.get(kind, OFF), clock),
                Buckets(rates.get(kind, OFF), clock, factor=crowd),
            )
            for kind in get_args(Kind)
        }
        self.clock: Final = clock
        self.places: Final = Places(sockets), Places(sockets * crowd)

    def allowance(self, user: str, address: str) -> Allowance | None:
        """Return what a user may do from there; None: anything, for who sits at this machine."""
        network = network_of(address)
        return None if network is None else Allowance(self, user, network)

    def take(self, kind: Kind, address: str) -> None:
        """Have somebody who is not known yet do something.

        Raises:
            TooMany: too much of it comes from that address.

        """
        network = network_of(address)
        if network is not None and (wait := self.buckets[kind][1].take(network)):
            raise too_fast(kind, wait)


class Places:
    """How many a key has at once, and may have at most."""

    __slots__ = ("_inside", "most")

    def __init__(self, most: int) -> None:
        self.most: Final = most
        self._inside: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._inside)

    def enter(self, key: str) -> bool:
        """Take one more place; False if there is none."""
        inside = self._inside.get(key, 0)
        if inside >= self.most:
            return False
        self._inside[key] = inside + 1
        return True

    def leave(self, key: str) -> None:
        """Give a place back that `enter` gave."""
        left = self._inside[key] - 1
        if left:
            self._inside[key] = left
        else:
            del self._inside[key]


def network_of(address: str) -> str | None:
    """Return by what an address is counted; None for loopback, which is never limited.

    An IPv6 address counts with its /64: that is what one household gets (RFC 6177), and who
    has it has all addresses in it. What is no address counts as itself.
    """
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if isinstance(known, IPv6Address):
        known = known.ipv4_mapped or known
    if known.is_loopback:
        return None
    if isinstance(known, IPv6Address):
        return f"{IPv6Address(int(known) >> 64 << 64)}/64"
    return str(known)


def too_fast(kind: Kind, wait: float) -> TooMany:
    """Return the error for what has to wait so many seconds."""
    seconds = max(1, ceil(wait))
    return TooMany(
        f"{_SENTENCES[kind]}; try again in {seconds} second{'s' if seconds > 1 else ''}.",
        code="too_fast",
        retry_after=wait,
    )


def _no_place(sentence: str) -> TooMany:
    return TooMany(sentence, code="too_many_sockets", retry_after=5)
