"""A live room: who is here, what was said, what is being answered.

State changes by plain calls from the task that has the command; what waits (the store, a
model) is outside. Prompts and beginnings of replies go through the store's queue, and are
shown by its callbacks: commit, then append, then answer, in one order (invariant 5).
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
import trio
from attrs import define, field

from hub.awaited import Awaited
from hub.client import Client
from hub.commands import SendPrompt, Since
from hub.errors import BadRequest, Conflict, NotFound, Unavailable
from hub.events import (
    Event,
    MemberJoined,
    MemberLeft,
    MessageEnded,
    MessagePosted,
    MessageRemoved,
    RoomUpdated,
    Typing,
)
from hub.lane import Lane
from hub.markup import render, render_apart
from hub.models import model_of
from hub.records import Author, Character, Member, Message, Room, User
from hub.reply import Reply
from hub.services import Services
from hub.showing import UNTOLD, Snapshot, as_member, shown
from hub.store.contract import AddMessage, Outcome, RemoveMessage, SaveRoom, StoreError
from hub.summaries import Summaries
from hub.transcript import Transcript
from hub.turns import with_muted
from llm.provider import is_demo

logger = logging.getLogger(__name__)

# Messages that a snapshot holds.
SNAPSHOT = 50

STORE_DOWN = "Nothing can be stored just now, so your message was not sent. Try again soon."


@define
class _Presence:
    member: Member
    clients: set[Client] = field(factory=set)


def now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LiveRoom:
    """See the module's own text. `run` is the room's task, and owns its turns."""

    def __init__(self, record: Room, services: Services) -> None:
        self.record = record
        self.services = services
        self.log = services.new_log()
        self.transcript = Transcript(record.id, services.store, services.ids.new())
        self.replies: dict[str, Reply] = {}
        self.unsaved: dict[str, Reply] = {}
        self.summaries = Summaries(self)
        self.idle_since: float | None = trio.current_time()
        self.ended = trio.Event()
        self._present: dict[str, _Presence] = {}
        self._holds = 0
        self._lanes: dict[str | None, Lane] = {}
        self._listeners_changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._changing = trio.Lock()

    @property
    def id(self) -> str:
        """The room's id."""
        return self.record.id

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the room's turns until the room is closed."""
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    task_status.started()
                    await trio.sleep_forever()  # ended by `close` or the hub's end
        finally:
            self._nursery = None
            self.ended.set()

    def close(self) -> None:
        """End the room's turns and its task; what was running is marked as interrupted."""
        self._scope.cancel()

    # ── who is here ──────────────────────────────────────────────────────────────────

    @property
    def people(self) -> list[Member]:
        """The humans who are here."""
        return [presence.member for presence in self._present.values()]

    @property
    def idle(self) -> bool:
        """Nobody is here and nothing is being answered."""
        return (
            not self._present
            and not self.unsaved
            and not self._holds
            and not any(lane.busy for lane in self._lanes.values())
        )

    async def join(
        self, client: Client, since: Since | None, welcome: Callable[[Snapshot], None]
    ) -> None:
        """Let a client in: `welcome` is called with the snapshot, and what comes after follows.

        Snapshot and place in the log are of one moment, and the answer that `welcome` sends
        goes out before the events that it doesn't know of.
        """
        while True:
            offset = since.offset if since and self.log.holds(since.epoch, since.offset) else None
            messages = []
            if offset is None:
                messages = await self.transcript.newest(client.user.id, SNAPSHOT + 1)
            if client.closing:
                return
            self._enter(client)
            # To announce that may have pushed the first event that was missed out of the window.
            if offset is None or offset >= self.log.dropped:
                break
        welcome(self._snapshot(client.user, messages, offset))
        client.follow(self.log, offset)

    def leave(self, client: Client) -> None:
        """Let a client go; twice is once."""
        client.unfollow(self.log)
        presence = self._present.get(client.user.id)
        if presence is None or client not in presence.clients:
            return
        presence.clients.discard(client)
        if not presence.clients:
            del self._present[client.user.id]
            self._announce(MemberLeft(presence.member))
            if self.idle:
                self.idle_since = trio.current_time()
        self._listeners_changed.set()
        self._listeners_changed = trio.Event()

    def rename(self, user: User) -> None:
        """Show a present user's new name."""
        if presence := self._present.get(user.id):
            presence.member = Member(user.id, user.name, "human")
            self._announce(MemberJoined(presence.member))

    def set_typing(self, client: Client, typing: bool) -> None:
        """Tell the others that somebody writes; not kept, so never told twice."""
        presence = self._present.get(client.user.id)
        if presence is None:
            raise Conflict("You are not in this room.", code="not_joined")
        event = Typing(presence.member, typing)
        frames: dict[object, bytes] = {}
        for cursor in list(self.log.followers):
            other = cursor.client
            if other.user.id != client.user.id and not other.slow:
                if other.dialect not in frames:
                    frames[other.dialect] = other.dialect.event(self.id, None, False, event)
                if frames[other.dialect]:
                    other.send(frames[other.dialect])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Count as a listener without being one: somebody waits for the turn's outcome."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self.idle_since = trio.current_time()
            self._listeners_changed.set()
            self._listeners_changed = trio.Event()

    def heard_by(self, to: str | None) -> bool:
        """Whether anybody is here for whom a reply to `to` (None: to all) is."""
        return bool(self._holds or (self._present if to is None else to in self._present))

    async def listeners_changed(self) -> None:
        """Wait until somebody came or went; the deadline, if any, is the caller's."""
        await self._listeners_changed.wait()

    def _enter(self, client: Client) -> None:
        self.idle_since = None
        user = client.user
        if user.id not in self._present:
            member = Member(user.id, user.name, "human")
            self._present[user.id] = _Presence(member)
            self._announce(MemberJoined(member))
        self._present[user.id].clients.add(client)
        self._listeners_changed.set()
        self._listeners_changed = trio.Event()

    def _announce(self, event: MemberJoined | MemberLeft) -> None:
        if len(self._present) <= self.services.settings.members_announced:
            self.publish(event)

    def _snapshot(self, user: User, messages: list[Message], offset: int | None) -> Snapshot:
        running = [] if offset is not None else self._running(user.id)
        under_way = {message.id for message in running}
        return Snapshot(
            room=shown(self.record),
            epoch=self.log.epoch,
            offset=self.log.head if offset is None else offset,
            recovered=offset is not None,
            members=self.members,
            member_count=len(self._present) + len(self.record.cast),
            messages=[one for one in messages[-SNAPSHOT:] if one.id not in under_way],
            replies=running,
            more=len(messages) > SNAPSHOT,
        )

    @property
    def members(self) -> list[Member]:
        """Who is here, people first; the first so many of a crowd."""
        most = self.services.settings.members_announced
        people = [presence.member for presence in self._present.values()]
        return people[:most] + [as_member(character) for character in self.record.cast]

    def _running(self, viewer: str) -> list[Message]:
        return [
            reply.so_far()
            for reply in self.replies.values()
            if reply.begun.is_set() and reply.to in {None, viewer}
        ]

    # ── what is said ─────────────────────────────────────────────────────────────────

    def publish(
        self, event: Event, to: str | None = None, *, besides: Client | None = None
    ) -> None:
        """Show an event to all who are here, or to one user wherever they are.

        `besides` is a client that learns of it in another way.
        """
        if to is not None:
            self.services.inbox(to).append(self.id, event)
        elif besides is not None:
            besides.pass_over(self.log, lambda: self.log.append(self.id, event))
        else:
            self.log.append(self.id, event)

    async def say(self, user: User, command: SendPrompt, answer: Callable[[Message], None]) -> None:
        """Store a prompt, show it, answer, and have it replied to.

        Raises:
            HubError: it was not stored; nobody saw it.

        """
        self._check_active()
        text = self._checked(command.text)
        lane = self._lane(user.id if command.reply == "me" else None)
        names = lane.checked(command.to)
        message = await self._prompt(Author(user.id, user.name, "human"), text, lane)
        await self._post(message, lane, answer, txn=command.txn, names=names)

    async def play(self, author: Author, text: str, awaited: Awaited) -> None:
        """Store and show a prompt that has a turn of its own, whose replies are awaited.

        Raises:
            HubError: it was not stored; nobody saw it.

        """
        lane = self._lane(None)
        message = await self._prompt(author, self._checked(text), lane)
        await self._post(message, lane, lambda _: None, awaited=awaited)

    async def _prompt(self, author: Author, text: str, lane: Lane) -> Message:
        return Message(
            id="",
            room=self.id,
            author=author,
            text=text,
            html=await render_apart(text),
            at=now(),
            status="done",
            demo=False,
            private=lane.to is not None,
        )

    async def _post(
        self,
        message: Message,
        lane: Lane,
        answer: Callable[[Message], None],
        *,
        txn: str | None = None,
        names: tuple[str, ...] = (),
        awaited: Awaited | None = None,
    ) -> None:
        settled = trio.Event()
        failed: list[StoreError] = []
        # The id decides the order, so it is given in the moment of submission.
        message = msgspec.structs.replace(message, id=self.services.ids.new())

        def then(outcome: Outcome) -> None:
            if isinstance(outcome, StoreError):
                failed.append(outcome)
            elif outcome is not None:
                if outcome.id == message.id:
                    self.transcript.add(message, lane.to)
                    client = awaited.client if awaited else None
                    self.publish(MessagePosted(message), lane.to, besides=client)
                answer(outcome)
                if outcome.id == message.id:
                    lane.say(message, names, awaited)
            settled.set()

        self.services.store.submit(AddMessage(message, lane.to, txn), then=then)
        await settled.wait()  # the store calls every `then`, within its own deadlines
        if failed:
            raise Unavailable(STORE_DOWN, code="store_down", retry_after=2) from failed[0]

    def post(self, message: Message) -> None:
        """Store and show a message that asks for no answer; its id is given here."""
        message = msgspec.structs.replace(message, id=self.services.ids.new())

        def then(outcome: Outcome) -> None:
            if isinstance(outcome, Message):
                self.transcript.add(message, None)
                self.publish(MessagePosted(message))
            else:
                logger.warning("a message in room %s was not stored: %s", self.id, outcome)

        self.services.store.submit(AddMessage(message), then=then)

    def _check_active(self) -> None:
        if not self.record.active:
            raise BadRequest("This game has ended.", code="no_game")

    def _checked(self, text: str) -> str:
        if not text.strip():
            raise BadRequest("A message must not be empty.", code="empty")
        most = self.services.settings.text_chars
        if len(text) > most:
            raise BadRequest(
                f"This message has {len(text):,} characters; {most:,} are the most.",
                code="too_long",
            )
        return text

    def _lane(self, to: str | None) -> Lane:
        lane = self._lanes.get(to)
        if lane is None:
            lane = self._lanes[to] = Lane(self, to)
        return lane

    # ── replies ──────────────────────────────────────────────────────────────────────

    def new_reply(
        self,
        character: Character,
        to: str | None,
        reply_to: str | None,
        *,
        besides: Client | None = None,
    ) -> Reply:
        """Begin a reply of a character; it is stored, then shown, then `begun` is set.

        `besides` is a client that learns of its end in another way.
        """
        message = Message(
            id=self.services.ids.new(),
            room=self.id,
            author=Author(character.id, character.name, "character", character.emoji),
            text="",
            html="",
            at=now(),
            status="running",
            demo=self.begins_as_demo(character),
            private=to is not None,
            reply_to=reply_to,
        )
        return self.begin(message, to, besides=besides)

    def begins_as_demo(self, character: Character) -> bool:
        """Whether a character's replies are made up, as far as one knows before they come."""
        provider = self.services.provider
        return is_demo(provider, model_of(self.record, character, provider))

    def begin(self, message: Message, to: str | None, *, besides: Client | None = None) -> Reply:
        """Begin a reply with a message that has been made for it; see `new_reply`."""
        reply = self.reply(message, to, besides=besides)
        self.replies[reply.id] = reply
        reply.begin()
        return reply

    def reply(self, message: Message, to: str | None, *, besides: Client | None = None) -> Reply:
        """Return a reply that has not begun."""

        def publish(event: Event) -> None:
            ends = isinstance(event, MessageEnded)
            self.publish(event, to, besides=besides if ends else None)

        def changed(message: Message) -> None:
            if message.status == "running":
                self.replies[message.id] = reply
                self.transcript.add(message, to)
            else:
                self.transcript.update(message)
                self.replies.pop(message.id, None)
                self.unsaved.pop(message.id, None)
                if reply.unsaved:
                    self.unsaved[message.id] = reply

        def replaced(message: Message) -> None:
            self.transcript.remove(message.id)
            self.replies.pop(message.id, None)

        reply = Reply(
            message,
            to,
            store=self.services.store,
            rollup=self.services.rollup,
            publish=publish,
            changed=changed,
            replaced=replaced,
        )
        return reply

    def speak(self, character: str) -> None:
        """Have a character (by name or id) say something now; all see it.

        Raises:
            BadRequest: there is no such character, or the game has ended.

        """
        self._check_active()
        self._lane(None).speak(character)

    def talk(self, turns: int) -> None:
        """Have the characters talk among themselves for so many turns; 0 ends it.

        Raises:
            BadRequest: that is too many, there are too few of them, or the game has ended.

        """
        if turns:
            self._check_active()
        self._lane(None).talk(turns)

    def stop(self, user: User, message: str | None) -> list[str]:
        """Stop one reply, or all that the user sees and what was to follow them."""
        mine = [
            reply
            for reply in self.replies.values()
            if reply.to in {None, user.id} and not reply.ended and message in {None, reply.id}
        ]
        for reply in mine:
            reply.stop()
        for to in (None, user.id):
            if message is None and (lane := self._lanes.get(to)):
                lane.stop()
        return [reply.id for reply in mine]

    async def regenerate(self, user: User, id: str) -> Message:
        """Have a reply made anew; the old one's text stays with the new one as a swipe.

        Raises:
            NotFound: there is no such reply, or it is somebody else's whisper.
            Conflict: something is being answered just now.

        """
        lane, character, old = await self._to_redo(user, id)
        return await lane.again(character, old)

    async def go_on(self, user: User, id: str) -> Message:
        """Have a reply that broke off gone on with, from the text that it has.

        Raises:
            NotFound: there is no such reply, or it is somebody else's whisper.
            Conflict: something is being answered just now, or the reply is whole.
            Unavailable: it can't be stored; it is as it was.

        """
        lane, character, old = await self._to_redo(user, id)
        if old.status not in {"interrupted", "stopped", "failed"} or not old.text.strip():
            raise Conflict("There is nothing to go on with in this reply.", code="not_cut")
        try:
            return await lane.go_on(character, old)
        except StoreError as error:
            raise Unavailable(
                "This can't be stored just now. Try again soon.", code="store_down", retry_after=2
            ) from error

    async def _to_redo(self, user: User, id: str) -> tuple[Lane, Character, Message]:
        self._check_active()
        found = await self.transcript.find(id)
        if found is None or found[1] not in {None, user.id}:
            raise NotFound("There is no such message.")
        old, to = found
        if old.author.kind != "character":
            raise BadRequest("Only a character's reply can be made anew.", code="not_a_reply")
        character = self.character(old.author.id)
        if character is None:
            raise Conflict(f"{old.author.name} is not in this room any more.")
        lane = self._lane(to)
        if lane.busy:
            raise Conflict("A reply is being made; stop it, or wait for its end.", code="busy")
        return lane, character, old

    def remove(self, id: str, to: str | None) -> None:
        """Remove a message, from disk and from sight."""

        def then(_: Outcome) -> None:
            self.unsaved.pop(id, None)
            self.transcript.remove(id)
            self.publish(MessageRemoved(id), to)

        self.services.store.submit(RemoveMessage(self.id, id), then=then)

    # ── settings ─────────────────────────────────────────────────────────────────────

    def character(self, id: str) -> Character | None:
        """The member of the cast with this id."""
        return next((one for one in self.record.cast if one.id == id), None)

    async def update(self, **changed: object) -> Room:
        """Store changed settings and show them.

        Raises:
            Unavailable: they can't be stored; nothing has changed.

        """
        return await self.change(lambda _: changed)

    async def change(self, decide: Callable[[Room], dict[str, object]]) -> Room:
        """Store and show what `decide` makes of the present settings; see `update`.

        It must be plain code. What it raises is passed on; nothing has changed then.
        """
        async with self._changing:  # else one change would undo another made meanwhile
            changed = decide(self.record)
            if not changed:
                return shown(self.record)
            record = msgspec.structs.replace(self.record, **changed)
            try:
                await self.services.store.commit(SaveRoom(record))
            except StoreError as error:
                raise Unavailable("The change can't be stored just now. Try again soon.") from error
            self.record = record
        public = shown(record)
        told = [name for name in changed if name not in UNTOLD]
        if told:
            values = {
                name: msgspec.Raw(msgspec.json.encode(getattr(public, name))) for name in told
            }
            self.publish(RoomUpdated(values))
        return public

    async def mute(self, character: str, *, muted: bool) -> Room:
        """Have a character (by name or id) keep silent unless told to speak, or not any more.

        Raises:
            TurnError: there is no such character.

        """
        return await self.change(lambda now: {"cast": with_muted(now.cast, character, muted=muted)})

    def start(self, task: Callable[[], Awaitable[None]]) -> bool:
        """Run a task in the room's nursery, until the room is closed; False if it is."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(task)
        return True


def system_notice(id: str, room: str, text: str) -> Message:
    """Return a message that nobody said: the hub tells it."""
    return Message(
        id=id,
        room=room,
        author=Author("system", "System", "system"),
        text=text,
        html=render(text),
        at=now(),
        status="done",
        demo=False,
        private=False,
    )
