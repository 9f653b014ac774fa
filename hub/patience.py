"""Guessing is made slow: after failures, a key must wait, each time twice as long.

Pure: whoever asks passes the time in. An attempt counts as a failure from the moment at
which it begins, so that a hundred at once are no way around; who succeeds is forgiven.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from attrs import define, frozen


@frozen
class Limits:
    """How patient to be. Times are in seconds.

    Attributes:
        free: failures without a wait; people mistype.
        first: the first wait, which doubles with each failure after it.
        longest: no wait is longer.
        memory: after so long without a failure all is forgotten.
        keys: remembered at once; 100 bytes each. Beyond it the longest quiet one is forgotten.

    """

    free: int = 5
    first: float = 1.0
    longest: float = 900.0
    memory: float = 3600.0
    keys: int = 20_000


# Short, since anybody can make a name wait whose owner then can't log in either. It still
# leaves a guesser fewer than 3,000 tries a day, over all addresses.
NAMES = Limits(longest=30.0)

# Many people may share an address, so it is free to fail more often; then it waits long.
ADDRESSES = Limits(free=20)

# New accounts, of which each costs us a hash: a class of pupils at once, not a thousand.
NEWCOMERS = Limits(free=40, memory=86_400.0)


@define
class _Record:
    failures: int
    last: float


class Patience:
    """See the module's own text."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._records: OrderedDict[str, _Record] = OrderedDict()  # the longest quiet one first

    def wait(self, key: str, now: float) -> float:
        """Return the seconds until the key may be tried again; 0 if it may be now."""
        record = self._records.get(key)
        if record is None:
            return 0.0
        if now - record.last >= self._limits.memory:
            del self._records[key]
            return 0.0
        return max(0.0, record.last + self._pause(record.failures) - now)

    def attempt(self, key: str, now: float) -> None:
        """Count an attempt, as a failure until `forgive`."""
        self.wait(key, now)  # forgets what is too old
        failures = self._records[key].failures if key in self._records else 0
        self._records[key] = _Record(failures + 1, now)
        self._records.move_to_end(key)
        while len(self._records) > self._limits.keys:
            self._records.popitem(last=False)

    def forgive(self, key: str, *, all: bool) -> None:
        """Take back the last attempt, or all of them."""
        record = self._records.get(key)
        if record is None:
            return
        record.failures -= 1
        if all or record.failures <= 0:
            del self._records[key]

    def __len__(self) -> int:
        return len(self._records)

    def _pause(self, failures: int) -> float:
        limits = self._limits
        over = failures - limits.free
        if over < 0:
            return 0.0
        # Beyond 2^30 of them the longest is reached anyhow, and a float would overflow.
        return float(min(limits.longest, limits.first * 2 ** min(over, 30)))


def neighbourhood(address: str) -> str:
    """Return what counts as one address: of IPv6 the /64 that a single customer is given."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(found)
