"""Attempts, fail-over, deadlines: what a call does until it has its one end."""

import logging
import random
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import wait_all_tasks_blocked

from llm.breaker import BreakerSettings
from llm.call import Model
from llm.gateway import Gateway, GatewaySettings, open_gateway
from llm.provider import Answering, ChatMessage, Fault, Request, SetupError, Usage
from llm.retry import Patience
from tests.llm.scripted import (
    ANSWER,
    DONE,
    FOREVER,
    Heard,
    Script,
    Scripted,
    ask,
    error,
    hear,
    model,
)

NEVER_OPENS = BreakerSettings(failures=10_000)


async def heard(
    *providers: Scripted, settings: GatewaySettings | None = None, **request: Any
) -> Heard:
    """One question to these models."""
    async with open_gateway(list(map(model, providers)), settings, chance=random.Random(1)) as g:
        return await hear(g, ask(**request))


async def test_says_who_answers_and_then_the_reply(autojump_clock: object) -> None:
    heard_ = await heard(Scripted(name="fast"))
    assert heard_.items[:2] == (Answering("fast", "maker of fast", demo=False), "Hello.")
    assert heard_.text == "Hello."
    assert heard_.usage is not None
    assert heard_.usage.model == "m"


@pytest.mark.parametrize(
    "fault", ["broken", "busy", "overloaded", "unreachable", "stalled", "garbled", "cut"]
)
async def test_a_hiccup_is_not_seen(fault: Fault, autojump_clock: object) -> None:
    provider = Scripted((error(fault),), ANSWER)
    assert (await heard(provider)).text == "Hello."
    assert len(provider.asked) == 2


@pytest.mark.parametrize("fault", ["refused", "policy"])
async def test_what_is_wrong_with_the_question_is_told(
    fault: Fault, autojump_clock: object
) -> None:
    first, second = Scripted((error(fault),), ANSWER, name="a"), Scripted(name="b")
    assert (await heard(first, second)).fault == fault
    assert (len(first.asked), len(second.asked)) == (1, 0)


@pytest.mark.parametrize("fault", ["key", "not_found"])
async def test_a_model_that_cannot_is_replaced_at_once(
    fault: Fault, autojump_clock: object
) -> None:
    first, second = Scripted((error(fault),), name="a"), Scripted(name="b")
    heard_ = await heard(first, second)
    assert heard_.answering == Answering("b", "maker of b", demo=False)
    assert (len(first.asked), heard_.at) == (1, 0)


async def test_a_model_that_is_down_is_replaced_after_its_attempts(autojump_clock: object) -> None:
    first, second = Scripted((error("broken"),), name="a"), Scripted(name="b")
    assert (await heard(first, second)).text == "Hello."
    assert len(first.asked) == Patience().attempts_each


async def test_the_last_error_is_told_when_all_are_down(autojump_clock: object) -> None:
    first, second = Scripted((error("broken"),), name="a"), Scripted((error("key"),), name="b")
    heard_ = await heard(first, second)
    assert heard_.fault == "key"
    assert str(heard_.error) == "It is key."


async def test_attempts_are_bounded_over_all_models(autojump_clock: object) -> None:
    models = [Scripted((error("broken"),), name=name) for name in "abcd"]
    settings = GatewaySettings(patience=Patience(attempts=7, attempts_each=3))
    assert (await heard(*models, settings=settings)).fault == "broken"
    assert [len(m.asked) for m in models] == [3, 3, 1, 0]


async def test_attempts_are_counted_for_each_call_alone(autojump_clock: object) -> None:
    provider = Scripted((error("broken"),))
    settings = GatewaySettings(breaker=NEVER_OPENS)
    async with open_gateway([model(provider)], settings) as gateway, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(hear, gateway, ask(str(number)))
    assert len(provider.asked) == 30


async def test_after_the_first_text_nothing_is_tried_again(autojump_clock: object) -> None:
    first, second = Scripted(("Hel", error("cut")), ANSWER, name="a"), Scripted(name="b")
    heard_ = await heard(first, second)
    assert (heard_.text, heard_.fault) == ("Hel", "cut")
    assert (len(first.asked), len(second.asked)) == (1, 0)


async def test_an_error_after_the_end_does_no_harm(autojump_clock: object) -> None:
    provider = Scripted((DONE, error("cut")))
    heard_ = await heard(provider)
    assert (heard_.error, len(provider.asked)) == (None, 1)


async def test_pauses_are_as_the_other_side_wants_them(autojump_clock: object) -> None:
    provider = Scripted((error("busy", 7.0),), ANSWER)
    assert 7 <= (await heard(provider)).at <= 7.5


async def test_whoever_wants_to_be_left_alone_for_long_is_passed_over(
    autojump_clock: object,
) -> None:
    first, second = Scripted((error("busy", 60.0),), name="a"), Scripted(name="b")
    heard_ = await heard(first, second)
    assert (heard_.text, heard_.at, len(first.asked)) == ("Hello.", 0, 1)
    alone = await heard(Scripted((error("busy", 60.0),)))
    assert alone.error is not None
    assert alone.fault == "busy"
    assert alone.error.retry_after == 60


