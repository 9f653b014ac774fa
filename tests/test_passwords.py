"""Passwords: what is kept of them, and that nobody waits for them but who asked."""

import threading

import argon2
import pytest
import trio
import trio.testing

from hub.errors import BadRequest, Unavailable
from hub.passwords import AT_ONCE, LONGEST, MOST_WAITING, PARAMETERS, Passwords
from tests.cheap import CHEAP


async def test_only_the_right_password_is_right() -> None:
    some = Passwords(CHEAP)
    hashed = await some.hash("correct horse")
    assert (await some.verify(hashed, "correct horse")).right
    assert not (await some.verify(hashed, "correct horsf")).right
    assert not (await some.verify(hashed, "")).right
    assert not (await some.verify(None, "correct horse")).right
    assert not (await some.verify("not a hash", "correct horse")).right
    assert await some.hash("correct horse") != hashed  # a salt of its own


def test_parameters_are_those_of_the_rfc() -> None:
    assert PARAMETERS.type is argon2.Type.ID
    assert PARAMETERS.memory_cost == 64 * 1024
    assert PARAMETERS.time_cost == 3


async def test_the_same_letters_typed_otherwise_are_the_same_password() -> None:
    some = Passwords(CHEAP)
    hashed = await some.hash("Zoe\u0308 and the sea")
    assert (await some.verify(hashed, "Zo\u00eb and the sea")).right


async def test_a_hash_of_other_parameters_is_made_anew() -> None:
    old = await Passwords(CHEAP).hash("correct horse")
    stronger = argon2.Parameters(argon2.Type.ID, 19, 16, 32, 2, 16, 1)
    verdict = await Passwords(stronger).verify(old, "correct horse")
    assert verdict.right
    assert verdict.fresh is not None
    assert "t=2" in verdict.fresh
    again = await Passwords(stronger).verify(verdict.fresh, "correct horse")
    assert again.right
    assert again.fresh is None
    assert (await Passwords(stronger).verify(old, "wrong")).fresh is None


@pytest.mark.parametrize(
    ("password", "code"), [("1234567", "short_password"), ("x" * (LONGEST + 1), "too_long")]
)
async def test_a_bad_password_is_refused_in_words(password: str, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        await Passwords(CHEAP).hash(password)
    assert refused.value.code == code


async def test_what_is_too_long_is_not_cut_until_it_fits() -> None:
    some = Passwords(CHEAP)
    hashed = await some.hash("x" * LONGEST)
    assert not (await some.verify(hashed, "x" * (LONGEST + 1))).right
    assert not (await some.verify(hashed, "x" * 100_000)).right


async def test_an_unknown_name_costs_a_comparison_too(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    verify = argon2.PasswordHasher.verify

    def counting(self: argon2.PasswordHasher, hash: str, password: bytes) -> bool:
        compared.append(hash)
        return verify(self, hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counting)
    some = Passwords(CHEAP)
    hashed = await some.hash("correct horse")
    await some.verify(hashed, "wrong")
    await some.verify(None, "wrong")
    assert [one.rpartition("$")[0].rpartition("$")[0] for one in compared] == [
        "$argon2id$v=19$m=8,t=1,p=1"
    ] * 2


async def test_others_go_on_while_a_password_is_hashed() -> None:
    # Ratio, no clock: while a few real hashes are made, this task gets to run many times.
    some = Passwords()
    turns = 0
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            for _ in range(2):
                await some.hash("correct horse")
            nursery.cancel_scope.cancel()

        nursery.start_soon(work)
        while not nursery.cancel_scope.cancel_called:
            await trio.sleep(0.001)
            turns += 1
    assert turns > 20


async def test_few_are_hashed_at_once_and_not_too_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, lock = threading.Event(), threading.Lock()
    both = threading.Barrier(AT_ONCE)  # as many must be at it at once for any to go on
    busy = most = 0

    def slow(_self: object, _password: bytes) -> str:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        assert go.wait(10)
        both.wait(10)
        with lock:
            busy -= 1
        return "hash"

    monkeypatch.setattr(argon2.PasswordHasher, "hash", slow)
    assert MOST_WAITING % AT_ONCE == 0
    some = Passwords(CHEAP)
    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE + MOST_WAITING):
            nursery.start_soon(some.hash, "correct horse")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Unavailable) as refused:
            await some.hash("correct horse")
        assert refused.value.retry_after
        go.set()
    assert most == AT_ONCE
