"""A real llama.cpp plays a whole game, over both ways in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm.local import LocalModel
from tests.hubs import Running, running_hub
from tests.models import WORDS, endless_model, llamacpp

__all__ = ["endless_model", "llamacpp"]  # the fixtures that the tests here use

pytestmark = pytest.mark.llamacpp

CAST = [
    {"name": "Tharin", "class": "Fighter", "personality": "Brave."},
    {"name": "Lyra", "class": "Wizard", "personality": "Curious."},
    {"name": "Finn", "class": "Rogue", "personality": "Witty."},
]
NAMES = ["Tharin", "Lyra", "Finn"]


@pytest.fixture
async def running(endless_model: Path) -> AsyncIterator[Running]:
    model = LocalModel(endless_model)
    async with model.running(), running_hub(model, max_tokens=20) as running:
        yield running
    await model.aclose()


async def test_a_whole_game(running: Running) -> None:
    async with running.connect_objects() as player, running.connect_objects() as watcher:
        data = {"gmPrompt": "A cave behind a waterfall.", "characters": CAST}
        game = (await player.ask("start_game", data=data))["data"]["gameId"]
        await player.ask("join_game", game, {"stream": True})
        await watcher.ask("join_game", game)
        for text in ("Who goes first?", "What do you see?", "We leave."):
            answer = await player.ask("send_message", game, {"message": text})
            responses = answer["data"]["responses"]
            assert [one["speaker"] for one in responses] == NAMES
            for one in responses:
                assert one["message"]
                assert set(one["message"].split()) <= set(WORDS)
                assert "demo" not in one
                tokens = [frame["data"] for frame in player.told]
                streamed = "".join(t["text"] for t in tokens if t["id"] == one["id"])
                assert streamed == one["message"]
            heard = [(await watcher.hear())["data"]["message"] for _ in range(4)]
            assert heard[0]["message"] == text
            assert heard[1:] == responses
        body = {"gameId": game, "message": "And over HTTP?"}
        response = await running.http.post("/api/game/message", json=body)
        assert [one["speaker"] for one in response.json()["responses"]] == NAMES
        state = (await watcher.ask("get_game_state", game))["data"]
        assert len(state["messages"]) == 10
        assert state["isActive"] is True
        assert (await player.ask("end_game", game))["type"] == "game_ended"
        assert (await watcher.ask("get_game_state", game))["data"]["isActive"] is False