async def test_others_leave_it_alone_as_well(autojump_clock: object) -> None:
    provider = Scripted((error("busy", 60.0),), ANSWER)
    async with open_gateway([model(provider)]) as gateway:
        await hear(gateway, ask("a"))
        heard_ = await hear(gateway, ask("b"))
        assert heard_.fault == "busy"
        assert heard_.error is not None
        assert heard_.error.retry_after == 60
        await trio.sleep(60)
        assert (await hear(gateway, ask("b"))).text == "Hello."
    assert len(provider.asked) == 2


async def test_who_waits_is_told_when_the_model_wants_rest(autojump_clock: object) -> None:
    first = Scripted((1.0, error("busy", 60.0)), name="a")
    second = Scripted(name="b")
    models = [evolve(model(first), limits=evolve(Model("x", first).limits, calls=1)), model(second)]
    async with open_gateway(models) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(hear, gateway, ask("1"))
        await wait_all_tasks_blocked()
        heard_ = await hear(gateway, ask("2"))
        assert (heard_.text, heard_.at) == ("Hello.", 1)


async def test_a_prompt_that_is_too_long_loses_its_oldest(autojump_clock: object) -> None:
    provider = Scripted((error("too_long"),), ANSWER)
    said = [ChatMessage("user", f"{n} " + "word " * 20) for n in range(10)]
    messages = (ChatMessage("system", "Rules."), *said)
    assert (await heard(provider, messages=messages)).text == "Hello."
    kept = provider.asked[1].messages
    assert kept[0].role == "system"
    assert kept[-1] == messages[-1]
    assert 3 <= len(kept) <= 6


async def test_it_is_shortened_once(autojump_clock: object) -> None:
    provider = Scripted((error("too_long"),))
    messages = tuple(ChatMessage("user", "word " * 20) for _ in range(10))
    assert (await heard(provider, messages=messages)).fault == "too_long"
    assert len(provider.asked) == 2


async def test_a_single_message_cannot_be_shortened(autojump_clock: object) -> None:
    provider = Scripted((error("too_long"),))
    assert (await heard(provider)).fault == "too_long"
    assert len(provider.asked) == 1


async def test_the_whole_has_a_deadline(autojump_clock: object) -> None:
    silent = Scripted((FOREVER,))
    heard_ = await heard(silent, settings=GatewaySettings(whole=100))
    assert (heard_.fault, heard_.at, silent.open) == ("stalled", 100, 0)


async def test_a_reply_that_never_ends_is_ended(autojump_clock: object) -> None:
    heard_ = await heard(Scripted(("Hel", FOREVER)), settings=GatewaySettings(whole=100))
    assert (heard_.text, heard_.fault, heard_.at) == ("Hel", "stalled", 100)


async def test_no_pause_goes_beyond_the_deadline(autojump_clock: object) -> None:
    provider = Scripted((2.0, error("busy", 9.0)))
    heard_ = await heard(provider, settings=GatewaySettings(whole=10))
    assert (heard_.fault, heard_.at) == ("busy", 2)


async def test_a_reply_of_no_bounds_is_ended(autojump_clock: object) -> None:
    heard_ = await heard(Scripted(("x" * 60,) * 3), settings=GatewaySettings(reply_chars=100))
    assert (heard_.text, heard_.fault) == ("x" * 60, "garbled")


