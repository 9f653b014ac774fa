"""A lane of a room: turns for one audience, one after the other.

A room has a lane for all who are here, and one for each user who whispers to characters.
In a lane there is one turn at a time. What is said while it runs is shown at once and
answered by the next turn, all together: replies never mix, and nothing is lost.

A turn ends early when it is stopped, or when nobody has been there to hear it for the
grace time; the model's response is closed then, not just ignored (invariant 6).
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
import trio
from attrs import define, evolve

from hub.awaited import Awaited
from hub.events import TurnChanged
from hub.markup import render_apart
from hub.models import model_of
from hub.persona import persona
from hub.records import Character, Ending, Message, Usage
from hub.reply import Reply
from hub.scene import PAST, budget_of, heard, scene_of
from hub.store.contract import Outcome, StoreError
from hub.turns import Agenda, Turn, TurnError, Waiting, addressed
from llm import provider as llm
from llm.character import assemble
from llm.persona import tokens
from llm.provider import ChatMessage
from llm.speaker import SpeakerGuard

if TYPE_CHECKING:
    from hub.room import LiveRoom

logger = logging.getLogger(__name__)


@define
class _Again:
    """A reply to be made anew; `before` is where its past ends."""

    reply: Reply
    character: Character
    before: str
    prompts: tuple[Waiting, ...]


class Lane:
    """See the module's own text. `to` is the user whose whispers it answers, or None."""

    def __init__(self, room: "LiveRoom", to: str | None) -> None:
        self.to = to
        self.busy = False
        self._room = room
        self._agenda = _agenda(room)
        self._again: _Again | None = None
        self._awaited: dict[str, Awaited] = {}

    def checked(self, names: list[str] | None) -> tuple[str, ...]:
        """Return ids of the characters that were named.

        Raises:
            TurnError: nobody in the cast is called that.

        """
        return addressed(names or (), self._room.record.cast)

    def say(self, message: Message, to: tuple[str, ...], awaited: Awaited | None = None) -> None:
        """Have a prompt answered by the next turn; `to` are ids of characters.

        Where the replies are awaited, the prompt has a turn of its own.
        """
        if awaited is not None:
            self._awaited[message.id] = awaited
        self._agenda.say(Waiting(message.id, message.text, to, apart=awaited is not None))
        self._start()

    def speak(self, character: str) -> None:
        """Have a character (by name or id) say something when its turn comes; twice is once.

        Raises:
            TurnError: nobody in the cast is called that.

        """
        [id] = self.checked([character])
        self._agenda.speak(id)
        self._start()

    def talk(self, turns: int) -> None:
        """Have the characters talk among themselves for so many turns; 0 ends it.

        Raises:
            TurnError: more turns than are allowed, or nobody to talk with.

        """
        able = [one for one in self._room.record.cast if not one.muted]
        if turns and len(able) < 2:
            raise TurnError("To talk among themselves takes two characters who are not muted.")
        self._agenda.talk(turns)
        self._start()

    async def again(self, character: Character, old: Message) -> Message:
        """Make a reply anew, and return it as it begins."""
        message = msgspec.structs.replace(
            old,
            id=self._room.services.ids.new(),
            text="",
            html="",
            status="running",
            usage=None,
            error=None,
            demo=self._room.begins_as_demo(character),
            swipes=[*(old.swipes or []), *([old.text] if old.text else [])],
        )
        self._room.remove(old.id, self.to)
        reply = self._room.begin(message, self.to)
        # Its text is not at hand; only what characters do on particular inputs needs it.
        prompts = (Waiting(old.reply_to, ""),) if old.reply_to else ()
        self._again = _Again(reply, character, old.id, prompts)
        self._start()
        await reply.begun.wait()  # the store's own deadlines bound this
        return message

    async def go_on(self, character: Character, old: Message) -> Message:
        """Go on with a reply that broke off, and return it as it begins again.

        Raises:
            StoreError: it can't be stored; nothing has changed.

        """
        message = msgspec.structs.replace(
            old,
            id=self._room.services.ids.new(),
            html="",
            status="running",
            usage=None,
            error=None,
            demo=old.demo or self._room.begins_as_demo(character),
        )
        reply = self._room.reply(message, self.to)
        prompts = (Waiting(old.reply_to, ""),) if old.reply_to else ()
        settled = trio.Event()
        failed: list[StoreError] = []

        # Not by this task: it may be cancelled, and what has begun must end.
        def then(outcome: Outcome) -> None:
            self.busy = False
            if isinstance(outcome, StoreError):
                failed.append(outcome)
            else:
                self._again = _Again(reply, character, old.id, prompts)
            if self._more():
                self._start()
            if self._again and not self.busy:  # the room is closed
                reply.end("interrupted")
            settled.set()

        self.busy = True  # else another one could begin meanwhile
        reply.go_on(old, then)
        await settled.wait()  # the store's own deadlines bound this
        if failed:
            raise failed[0]
        return message

    def stop(self) -> None:
        """End the turn before its next reply. What people wrote meanwhile stays waiting."""
        self._agenda.stop()

    def _more(self) -> bool:
        return self._again is not None or self._agenda.state == "queued"

    def _start(self) -> None:
        if not self.busy:
            self.busy = self._room.start(self.run)
        if not self.busy:  # the room is closed
            self._settle(whole=False)

    async def run(self) -> None:
        """Answer until there is nothing left to answer; the room's nursery owns this task."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_when_unheard)
                while self._more():
                    await self._guarded_turn()
                    self._settle(whole=True)
                    if self.to is None:
                        self._room.summaries.look(self._agenda.waiting)
                nursery.cancel_scope.cancel()
        except BaseException:
            self._settle(whole=False)
            raise
        finally:
            self.busy = False
            self._room.idle_since = trio.current_time()
        if self._more():  # said while the nursery closed
            self._start()

    async def _guarded_turn(self) -> None:
        # A fault of ours in one room's turn must not end all other rooms with it.
        try:
            await self._turn()
        except Exception:
            logger.exception("a turn in room %s failed", self._room.id)
            self._again = None
            self._agenda = _agenda(self._room)  # or it might fail for ever

    def _settle(self, *, whole: bool) -> None:
        """Between turns: tell those whose turn is over, or will never be."""
        waiting = self._agenda.waiting if whole else ()
        for prompt in [one for one in self._awaited if one not in waiting]:
            self._awaited.pop(prompt).finish(whole=whole)

    async def _stop_when_unheard(self) -> None:
        while True:  # ends with the turns
            while self._room.heard_by(self.to):
                await self._room.listeners_changed()
            with trio.move_on_after(self._room.services.settings.grace):
                while not self._room.heard_by(self.to):
                    await self._room.listeners_changed()
            if not self._room.heard_by(self.to):
                self._agenda = _agenda(self._room)
                for reply in list(self._room.replies.values()):
                    if reply.to == self.to:
                        reply.stop()
                await self._room.listeners_changed()

    async def _turn(self) -> None:
        if self._again:
            again, self._again = self._again, None
            self._show("running")
            await self._speak(again.character, again.reply, again.before, again.prompts)
            self._show("done")
            return
        record = self._room.record
        turn = self._agenda.next(record.cast, record.answer)
        if turn is not None:
            self._show("running")
            await self._replies(turn)
            self._show("done")

    async def _replies(self, turn: Turn) -> None:
        prompt = turn.prompts[-1].id if turn.prompts else None
        awaited = self._awaited.get(prompt or "")
        while speaker := self._agenda.speaker:
            text = ""
            character = self._room.character(speaker)
            if character is not None:
                client = awaited.client if awaited else None
                reply = self._room.new_reply(character, self.to, prompt, besides=client)
                await self._speak(character, reply, reply.id, turn.prompts)
                text = reply.so_far().text
                if awaited:
                    awaited.replies.append(reply.final)
            self._agenda.replied(text)
            if self._agenda.speaker:
                await trio.sleep(self._room.record.pace / 1000)

    async def _speak(
        self, character: Character, reply: Reply, before: str, prompts: Sequence[Waiting]
    ) -> None:
        try:
            await reply.begun.wait()
            with reply.scope:
                begun = reply.so_far().text
                request, others = await self._request(character, before, prompts, begun)
                request = evolve(request, fresh=bool(reply.final.swipes))
                guard = _guard(character.name, others, begun)
                usage = await self._stream(request, reply, guard)
                await render_apart(reply.so_far().text)  # long ones not within `end`
                self._end(reply, usage)
            reply.end("stopped")
        except llm.ModelError as error:
            logger.warning("%s: %s %s", self._room.services.provider.name, error, error.detail)
            reply.end("failed", error=str(error))
        except Exception:
            logger.exception("a reply of %s failed", character.name)
            reply.end("failed", error="Something went wrong on our side.")
        finally:
            reply.end("interrupted")
        await reply.shown.wait()  # the store's own deadlines bound this

    async def _request(
        self, character: Character, before: str, prompts: Sequence[Waiting], begun: str
    ) -> tuple[llm.Request, tuple[str, ...]]:
        """Return what the model is asked, and who else there is; `begun` is to be gone on with."""
        room, services = self._room, self._room.services
        newest = await room.transcript.newest(self.to, PAST)
        past = heard(newest, before, [one.id for one in prompts], self._agenda.waiting)
        humans = [one.author for one in past if one.author.kind == "human"]
        here = [member.name for member in room.people]
        # Who has left is not spoken for either.
        people = tuple(dict.fromkeys([*here, *(one.name for one in reversed(humans))]))
        asked = [one.text for one in prompts if one.text]
        summary = room.summaries.known(before)
        if summary is not None:
            past = [one for one in past if one.private or one.id > summary.upto]
        text = summary.text if summary else ""
        scene = scene_of(room.record, character, people, past, asked, text)
        settings = services.settings
        budget = budget_of(settings)
        budget -= min(tokens(begun), budget // 2)
        prompt = assemble(persona(character), scene, budget=budget)
        request = llm.Request(
            messages=(*prompt.messages, *([ChatMessage("assistant", begun)] if begun else [])),
            model=model_of(room.record, character, services.provider),
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            stop=prompt.stop,
            asker=humans[-1].id if humans else "",
            private=self.to is not None,
            place=room.id,
        )
        return request, (*scene.cast, *people)

    async def _stream(
        self, request: llm.Request, reply: Reply, guard: SpeakerGuard
    ) -> llm.Usage | None:
        queued = False
        model = ""
        async with self._room.services.provider.stream(request) as items:
            async for item in items:
                if isinstance(item, str):
                    reply.add(guard.feed(item))
                    if guard.cut:
                        return None
                elif isinstance(item, llm.Queued):
                    self._show("queued", item.position)
                    queued = True
                elif isinstance(item, llm.Answering):
                    model = item.model
                    if queued:
                        self._show("running")
                    if item.demo and not reply.final.demo:
                        await reply.mark_as_demo(self._room.services.ids.new())
                elif isinstance(item, llm.Usage):
                    reply.add(guard.finish())
                    # By its owner's name for it: what it calls itself may be the path of a file.
                    return evolve(item, model=model or item.model)
        reply.add(guard.finish())
        return None

    def _end(self, reply: Reply, usage: llm.Usage | None) -> None:
        status: Ending = "done"
        error = None
        if not reply.so_far().text.strip():
            filtered = usage is not None and usage.finish == "filter"
            status = "failed"
            error = "The model refused to answer this." if filtered else "The model said nothing."
        reply.end(status, error=error, usage=_record(usage))

    def _show(
        self, state: Literal["queued", "running", "done"], position: int | None = None
    ) -> None:
        self._room.publish(TurnChanged(state, position), self.to)


def _guard(own: str, others: tuple[str, ...], begun: str) -> SpeakerGuard:
    """Return what watches who speaks in a reply of which some was said before."""
    guard = SpeakerGuard(own, others)
    if guard.feed(begun) != begun:  # it withholds some, which has been shown already
        guard = SpeakerGuard(own, others)
        guard.feed("…")
    return guard


def _agenda(room: "LiveRoom") -> Agenda:
    return Agenda(room.services.chance, room.services.settings.self_talk)


def _record(usage: llm.Usage | None) -> Usage | None:
    if usage is None:
        return None
    return Usage(
        model=usage.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        seconds_to_first=usage.seconds_to_first,
        seconds=usage.seconds,
        cached=usage.cached or None,
        finish=usage.finish,
        cost=usage.cost,
    )
