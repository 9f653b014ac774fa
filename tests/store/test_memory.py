"""Rooms in the store cost no memory: only those that somebody uses are in the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from hub.store.contract import SaveRoom
from hub.store.opening import open_store
from tests.store.making import room

ROOMS = 100_000

MOST_KB = 16_000
"""More than over an empty store: five connections' page caches of 2 MB each, and lists of 500
rooms being decoded. Rooms that were held would take 100 MB."""

# What a hub does when it starts and people look around; then what it took at its highest.
CHILD = """
import sys, trio
from hub.store.contract import SaveRoom
from hub.store.opening import open_store
from tests.store.making import room

async def main():
    async with open_store(sys.argv[1]) as store:
        for _ in range(10):
            rooms = await store.rooms("ann")
        await store.room("r7")
        await store.search("ann", "treasure")
        await store.commit(SaveRoom(room("new")))
        with open("/proc/self/status") as status:
            high = next(line.split()[1] for line in status if line.startswith("VmHWM"))
        print(len(rooms), high)

trio.run(main)
"""


def opened(file: Path) -> tuple[int, int]:
    """Open a store in a process of its own; return how many rooms it listed, and its KB."""
    command = [sys.executable, "-c", CHILD, str(file)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    rooms, high = map(int, said.split())
    return rooms, high


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_hundred_thousand_rooms_cost_no_memory(tmp_path: Path) -> None:
    async with open_store(tmp_path / "empty.db"):
        pass
    async with open_store(tmp_path / "many.db", synchronous="NORMAL") as store:
        for start in range(0, ROOMS, 10_000):
            await store.commit(
                *(
                    SaveRoom(room(f"r{number}", visibility="public", scenario="A cave. " * 20))
                    for number in range(start, start + 10_000)
                )
            )
    none, empty = opened(tmp_path / "empty.db")
    listed, many = opened(tmp_path / "many.db")
    assert (none, listed) == (0, 500)
    assert many - empty < MOST_KB, f"{empty} KB empty, {many} KB with {ROOMS} rooms"