async def test_a_provider_that_fails_otherwise_fails_only_its_call(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    class Bad(Scripted):
        def stream(self, request: Request):  # type: ignore[no-untyped-def]
            raise ZeroDivisionError

    async with open_gateway([model(Bad(name="a")), model(Scripted(name="b"))]) as gateway:
        heard_ = await hear(gateway, ask())
        assert str(heard_.error) == "Something went wrong on our side."
        assert [r.levelno for r in caplog.records] == [logging.ERROR]
        assert (await hear(gateway, ask(model="b"))).text == "Hello."


async def test_a_demo_that_stands_in_says_that_it_is_one(autojump_clock: object) -> None:
    demo = Scripted(name="demo", demo=True)
    heard_ = await heard(Scripted((error("key"),), name="a"), demo)
    assert heard_.answering == Answering("demo", "maker of demo", demo=True)


async def test_models_are_picked_by_name(autojump_clock: object) -> None:
    a, b, c = (Scripted(name=name) for name in "abc")
    async with open_gateway([model(a), model(b), model(c)]) as gateway:
        assert (gateway.name, gateway.model, gateway.demo) == ("maker of a", "a", False)
        assert (await hear(gateway, ask(model="b"))).answering == Answering(
            "b", "maker of b", False
        )
        assert b.asked[0].model is None  # the provider has its own name for it
        b.scripts = [(error("key"),)]
        assert (await hear(gateway, ask(model="b"))).answered_by == "c"
        unknown = await hear(gateway, ask(model="x"))
        assert str(unknown.error) == "There is no model x here. There are: a, b, c."


async def test_who_does_not_stand_in_is_asked_only_by_name(autojump_clock: object) -> None:
    a, b = Scripted((error("key"),), name="a"), Scripted(name="b")
    async with open_gateway([model(a), model(b, stands_in=False)]) as gateway:
        assert (await hear(gateway, ask())).fault == "key"
        assert (await hear(gateway, ask(model="b"))).text == "Hello."


async def test_a_provider_of_many_models_gets_the_name(autojump_clock: object) -> None:
    provider = Scripted(name="a")
    async with open_gateway([model(provider, by_name=True)]) as gateway:
        heard_ = await hear(gateway, ask(model="other"))
    assert provider.asked[0].model == "other"
    assert heard_.answering is not None
    assert heard_.answering.model == "other"


async def test_a_model_that_keeps_failing_is_left_alone_and_then_tried(
    autojump_clock: object,
) -> None:
    first, second = Scripted((error("broken"),), name="a"), Scripted(name="b")
    async with open_gateway([model(first), model(second)]) as gateway:
        for number in range(10):
            assert (await hear(gateway, ask(str(number)))).text == "Hello."
        assert len(first.asked) == BreakerSettings().failures
        assert gateway.status()[0].breaker == "open"
        first.scripts = [ANSWER]
        await trio.sleep(BreakerSettings().rest)
        assert gateway.status()[0].breaker == "half-open"
        assert (await hear(gateway, ask())).answered_by == "a"
        assert gateway.status()[0].breaker == "closed"


async def test_without_another_model_its_rest_is_waited_for(autojump_clock: object) -> None:
    provider = Scripted((error("broken"),))
    settings = GatewaySettings(breaker=BreakerSettings(failures=3, rest=10))
    async with open_gateway([model(provider)], settings) as gateway:
        assert (await hear(gateway, ask("1"))).fault == "broken"
        provider.scripts = [ANSWER]
        heard_ = await hear(gateway, ask("2"))
    assert (heard_.text, len(provider.asked)) == ("Hello.", 4)
    assert heard_.at >= 10


async def stopped_within_a_pass(gateway: Gateway, provider: Scripted) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, gateway, ask())
            await wait_all_tasks_blocked()
            assert (provider.open, gateway.calls) == (1, 1)
            scope.cancel()
    assert scope.cancelled_caught
    await trio.lowlevel.checkpoint()  # one pass of the scheduler
    assert (provider.open, gateway.calls) == (0, 0)


@pytest.mark.parametrize("script", [(FOREVER,), ("Hel", FOREVER)])
async def test_who_is_cancelled_closes_the_upstream_within_a_pass(
    script: Script, autojump_clock: object
) -> None:
    provider = Scripted(script)
    async with open_gateway([model(provider)]) as gateway:
        await stopped_within_a_pass(gateway, provider)


async def test_leaving_stops_the_pause_between_attempts(autojump_clock: object) -> None:
    provider = Scripted((error("broken"),))
    async with open_gateway([model(provider)]) as gateway:
        with trio.move_on_after(0.0001):
            await hear(gateway, ask())
        await trio.sleep(1000)
        assert (gateway.calls, len(provider.asked)) == (0, 1)


async def test_closing_ends_all_calls_with_an_error(autojump_clock: object) -> None:
    provider = Scripted(("Hel", FOREVER))
    async with open_gateway([model(provider)]) as gateway, trio.open_nursery() as nursery:
        ends = []

        async def listen() -> None:
            ends.append(await hear(gateway, ask()))

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        await gateway.aclose()
        await wait_all_tasks_blocked()
        assert [(e.text, e.fault) for e in ends] == [("Hel", "cut")]
        assert provider.closed
        assert (await hear(gateway, ask())).fault == "unreachable"


async def test_providers_are_closed_even_if_we_are_cancelled(autojump_clock: object) -> None:
    provider = Scripted()
    with trio.CancelScope() as scope:
        async with open_gateway([model(provider)]):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert provider.closed


@pytest.mark.parametrize("names", ["", "aa"])
async def test_models_need_names_of_their_own(names: str, autojump_clock: object) -> None:
    with pytest.raises(SetupError):
        async with open_gateway([model(Scripted(name=name)) for name in names]):
            pass


async def test_what_a_reply_took_is_counted_from_asking(autojump_clock: object) -> None:
    provider = Scripted((error("busy", 7.0),), (2.0, "Hel", 3.0, "lo.", DONE))
    usage = (await heard(provider)).usage
    assert isinstance(usage, Usage)
    assert usage.seconds_to_first == pytest.approx(9.25, abs=0.25)
    assert usage.seconds == pytest.approx(12.25, abs=0.25)
