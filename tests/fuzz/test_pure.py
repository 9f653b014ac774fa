"""Parsers of what strangers send, under anything that Hypothesis can think of."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import shapes
from tests.fuzz.targets import PURE

bounded = settings(
    max_examples=400,
    deadline=None,  # a busy machine proves nothing
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("name", sorted(PURE))
@bounded
@given(data=st.binary(max_size=2_000))
def test_any_bytes(name: str, data: bytes) -> None:
    PURE[name](data)


@bounded
@given(shapes.calls, shapes.chances)
def test_tuples(call: object, chance: random.Random) -> None:
    PURE["tuples"](shapes.as_json(call))
    PURE["tuples"](shapes.damaged(shapes.as_json(call), chance))


@bounded
@given(shapes.games, shapes.chances)
def test_objects(game: object, chance: random.Random) -> None:
    PURE["objects"](shapes.as_json(game))
    PURE["objects"](shapes.damaged(shapes.as_json(game), chance))


@bounded
@given(shapes.cards, shapes.chances)
def test_cards(card: object, chance: random.Random) -> None:
    PURE["cards"](shapes.as_json(card))
    PURE["cards"](shapes.damaged(shapes.as_json(card), chance))


@bounded
@given(shapes.markdown)
def test_markup(text: str) -> None:
    PURE["markup"](text.encode(errors="replace"))


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"type":' * 50_000, '["ping",' + "[" * 50_000])
@pytest.mark.parametrize("name", ["tuples", "objects", "cards"])
def test_towers(name: str, nested: str) -> None:
    PURE[name](nested.encode())
