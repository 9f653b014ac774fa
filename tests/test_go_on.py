"""A reply that broke off goes on from the text that it has."""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from hub.records import LOBBY, Author, Character, Message, Room
from hub.store.contract import AddMessage, SaveRoom, StoreError
from hub.store.memory import MemoryStore
from llm.anthropic import turns
from llm.demo import Demo
from llm.llamacpp import plain_dialogue
from llm.provider import GO_ON, ChatMessage, Item, ModelError, Request, Usage
from tests.hubs import Native, Refusal, running_hub
from tests.scripted import Gate, Scripted
from tests.store.making import message


async def halting(request: Request) -> AsyncGenerator[Item, None]:
    """Break off after three tokens; go on with the rest when it is asked to."""
    if request.messages[-1].role == "user":
        for text in ("One ", "two ", "thr"):
            yield text
        raise ModelError("cut", "The model broke off.")
    yield "ee\n"
    yield " four"
    yield Usage(model="script")


async def ask(client: Native, text: str = "Count!") -> dict[str, Any]:
    """Say something in the lobby; return the end of the reply."""
    await client.prompt(LOBBY, text)
    ended: dict[str, Any] = await client.event("message_end")
    await client.event("turn", state="done")
    return ended


async def left_behind(store: MemoryStore, text: str, **more: Any) -> Message:
    """Have a reply in the lobby that was cut off when a hub was killed."""
    author = Author("assistant", "Assistant", "character")
    cast = [Character("assistant", "Assistant")]
    id = "01900000-0000-7000-8000-000000000000"
    cut = message(text, room=LOBBY, id=id, status="interrupted", **more)
    cut = msgspec.structs.replace(cut, author=author)
    lobby = Room(LOBBY, "Lobby", cast=cast, visibility="public")
    await store.commit(SaveRoom(lobby), AddMessage(cut))
    return cut


async def test_a_failed_reply_goes_on_where_it_broke_off(autojump_clock: object) -> None:
    provider = Scripted(halting)
    async with running_hub(provider) as running, running.connect() as ada:
        await ada.call("join_room", room=LOBBY)
        broke = await ask(ada)
        assert broke["status"] == "failed"
        began = (await ada.call("continue_reply", room=LOBBY, message=broke["id"]))["message"]
        assert (began["text"], began["status"]) == ("One two thr", "running")
        seen = await ada.until("message_end")
        names = [name for name, payload in seen if name.startswith("message")]
        assert names == ["message_removed", "message_start", "message_end"]
        start = next(payload["message"] for name, payload in seen if name == "message_start")
        told = "".join(payload["text"] for name, payload in seen if name == "token")
        assert start["text"] + told == "One two three\n four"
        assert seen[-1][1]["status"] == "done"
        assert provider.requests[-1].messages[-1] == ChatMessage("assistant", "One two thr")
        assert provider.requests[-1].messages[:-1] == provider.requests[0].messages
        page = (await ada.call("read_messages", room=LOBBY))["messages"]
        assert [one["text"] for one in page] == ["Count!", "One two three\n four"]
        assert page[1]["html"] == "<p>One two three<br>\nfour</p>\n"
        assert "error" not in page[1]
        with pytest.raises(Refusal, match="not_cut"):
            await ada.call("continue_reply", room=LOBBY, message=began["id"])


async def test_who_joins_while_it_goes_on_gets_all_of_it(autojump_clock: object) -> None:
    gate = Gate(failing={"Assistant"})
    provider = Scripted(gate)
    async with running_hub(provider) as running, running.connect() as ada:
        await ada.call("join_room", room=LOBBY)
        gate.open()
        broke = await ask(ada)
        gate.shut()
        gate.failing.clear()
        await ada.call("continue_reply", room=LOBBY, message=broke["id"])
        await ada.event("token")
        async with running.connect() as ben:
            snapshot = await ben.call("join_room", room=LOBBY)
            (reply,) = snapshot["replies"]
            gate.open()
            seen = await ben.until("message_end")
            text = reply["text"] + "".join(p["text"] for n, p in seen if n == "token")
            (stored,) = (await ben.call("read_messages", room=LOBBY))["messages"][-1:]
            assert stored["text"] == text
            assert text.startswith("Assistant heard: ")
            assert text == "Assistant heard: " * 3  # its name, and the last line that it was told


