"""What the hub does with what a client of the native dialect says."""

from collections.abc import Callable
from functools import partial

from hub import __version__, commands
from hub.client import Client
from hub.errors import BadRequest, Close, HubError, TooMany
from hub.hub import Hub
from hub.limits import Kind
from hub.models import picked
from hub.records import User
from hub.rights import RoomAction
from hub.room import now
from hub.search import search
from hub.text import sound
from hub.wire import tuples
from llm.provider import Answering, ChatMessage, ModelError, Request, is_demo, names_of, pour

# What is done in a room that one is in, and the right that it takes.
_ROOM_COMMANDS: dict[type[commands.Command], RoomAction] = {
    commands.SendPrompt: "speak",
    commands.Regenerate: "speak",
    commands.ContinueReply: "speak",
    commands.Speak: "speak",
    commands.Talk: "speak",
    commands.Mute: "speak",
    commands.SetTyping: "speak",
    commands.Stop: "stop",
}

# What is asked of rooms that one need not be in.
_MANAGING = (
    commands.ReadMessages,
    commands.SearchMessages,
    commands.ListRooms,
    commands.UpdateRoom,
    commands.Kick,
    commands.Ban,
)

# What is limited beside the number of messages.
_COSTS: dict[type[commands.Command], Kind] = {
    commands.LlmChatPrompt: "prompt",
    commands.SendPrompt: "prompt",
    commands.Regenerate: "prompt",
    commands.ContinueReply: "prompt",
    commands.Speak: "prompt",
    commands.Talk: "prompt",
    commands.CreateRoom: "room",
}

# So many messages in a row that are no calls: the other side speaks something else.
MOST_ERRORS = 20


