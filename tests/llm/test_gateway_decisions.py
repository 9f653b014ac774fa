"""The pure parts: what follows from an error, how long to pause, what to drop, the breaker."""

import random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.breaker import Breaker, BreakerSettings
from llm.provider import ChatMessage, Fault, ModelError, Request
from llm.retry import (
    AGAIN,
    NEXT,
    Again,
    Next,
    Patience,
    Shorter,
    Step,
    Tell,
    Tries,
    Unavailable,
    decide,
    pause,
    shortened,
    tokens_in,
)

P = Patience()


def after(fault: Fault, retry_after: float | None = None, left: float = 100, **tries: int) -> Step:
    error = ModelError(fault, "No.", retry_after=retry_after)
    return decide(error, Tries(**{"asked": 1, "here": 1, **tries}), P, left, random.Random(1))  # type: ignore[arg-type]


def test_every_fault_is_classed() -> None:
    rest = set(get_args(Fault)) - AGAIN - NEXT
    assert rest == {"too_long", "refused", "policy"}
    assert not AGAIN & NEXT


@pytest.mark.parametrize("fault", sorted(AGAIN))
def test_what_may_pass_is_tried_again_and_then_elsewhere(fault: Fault) -> None:
    assert isinstance(after(fault), Again)
    assert after(fault, here=3) == Tell()
    assert after(fault, here=3, more=True) == Next()
    assert after(fault, here=3, asked=6, more=True) == Tell()
    assert after(fault, begun=True, more=True) == Tell()


@pytest.mark.parametrize("fault", sorted(NEXT))
def test_what_will_not_pass_is_tried_elsewhere(fault: Fault) -> None:
    assert after(fault, more=True) == Next()
    assert after(fault) == Tell()


def test_too_long_is_tried_once_shorter() -> None:
    assert after("too_long") == Shorter()
    assert after("too_long", shortened=True, more=True) == Next()
    assert after("too_long", shortened=True) == Tell()


def test_a_pause_that_is_too_long_is_none() -> None:
    assert after("busy", retry_after=20.1, more=True) == Next()
    assert after("busy", retry_after=20.1) == Tell()
    assert after("busy", retry_after=5, left=5) == Tell()
    assert isinstance(after("busy", retry_after=5, left=6), Again)


def test_who_is_not_let_through_goes_elsewhere_or_waits() -> None:
    def unavailable(retry_after: float | None, *, more: bool) -> Step:
        error = Unavailable("overloaded", "No.", retry_after=retry_after)
        return decide(error, Tries(0, 1, more=more), P, 100, random.Random(1))

    assert unavailable(5, more=True) == Next()
    assert isinstance(unavailable(5, more=False), Again)
    assert unavailable(None, more=False) == Tell()  # the queue is full


@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_pauses_are_anything_up_to_a_bound_that_doubles(tries: int, chance: random.Random) -> None:
    seconds = pause(None, tries, P, chance)
    assert seconds is not None
    assert 0 <= seconds <= min(P.longest_pause, P.first_pause * 2 ** (tries - 1))


@given(st.floats(0, 20), st.integers(1, 30), st.randoms(use_true_random=False))
def test_no_pause_is_shorter_than_what_was_asked_for(
    asked: float, tries: int, chance: random.Random
) -> None:
    seconds = pause(asked, tries, P, chance)
    assert seconds is not None
    assert asked <= seconds <= asked + P.first_pause


def test_the_same_chance_makes_the_same_pauses() -> None:
    one, two = ([pause(None, n, P, random.Random(7)) for n in range(1, 5)] for _ in range(2))
    assert one == two


Prompts = st.lists(
    st.builds(ChatMessage, st.sampled_from(["system", "user", "assistant"]), st.text(max_size=80)),
    min_size=1,
    max_size=12,
)


@given(Prompts, st.none() | st.integers(1, 300))
def test_shortening_drops_the_oldest_and_keeps_rules_and_the_newest(
    messages: list[ChatMessage], context: int | None
) -> None:
    request = Request(tuple(messages), max_tokens=10)
    shorter = shortened(request, context)
    said = [m for m in messages if m.role != "system"]
    if shorter is None:
        assert len(said) <= 1 or tokens_in(tuple(messages)) <= 1
        return
    kept = [m for m in shorter.messages if m.role != "system"]
    assert 0 < len(kept) < len(said)
    assert kept == said[-len(kept) :]
    assert [m for m in shorter.messages if m.role == "system"] == [
        m for m in messages if m.role == "system"
    ]


B = BreakerSettings(failures=3, share=0.5, window=10, rest=5)


def failing(breaker: Breaker, now: float) -> None:
    attempt = breaker.enter(now)
    assert attempt is not None
    attempt.failed(now)
    attempt.left()


def test_a_breaker_opens_rests_probes_and_closes() -> None:
    breaker = Breaker(B)
    for now in (0, 1, 2):
        assert breaker.state(now) == "closed"
        failing(breaker, now)
    assert (breaker.state(2), breaker.rest(3), breaker.enter(3)) == ("open", 4, None)
    assert (breaker.state(7), breaker.rest(7)) == ("half-open", 0)
    probe = breaker.enter(7)
    assert probe is not None
    assert breaker.enter(7) is None  # one at a time
    probe.succeeded(8)
    assert breaker.state(8) == "closed"


def test_a_probe_that_fails_opens_it_again() -> None:
    breaker = Breaker(B)
    for _ in range(3):
        failing(breaker, 0)
    failing(breaker, 5)
    assert (breaker.state(5), breaker.rest(6)) == ("open", 4)


def test_a_probe_that_is_stopped_lets_the_next_one_probe() -> None:
    breaker = Breaker(B)
    for _ in range(3):
        failing(breaker, 0)
    probe = breaker.enter(5)
    assert probe is not None
    probe.left()
    assert breaker.enter(5) is not None


def test_calls_from_before_it_opened_neither_close_nor_open_it() -> None:
    breaker = Breaker(B)
    early, late = breaker.enter(0), breaker.enter(0)
    for _ in range(3):
        failing(breaker, 0)
    assert early is not None
    assert late is not None
    probe = breaker.enter(5)
    early.succeeded(6)
    assert breaker.enter(6) is None  # the probe is still out
    late.failed(6)
    assert breaker.state(6) == "half-open"
    assert probe is not None
    probe.succeeded(6)
    assert breaker.state(6) == "closed"


def test_old_failures_and_few_among_many_do_not_open_it() -> None:
    breaker = Breaker(B)
    for now in (0, 1, 12):
        failing(breaker, now)
    assert breaker.state(12) == "closed"
    for _ in range(100):
        attempt = breaker.enter(13)
        assert attempt is not None
        attempt.succeeded(13)
    for _ in range(10):
        failing(breaker, 14)
    assert breaker.state(14) == "closed"
