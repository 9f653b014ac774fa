"""The tests' own hub: that it serves, and that its clients hear what is said."""

from tests.hubs import running_hub
from tests.scripted import Scripted


async def test_hub_serves_natively_and_over_http(autojump_clock: object) -> None:
    provider = Scripted()
    async with running_hub(provider) as running, running.connect() as alice:
        joined = await alice.call("join_room", room="lobby")
        assert joined["room"]["id"] == "lobby"
        message = await alice.prompt("lobby", "Hello there")
        assert message["text"] == "Hello there"
        end = await alice.event("message_end")
        assert end["status"] == "done"
        assert (await running.http.get("/healthz")).json()["status"] == "ok"
    assert provider.open == 0
