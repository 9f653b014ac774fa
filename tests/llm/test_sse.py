from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm.sse import MAX_EVENT, Events, EventTooLargeError

BODIES = st.lists(st.sampled_from(["{}", "grün", "a b", "🌲", '{"x": 1}']), max_size=6)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def fed(stream: bytes, cuts: list[int]) -> list[bytes]:
    events = Events()
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    found = []
    for start, end in pairwise(places):
        found += events.feed(stream[start:end])
    return [event.strip() for event in found + events.end()]


@given(BODIES, ENDS, st.lists(st.integers(0, 1000)))
def test_gives_what_was_put_in_however_it_is_cut(
    bodies: list[str], end: str, cuts: list[int]
) -> None:
    stream = "".join(f"event: e{end}data: {body}{end}: hm{end}{end}" for body in bodies)
    assert fed(stream.encode(), cuts) == [body.encode() for body in bodies]


PARTS = st.lists(
    st.sampled_from([b"data: a", b"data", b": c", b"\r", b"\n", b"\xff", b"\xef\xbb\xbf"])
)


@given(PARTS, st.lists(st.integers(0, 300), max_size=8))
@example([b"data: a", b"\r", b"\n", b"data: a"], [8])
def test_anything_is_the_same_however_it_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    assert fed(stream, cuts) == fed(stream, [])


def test_lines_of_data_are_joined() -> None:
    assert Events().feed(b"data: a\ndata:b\ndata\ndata:  c\n\n") == [b"a\nb\n\n c"]


def test_what_has_no_data_is_no_event() -> None:
    events = Events()
    assert events.feed(b": comment\n\nevent: x\nid: 7\n\nretry: 3\n\n\n\ndataset: 1\n\n") == []
    assert events.count == 0


def test_an_event_may_be_large_but_not_endless() -> None:
    events = Events()
    assert events.feed(b"data:" + b"x" * (MAX_EVENT - 5)) == []
    with pytest.raises(EventTooLargeError):
        events.feed(b"y")
