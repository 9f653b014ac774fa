"""Guessing is made slow."""

from hypothesis import given
from hypothesis import strategies as st

from hub.patience import ADDRESSES, NAMES, Limits, Patience, neighbourhood

LIMITS = Limits(free=3, first=1.0, longest=60.0, memory=600.0, keys=4)


def test_waits_double_up_to_the_longest() -> None:
    patience, now, waits = Patience(LIMITS), 0.0, []
    for _ in range(12):
        patience.attempt("ada", now)
        waits.append(patience.wait("ada", now))
        now += waits[-1]
        assert patience.wait("ada", now) == 0.0
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_wait_gets_shorter_as_time_goes_by() -> None:
    patience = Patience(LIMITS)
    for _ in range(5):
        patience.attempt("ada", 100.0)
    assert patience.wait("ada", 100.0) == 4.0
    assert patience.wait("ada", 103.0) == 1.0
    assert patience.wait("bob", 103.0) == 0.0


def test_attempts_at_the_same_moment_count_each() -> None:
    patience = Patience(LIMITS)
    let_in = 0
    for _ in range(100):
        if not patience.wait("ada", 5.0):
            patience.attempt("ada", 5.0)
            let_in += 1
    assert let_in == 3


def test_who_succeeds_is_forgiven_one_or_all() -> None:
    patience = Patience(LIMITS)
    for _ in range(4):
        patience.attempt("ada", 0.0)
    patience.forgive("ada", all=False)
    assert patience.wait("ada", 0.0) == 1.0
    patience.forgive("ada", all=True)
    assert patience.wait("ada", 0.0) == 0.0
    assert len(patience) == 0
    patience.forgive("ada", all=True)


def test_quiet_keys_are_forgotten_by_time_and_by_number() -> None:
    patience = Patience(LIMITS)
    for _ in range(9):
        patience.attempt("ada", 0.0)
    assert patience.wait("ada", 600.0) == 0.0
    for n in range(50):
        patience.attempt(f"name {n}", 700.0 + n)
    assert len(patience) == LIMITS.keys


def test_a_guesser_gets_few_tries_a_day() -> None:
    for limits, most in ((NAMES, 3000), (ADDRESSES, 150)):
        patience, now, tries = Patience(limits), 0.0, 0
        while now < 86_400:
            patience.attempt("ada", now)
            tries += 1
            now += max(patience.wait("ada", now), 0.001)
        assert tries < most


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 1000)), max_size=60))
def test_no_wait_is_negative_or_too_long(events: list[tuple[str, float]]) -> None:
    patience, now = Patience(LIMITS), 0.0
    for key, pause in events:
        now += pause
        if patience.wait(key, now) == 0.0:
            patience.attempt(key, now)
        assert 0.0 <= patience.wait(key, now) <= LIMITS.longest
        assert len(patience) <= LIMITS.keys


def test_of_ipv6_a_whole_network_is_one_address() -> None:
    assert neighbourhood("2001:db8:1:2::1") == neighbourhood("2001:db8:1:2:ffff::9")
    assert neighbourhood("2001:db8:1:2::1") != neighbourhood("2001:db8:1:3::1")
    assert neighbourhood("::ffff:192.0.2.1") == neighbourhood("192.0.2.1") == "192.0.2.1"
    assert neighbourhood("fe80::1%eth0") == "fe80::/64"
    assert neighbourhood("somewhere") == "somewhere"
