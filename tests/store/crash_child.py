"""A program that stores messages as fast as it can, until it is killed.

Writes the id of every acknowledged message to `told`, in the order in which it was told.
"""

import os
from collections.abc import Callable

import trio
from msgspec.structs import replace

from hub.records import Message
from hub.store.contract import AddMessage, Outcome, SaveMessage, SaveRoom, Store
from hub.store.opening import open_store
from tests.store.making import message, room

WRITERS = 20


def main(where: str, cycle: int, told: int) -> None:
    trio.run(_main, where, cycle, told)


async def _main(where: str, cycle: int, told: int) -> None:
    async with open_store(where) as store, trio.open_nursery() as nursery:
        await store.commit(SaveRoom(room()))
        os.write(told, b"ready\n")
        for writer in range(WRITERS):
            nursery.start_soon(_write, store, f"{cycle:03}-{writer:03}", told)


async def _write(store: Store, name: str, told: int) -> None:
    number = 0
    while True:
        number += 1
        sent = message(f"{name} {number}", id=f"{name}-{number:06}", author=name)
        await _stored(store, AddMessage(sent, txn=str(number)), told)
        if number % 5 == 0:
            await _reply(store, f"{name}-{number:06}r", told)


async def _reply(store: Store, id: str, told: int) -> None:
    reply = message("", id=id, status="running")
    await _stored(store, AddMessage(reply), told)
    await store.commit(SaveMessage(replace(reply, text="half")))
    await store.commit(SaveMessage(replace(reply, text="whole", status="done")))


async def _stored(store: Store, change: AddMessage, told: int) -> None:
    done = trio.Event()
    store.submit(change, then=_acknowledge(change.message, told, done))
    await done.wait()


def _acknowledge(sent: Message, told: int, done: trio.Event) -> Callable[[Outcome], None]:
    def then(outcome: Outcome) -> None:
        assert outcome == sent, outcome
        os.write(told, f"{sent.id}\n".encode())
        done.set()

    return then
