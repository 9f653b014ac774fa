"""The inbox: what is for one user alone, wherever they are, read on after a loss."""

import trio

from tests.hubs import Native, running_hub
from tests.test_api import cookie, guest, signed_in


async def resumed(socket: Native, since: object) -> bool:
    """Whether the inbox was read on from there."""
    answer = await socket.call("resume_inbox", since=since)
    return bool(answer["recovered"])


async def whispers(socket: Native, count: int) -> list[str]:
    """The next so many replies that were whispered, by their endings' status."""
    return [(await socket.event("message_end", inbox=True))["status"] for _ in range(count)]


async def test_an_inbox_in_which_nothing_was_is_read_on_too(autojump_clock: object) -> None:
    async with running_hub(keep=600.0) as running, guest(running) as (client, me):
        path, headers = f"/ws?csrf={me['csrf']}", [(b"cookie", cookie(client).encode())]
        async with running.connect(path=path, headers=headers) as first:
            since = first.welcome["inbox"]
        await trio.sleep(300)
        async with running.connect(path=path, headers=headers) as second:
            assert await resumed(second, since)
        await trio.sleep(700)
        async with running.connect(path=path, headers=headers) as third:
            assert not await resumed(third, since)


async def test_whispers_that_were_missed_come_when_it_is_read_on(autojump_clock: object) -> None:
    async with running_hub() as running, signed_in(running) as (client, me, stays):
        path, headers = f"/ws?csrf={me['csrf']}", [(b"cookie", cookie(client).encode())]
        await stays.call("join_room", room="lobby")
        async with running.connect(path=path, headers=headers) as goes:
            since = goes.welcome["inbox"]
        await stays.prompt("lobby", "Between us", reply="me")
        assert await whispers(stays, 1) == ["done"]
        async with running.connect(path=path, headers=headers) as back:
            assert await resumed(back, since)
            offsets: list[tuple[int, str]] = []
            while len(offsets) < 3 or "message_end" not in offsets[-1]:
                name, payload = await back.next()
                assert payload["inbox"] is True
                offsets.append((payload["offset"], name))
            assert [offset for offset, _ in offsets] == list(range(1, len(offsets) + 1))
            assert offsets[0][1] == "message"


async def test_who_has_no_session_is_forgotten_at_once(autojump_clock: object) -> None:
    async with running_hub(keep=600.0) as running:
        async with running.connect() as passer_by:
            id = passer_by.user["id"]
            assert id in running.hub.people._people
        await trio.sleep(30)
        assert id not in running.hub.people._people