class TupleConversation:
    """One client's side of `dm-rpc`; see docs/protocol.md."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._prompts: list[tuple[commands.LlmChatPrompt, str | None]] = []
        self._prompting = False

    def begin(self, client: Client) -> None:
        """Say welcome, and follow the inbox from that moment on."""
        inbox = self._hub.connect(client)
        settings = self._hub.settings
        provider = self._hub.provider
        client.send(
            tuples.notify(
                "welcome",
                {
                    "version": __version__,
                    "user": client.user,
                    "inbox": {"epoch": inbox.epoch, "offset": inbox.head},
                    "limits": {
                        "frame_bytes": settings.frame_bytes,
                        "text_chars": settings.text_chars,
                        "title_chars": settings.title_chars,
                        "name_chars": settings.name_chars,
                        "scenario_chars": settings.scenario_chars,
                        "cast": settings.cast,
                        "self_talk": settings.self_talk,
                    },
                    "llm": {
                        "provider": provider.name,
                        "model": provider.model,
                        "demo": provider.demo,
                        "models": names_of(provider),
                    },
                },
            )
        )

    async def hear(self, client: Client, message: str | bytes) -> None:
        """Do one call and answer it; what is wrong with it is answered too."""
        too_fast = client.count(message)
        try:
            call = tuples.decode(message)
        except tuples.BadCall as error:
            self._complain(client, too_fast or error, error.id)
        else:
            await self._answer(client, call, too_fast)
        if too_fast is not None:
            await client.slow_down(too_fast)

    async def _answer(self, client: Client, call: tuples.Call, too_fast: TooMany | None) -> None:
        try:
            if too_fast is not None:
                raise too_fast
            if (kind := _COSTS.get(type(call.command))) is not None:
                client.spend(kind)
            await self._perform(client, call)
        except HubError as error:
            self._complain(client, error, call.id)
        else:
            client.errors_in_a_row = 0

    def _complain(self, client: Client, error: HubError, id: str | None) -> None:
        client.send(tuples.error(error.code, str(error), id, error.retry_after))
        if id is not None or isinstance(error, TooMany):
            return
        client.errors_in_a_row += 1
        if client.errors_in_a_row >= MOST_ERRORS:
            client.close(Close.PROTOCOL, "Too many messages that are not understood.")

    async def _perform(self, client: Client, call: tuples.Call) -> None:
        def answer(result: object) -> None:
            if call.id is not None:
                client.send(tuples.answer(call.method, result, call.id))

        if isinstance(call.command, commands.LlmChatPrompt):
            self._queue_prompt(client, call.command, call.id)
        elif type(call.command) in _ROOM_COMMANDS:
            await self._in_a_room(client, call.command, answer)
        elif isinstance(call.command, _MANAGING):
            await self._manage(client.user, call.command, answer)
        else:
            await self._anywhere(client, call.command, answer)

    async def _in_a_room(
        self, client: Client, command: commands.Command, answer: Callable[[object], None]
    ) -> None:
        right = _ROOM_COMMANDS[type(command)]
        room = self._hub.joined(client, command.room, right)  # type: ignore[attr-defined]
        match command:
            case commands.SendPrompt():
                await room.say(client.user, command, lambda message: answer({"message": message}))
            case commands.Stop():
                answer({"stopped": room.stop(client.user, command.message)})
            case commands.Regenerate():
                answer({"message": await room.regenerate(client.user, command.message)})
            case commands.ContinueReply():
                answer({"message": await room.go_on(client.user, command.message)})
            case commands.Speak():
                room.speak(command.character)
                answer({})
            case commands.Talk():
                room.talk(command.turns)
                answer({})
            case commands.Mute():
                if room.record.owner is None:  # nobody could undo what a passer-by did
                    self._hub.joined(client, command.room, "edit")
                answer({"room": await room.mute(command.character, muted=command.muted)})
            case commands.SetTyping():
                room.set_typing(client, command.typing)
                answer({})

    async def _anywhere(
        self, client: Client, command: commands.Command, answer: Callable[[object], None]
    ) -> None:
        hub = self._hub
        match command:
            case commands.JoinRoom():
                await hub.join(client, command, answer)
            case commands.CreateRoom():
                await hub.create(client, command, answer)
            case commands.LeaveRoom():
                hub.leave(client, command.room)
                answer({})
            case commands.ResumeInbox():
                hub.resume_inbox(client, command.since, answer)
            case commands.Ping():
                answer({"time": now()})

    async def _manage(
        self, user: User, command: commands.Command, answer: Callable[[object], None]
    ) -> None:
        hub = self._hub
        match command:
            case commands.ReadMessages():
                messages, more = await hub.messages(user, command)
                answer({"messages": messages, "more": more})
            case commands.SearchMessages():
                answer(await search(hub, user, command))
            case commands.ListRooms():
                answer({"rooms": await hub.rooms(user, archived=command.archived)})
            case commands.UpdateRoom():
                answer({"room": await hub.update(user, command)})
            case commands.Kick():
                await hub.kick(user, command.room, command.user)
                answer({})
            case commands.Ban():
                await hub.ban(user, command)
                answer({})

    # ── the prompt without a room ────────────────────────────────────────────────────

    def _queue_prompt(self, client: Client, asked: commands.LlmChatPrompt, id: str | None) -> None:
        # One after the other: its tokens carry no id, so two replies must not mix.
        if not asked.prompt.strip():
            raise BadRequest("A prompt must not be empty.", code="empty")
        picked(asked.model, self._hub.provider)
        if len(asked.prompt) > self._hub.settings.text_chars:
            raise BadRequest("This prompt is too long.", code="too_long")
        if len(self._prompts) >= self._hub.settings.prompts_waiting:
            raise TooMany("Wait for the answers to your earlier prompts.", code="too_many_prompts")
        self._prompts.append((asked, id))
        if not self._prompting:
            self._prompting = True
            client.start(partial(self._answer_prompts, client))

    async def _answer_prompts(self, client: Client) -> None:
        try:
            while self._prompts:
                asked, id = self._prompts.pop(0)
                await self._answer_prompt(client, asked, id)
        finally:
            self._prompting = False

    async def _answer_prompt(
        self, client: Client, asked: commands.LlmChatPrompt, id: str | None
    ) -> None:
        # In the client's nursery: closing the connection closes the model's response.
        parts: list[str] = []
        end: dict[str, object] = {"status": "done"}
        demo = is_demo(self._hub.provider, asked.model)

        def say(text: str) -> bool:
            parts.append(sound(text))
            client.send(tuples.notify("llm_token", parts[-1]))
            return not client.slow

        try:
            async with self._hub.provider.stream(self._request(client, asked)) as items:
                async for item in items:
                    if isinstance(item, Answering):
                        demo = item.demo
                    if isinstance(item, str):
                        if say(item):
                            await pour(items, say)
                        await client.keeping_up()
        except ModelError as error:
            end = {"status": "failed", "error": str(error)}
        if demo:
            end["demo"] = True
        client.send(tuples.notify("llm_end", end))
        if id is not None:
            client.send(tuples.answer("llm_chat_prompt", {"text": "".join(parts), **end}, id))

    def _request(self, client: Client, asked: commands.LlmChatPrompt) -> Request:
        settings = self._hub.settings
        return Request(
            messages=(ChatMessage("user", asked.prompt),),
            model=asked.model,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            asker=client.user.id,
        )
