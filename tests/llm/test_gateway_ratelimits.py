import time
from datetime import UTC, datetime

import pytest

from llm.call import Model
from llm.faults import retry_after
from llm.gateway import open_gateway
from llm.openai import OpenAI
from llm.ratelimits import reset_after
from tests.llm.scripted import Scripted, ask, hear
from tests.llm.servers import LAST_CHUNK, chunk, head, serving
from tests.llm.test_openai import ChatDialect


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("20ms", 0.02),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400),
        ("59.931s", 59.931),
        ("", None),
        ("soon", None),
        ("5", None),
        ("-1s", None),
    ],
)
def test_durations_as_openai_writes_them(text: str, seconds: float | None) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": text}
    assert reset_after(headers) == (seconds if seconds is None else pytest.approx(seconds))


def test_times_as_anthropic_writes_them() -> None:
    def headers(then: str) -> dict[str, str]:
        name = "anthropic-ratelimit-input-tokens"
        return {f"{name}-remaining": "0", f"{name}-reset": then}

    then = datetime.fromtimestamp(int(time.time()) + 30, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert reset_after(headers(then)) == pytest.approx(30, abs=5)
    assert reset_after(headers("2020-01-01T00:00:00Z")) == 0
    assert reset_after(headers("2020-01-01T00:00:00")) is None
    assert reset_after(headers("tomorrow")) is None


def test_only_what_is_used_up_counts_and_the_longest_of_it() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "9m",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "2s",
    }
    assert reset_after(headers) == 2
    assert retry_after(headers) == 2
    assert retry_after({**headers, "x-ratelimit-remaining-requests": "0"}) == 540
    assert retry_after({**headers, "retry-after": "7"}) == 7
    assert reset_after({}) is None


# ── told beside a reply ──────────────────────────────────────────────────────────────────

USED_UP = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "10s"}


async def test_a_limit_used_up_by_a_reply_is_waited_for(autojump_clock: object) -> None:
    async with serving() as server:
        body = (*map(chunk, ChatDialect().reply()), LAST_CHUNK)
        server.answer((head(200, **USED_UP), *body), (head(), *body))
        provider = OpenAI(key="", base_url=server.url, model="m")
        async with open_gateway([Model("m", provider)]) as gateway:
            first = await hear(gateway, ask("one"))
            assert (first.error, first.positions, first.at) == (None, [], 0)
            second = await hear(gateway, ask("two"))
            assert (second.error, second.positions, second.at) == (None, [1], 10)
            third = await hear(gateway, ask("three"))
            assert (third.error, third.at) == (None, 0)


async def test_one_used_up_for_long_sends_on_to_the_next_model(autojump_clock: object) -> None:
    async with serving() as server:
        body = (*map(chunk, ChatDialect().reply()), LAST_CHUNK)
        server.answer((head(200, **{**USED_UP, "x-ratelimit-reset-requests": "6h0m0s"}), *body))
        provider = OpenAI(key="", base_url=server.url, model="m")
        models = [Model("m", provider), Model("other", Scripted(name="other"))]
        async with open_gateway(models) as gateway:
            assert (await hear(gateway, ask("one"))).answered_by == "m"
            assert (await hear(gateway, ask("two"))).answered_by == "other"
            assert len(server.asked) == 1
