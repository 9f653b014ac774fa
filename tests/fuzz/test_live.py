"""A running hub on a real port, spoken to by strangers: it answers or closes, and goes on."""

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import shapes
from tests.fuzz.targets import fuzz_frames, fuzz_http, no_complaints, well
from tests.hubs import running_hub

# Each example has a hub of its own, and up to ten strangers at once.
bounded = settings(
    max_examples=30,
    deadline=None,  # a busy machine proves nothing
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.timeout(120)
@bounded
@given(said=st.lists(shapes.requests | st.binary(max_size=500), min_size=1, max_size=10))
async def test_http(said: list[bytes]) -> None:
    with no_complaints():
        async with running_hub() as running:
            async with trio.open_nursery() as nursery:
                for data in said:
                    nursery.start_soon(fuzz_http, running, data)
            await well(running)


@pytest.mark.timeout(120)
@bounded
@given(said=st.lists(shapes.frames, min_size=1, max_size=10))
async def test_frames(said: list[bytes]) -> None:
    with no_complaints():
        async with running_hub() as running:
            async with trio.open_nursery() as nursery:
                for data in said:
                    nursery.start_soon(fuzz_frames, running, data)
            await well(running)


async def test_the_watch_is_kept() -> None:
    """Else the tests above would pass whatever was logged."""
    with pytest.raises(AssertionError, match="oh no"), no_complaints():
        import logging

        logging.getLogger("hub.client").error("oh no")
