"""The log: dense offsets, one encoding for all, a bounded window, places told the truth."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.events import Event, Token
from hub.log import CHUNK, Behind, Log
from hub.wire.tuples import TUPLES, Tuples


class Counting(Tuples):
    """Counts how often an event is encoded."""

    def __init__(self) -> None:
        self.calls = 0

    def event(self, room: str, offset: int | None, inbox: bool, event: Event) -> bytes:
        self.calls += 1
        return super().event(room, offset, inbox, event)


class Silent(Tuples):
    """A language that has no words for anything."""

    def event(self, room: str, offset: int | None, inbox: bool, event: Event) -> bytes:
        return b""


def make(window: int = 1 << 20) -> Log:
    return Log(TUPLES, window, lambda _log: None)


def read_all(log: Log, offset: int = 0) -> bytes:
    frames = b""
    while offset < log.head:
        data, offset = log.after(offset, TUPLES)
        frames += data
    return frames


def test_offsets_rise_by_one_from_one() -> None:
    log = make()
    assert log.head == 0
    assert [log.append("r", Token("m", str(n))) for n in range(5)] == [1, 2, 3, 4, 5]
    assert b'"offset":5' in log.after(4, TUPLES)[0]


def test_an_event_is_encoded_once_for_all_readers_of_a_language() -> None:
    counting = Counting()
    log = Log(counting, 1 << 20, lambda _log: None)
    log.append("r", Token("m", "x"))
    log.append("r", Token("m", "y"))
    for _ in range(100):
        log.after(0, counting)
        log.after(1, counting)
    assert counting.calls == 2


def test_readers_at_the_same_place_get_the_same_bytes_object() -> None:
    log = make()
    for n in range(10):
        log.append("r", Token("m", str(n)))
    first, _ = log.after(3, TUPLES)
    second, _ = log.after(3, TUPLES)
    assert first is second
    log.append("r", Token("m", "new"))
    assert b'"new"' in log.after(3, TUPLES)[0]


def test_a_reader_far_behind_gets_all_of_it_in_bounded_pieces() -> None:
    log = make(window=64 << 20)
    for n in range(3000):
        log.append("r", Token("m", f"{n:0100}"))
    data, offset = log.after(0, TUPLES)
    assert CHUNK <= len(data) < CHUNK + 1000
    assert offset < 3000
    assert read_all(log) == b"".join(log.after(n, TUPLES)[0] for n in [0]) + read_all(log, offset)


def test_the_window_drops_the_oldest_and_says_so() -> None:
    log = make(window=4096)
    for n in range(200):
        log.append("r", Token("m", str(n)))
    assert log.head == 200
    assert log.dropped > 100
    assert not log.holds(log.epoch, log.dropped - 1)
    assert log.holds(log.epoch, log.dropped)
    assert log.holds(log.epoch, log.head)
    assert not log.holds(log.epoch, log.head + 1)
    assert not log.holds("another", log.head)
    with pytest.raises(Behind):
        log.after(log.dropped - 1, TUPLES)


def test_one_event_larger_than_the_window_still_reaches_who_keeps_up() -> None:
    log = make(window=4096)
    log.append("r", Token("m", "x" * 100_000))
    assert len(log.after(0, TUPLES)[0]) > 100_000


def test_a_language_without_words_for_an_event_moves_on() -> None:
    silent = Silent()
    log = make()
    log.append("r", Token("m", "x"))
    assert log.after(0, silent) == (b"", 1)


@settings(max_examples=200)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=80), st.integers(1500, 20_000), st.data())
def test_a_reader_sees_every_event_once_in_order_or_is_told(
    sizes: list[int], window: int, data: st.DataObject
) -> None:
    log = make(window)
    seen, place = b"", 0
    expected = b""
    for n, size in enumerate(sizes):
        log.append("r", Token("m", f"{n}:" + "x" * size))
        expected += TUPLES.event("r", n + 1, False, Token("m", f"{n}:" + "x" * size))
        if data.draw(st.booleans()):
            try:
                while place < log.head:
                    piece, place = log.after(place, TUPLES)
                    seen += piece
            except Behind:
                assert not log.holds(log.epoch, place)
                return
    assert log.holds(log.epoch, place) == (place >= log.dropped)
    assert expected.startswith(seen)
    if log.holds(log.epoch, place):
        assert seen + read_all(log, place) == expected