async def test_a_reply_that_a_kill_cut_off_goes_on(autojump_clock: object) -> None:
    provider, store = Scripted(halting), MemoryStore()
    cut = await left_behind(store, "One two thr", demo=True, swipes=["Zero"])
    async with running_hub(provider, store=store) as running, running.connect() as ada:
        shown = (await ada.call("join_room", room=LOBBY))["messages"][0]
        assert shown["html"] == "<p>One two thr</p>\n"
        began = (await ada.call("continue_reply", room=LOBBY, message=cut.id))["message"]
        assert (began["demo"], began["swipes"]) == (True, ["Zero"])
        await ada.event("message_end", status="done")
        assert await running.hub.store.message(LOBBY, cut.id) is None


async def test_twice_at_once_is_once_and_leaving_does_no_harm(autojump_clock: object) -> None:
    store = MemoryStore()
    provider = Scripted(halting)
    async with running_hub(provider, store=store) as running, running.connect() as ada:
        await ada.call("join_room", room=LOBBY)
        broke = await ask(ada)
        store.held = True
        async with running.connect() as ben:
            await ben.call("join_room", room=LOBBY)
            await ben.begin("continue_reply", room=LOBBY, message=broke["id"])
            await ben.send("ping")
            await provider.until(lambda: len(provider.requests) == 1)
            with pytest.raises(Refusal, match="busy"):
                while True:
                    await ada.call("regenerate", room=LOBBY, message=broke["id"])
        store.release()
        await ada.event("message_end", status="done")
        page = (await ada.call("read_messages", room=LOBBY))["messages"]
        assert [one["status"] for one in page] == ["done", "done"]


async def test_a_store_that_fails_leaves_it_as_it_was(autojump_clock: object) -> None:
    store = MemoryStore()
    async with running_hub(Scripted(halting), store=store) as running, running.connect() as ada:
        await ada.call("join_room", room=LOBBY)
        broke = await ask(ada)
        store.fail = StoreError("full")
        with pytest.raises(Refusal, match="store_down"):
            await ada.call("continue_reply", room=LOBBY, message=broke["id"])
        store.fail = None
        page = (await ada.call("read_messages", room=LOBBY))["messages"]
        assert (page[1]["id"], page[1]["status"]) == (broke["id"], "failed")
        await ada.call("continue_reply", room=LOBBY, message=broke["id"])
        await ada.event("message_end", status="done")


async def test_a_stopped_reply_without_a_word_has_nothing_to_go_on_with(
    autojump_clock: object,
) -> None:
    gate = Gate()
    async with running_hub(Scripted(gate)) as running, running.connect() as ada:
        await ada.call("join_room", room=LOBBY)
        said = await ada.prompt(LOBBY, "Hello")
        with pytest.raises(Refusal, match="not_a_reply"):
            await ada.call("continue_reply", room=LOBBY, message=said["id"])
        begun = await ada.event("message_start")
        with pytest.raises(Refusal, match="busy"):
            await ada.call("continue_reply", room=LOBBY, message=begun["message"]["id"])
        gate.open()
        await ada.event("turn", state="done")


async def test_a_name_at_the_end_of_what_was_said_is_not_said_again(
    autojump_clock: object,
) -> None:
    async def naming(_request: Request) -> AsyncGenerator[Item, None]:
        yield " it is."
        yield Usage(model="script")

    store = MemoryStore()
    cut = await left_behind(store, "See:\nAssistant")
    async with running_hub(Scripted(naming), store=store) as running, running.connect() as ada:
        await ada.call("join_room", room=LOBBY)
        await ada.call("continue_reply", room=LOBBY, message=cut.id)
        await ada.event("message_end", status="done")
        (found,) = (await ada.call("read_messages", room=LOBBY))["messages"]
        assert found["text"] == "See:\nAssistant it is."


# ── what each kind of model is asked ─────────────────────────────────────────────────────

CUT = Request(messages=(ChatMessage("user", "Count!"), ChatMessage("assistant", "One tw")))


def test_clouds_are_asked_in_words() -> None:
    asked = CUT.asking_to_go_on.messages
    assert asked == (*CUT.messages, ChatMessage("user", GO_ON))
    assert turns(asked)[-1] == {"role": "user", "content": GO_ON}
    plain = Request.of("Count!")
    assert plain.asking_to_go_on is plain


def test_a_local_model_goes_on_by_itself() -> None:
    assert plain_dialogue(CUT) == "User: Count!\nAssistant: One tw"
    assert plain_dialogue(Request.of("Count!")) == "User: Count!\nAssistant:"


async def test_the_demo_keeps_its_words_apart(autojump_clock: object) -> None:
    async with Demo().stream(CUT) as items:
        assert (await anext(aiter(items))).startswith(" ")  # type: ignore[union-attr]
    async with Demo().stream(Request.of("Count!")) as items:
        assert not (await anext(aiter(items))).startswith(" ")  # type: ignore[union-attr]
