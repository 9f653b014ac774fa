from math import inf

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hub.errors import TooMany
from hub.limits import OFF, Buckets, Limits, Places, Rate, network_of


@define
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20/s burst 60", (20, 60)),
        ("30/min", (0.5, 30)),
        ("36/h burst 5", (0.01, 5)),
        ("1/day", (1 / 86_400, 1)),
        ("off", (inf, inf)),
    ],
)
def test_rates_are_read(text: str, rate: tuple[float, float]) -> None:
    read = Rate(text)
    assert (read.per_second, read.burst) == rate
    assert str(read) == text


@pytest.mark.parametrize(
    "text", ["", "20", "0/s", "5/s burst 0", "-1/s", "1.5/s", "5/week", "x", "5/s burst", "٣/s"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its text is the caller's matter
        Rate(text)


@define
class Pail:
    """A bucket as one would draw it: tokens drip in, and are taken out."""

    rate: Rate
    tokens: float
    filled: float

    def take(self, now: float, cost: float) -> float:
        self.tokens = min(self.rate.burst, self.tokens + (now - self.filled) * self.rate.per_second)
        self.filled = now
        cost = min(cost, self.rate.burst)
        if self.tokens + 1e-3 >= cost:
            self.tokens -= cost
            return 0.0
        return (cost - self.tokens) / self.rate.per_second


class AgainstPails(RuleBasedStateMachine):
    """Buckets, forgotten and all, do as pails that are kept for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.rate = Rate("30/min burst 4")
        self.buckets = Buckets(self.rate, self.clock)
        self.buckets._look = 2  # so that it forgets all the time
        self.pails: dict[int, Pail] = {}

    @rule(key=st.integers(0, 5), cost=st.sampled_from([1.0, 2.0, 0.25, 3.5, 40.0]))
    def take(self, key: int, cost: float) -> None:
        pail = self.pails.setdefault(key, Pail(self.rate, self.rate.burst, self.clock.now))
        expected = pail.take(self.clock.now, cost)
        assert self.buckets.take(key, cost) == pytest.approx(expected, abs=1e-4)
        self.buckets._look = 2

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 7.5, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def full_ones_are_forgotten(self) -> None:
        assert len(self.buckets) <= len(self.pails)


TestAgainstPails = AgainstPails.TestCase


@given(st.integers(1, 1000), st.integers(1, 1000), st.floats(0, 1e6))
def test_who_waits_as_told_may(per_second: int, burst: int, now: float) -> None:
    clock = Clock(now)
    buckets = Buckets(Rate(f"{per_second}/s burst {burst}"), clock)
    for _ in range(burst):
        assert buckets.take("a") == 0
    wait = buckets.take("a")
    assert wait == pytest.approx(1 / per_second, rel=2e-3)
    clock.now += wait
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0


def test_buckets_are_bounded_and_the_emptiest_are_kept() -> None:
    clock = Clock()
    buckets = Buckets(Rate("1/s burst 10"), clock, most=2_000)
    for _ in range(10):
        assert buckets.take("flood") == 0
    for key in range(50_000):
        assert buckets.take(key) == 0
        assert len(buckets) <= 2_000
    assert buckets.take("flood") > 0
    clock.now += 100
    for key in range(2_000):
        buckets.take(-key)
    assert len(buckets) <= 2_000


def test_no_limit_keeps_nothing() -> None:
    buckets = Buckets(OFF, Clock())
    assert not any(buckets.take("a", 1e9) for _ in range(100))
    assert not len(buckets)


def test_a_user_and_all_of_an_address() -> None:
    clock = Clock()
    limits = Limits({"prompt": Rate("1/s burst 2")}, sockets=1, crowd=2, clock=clock)
    ada, ben, eve = (limits.allowance(name, "203.0.113.5") for name in ("ada", "ben", "eve"))
    assert ada
    assert ben
    assert eve
    for user in (ada, ada, ben, ben):
        user.take("prompt")
        user.take("room", 1e9)  # no limit
    with pytest.raises(TooMany) as refusal:
        eve.take("prompt")  # the address is used up
    assert refusal.value.code == "too_fast"
    assert refusal.value.retry_after == pytest.approx(0.5)
    assert "try again in 1 second." in str(refusal.value)
    elsewhere = limits.allowance("ada", "203.0.113.6")
    assert elsewhere
    with pytest.raises(TooMany):
        elsewhere.take("prompt")  # the user is used up, wherever they are
    clock.now += 0.5
    for _ in range(50):  # what one user is refused does not count against the others
        with pytest.raises(TooMany):
            ada.take("prompt")
    other = limits.allowance("zoe", "203.0.113.5")
    assert other
    other.take("prompt")


def test_strangers_are_limited_by_address() -> None:
    limits = Limits({"login": Rate("1/s")}, sockets=1, crowd=3, clock=Clock())
    for last in range(3):
        limits.take("login", f"2001:db8::{last}")
    with pytest.raises(TooMany):
        limits.take("login", "2001:db8::ffff:1")
    limits.take("login", "2001:db8:0:1::1")
    for _ in range(10):
        limits.take("login", "127.0.0.1")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", None),
        ("127.8.8.8", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_by_what_an_address_is_counted(address: str, network: str | None) -> None:
    assert network_of(address) == network


def test_sockets_of_a_user_and_of_an_address() -> None:
    limits = Limits({}, sockets=2, crowd=2, clock=Clock())
    ada, ben, eve = (limits.allowance(name, "203.0.113.5") for name in ("ada", "ben", "eve"))
    assert ada
    assert ben
    assert eve
    for user in (ada, ada, ben):
        user.enter()
    with pytest.raises(TooMany, match="You have too many"):
        ada.enter()
    ben.enter()
    with pytest.raises(TooMany, match="from where you are"):
        eve.enter()
    ben.leave()
    eve.enter()
    for user in (ada, ada, ben, eve):
        user.leave()
    assert [len(places) for places in limits.places] == [0, 0]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
def test_places(moves: list[tuple[bool, str]]) -> None:
    places = Places(2)
    inside = {"a": 0, "b": 0, "c": 0}
    for enters, key in moves:
        if enters:
            assert places.enter(key) is (inside[key] < 2)
            inside[key] = min(inside[key] + 1, 2)
        elif inside[key]:
            places.leave(key)
            inside[key] -= 1
    assert len(places) == sum(1 for count in inside.values() if count)
