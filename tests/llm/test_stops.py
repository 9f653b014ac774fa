from hypothesis import given
from hypothesis import strategies as st

from llm.stops import Stops

LETTERS = st.text("ab\n", max_size=12)


@given(st.lists(LETTERS, max_size=8), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_ends_where_a_stop_begins_however_it_is_cut(pieces: list[str], stops: list[str]) -> None:
    filtered = Stops(tuple(stops))
    found = ""
    for piece in pieces:
        found += filtered.feed(piece)
        if filtered.hit:
            break
    found += filtered.end()
    whole = "".join(pieces)
    assert whole.startswith(found)
    assert not any(stop in found for stop in stops)
    assert filtered.hit == any(stop in whole for stop in stops)
    if filtered.hit:
        assert any(whole[len(found) :].startswith(stop) for stop in stops)
    else:
        assert found == whole


def test_holds_back_no_more_than_it_must() -> None:
    stops = Stops(("\nBob:", "END"))
    assert stops.feed("Well") == "Well"
    assert stops.feed("\nBo") == ""
    assert stops.feed("at E") == "\nBoat "
    assert stops.end() == "E"
