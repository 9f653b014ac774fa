"""The hub: who is connected, which rooms are live, and all that users may ask for.

It knows nothing of wire formats or HTTP: dialects and routes call it with a user and a
command, and say themselves how the result looks on their wire.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
import trio
from attrs import define, field

from hub.client import Client
from hub.commands import (
    Cast,
    CreateRoom,
    JoinRoom,
    NewCharacter,
    ReadMessages,
    Since,
    UpdateRoom,
)
from hub.errors import BadRequest, Close, Conflict, Forbidden, NotFound, TooMany, Unavailable
from hub.events import RoomRemoved
from hub.ids import Ids, secret_id
from hub.log import Log
from hub.names import clean
from hub.presets import ASSISTANT, Presets
from hub.pump import Pump
from hub.records import LOBBY, Character, Message, Room, Session, Trigger, User
from hub.rollup import Rollup
from hub.room import LiveRoom, Services, Snapshot, now, shown, system_notice
from hub.settings import Settings
from hub.store.contract import (
    AddMember,
    AddMessage,
    Change,
    RemoveRoom,
    SaveRoom,
    SaveUser,
    Store,
    StoreError,
)
from hub.wire.frames import ping_frame
from hub.wire.tuples import TUPLES
from llm.provider import Provider

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_PING = ping_frame()

# The one task that looks after everybody looks this often, at a slice of all clients each
# time: no timer per client, and no burst of pings.
_LOOK_SECONDS = 1.0

_DOWN = "Nothing can be stored just now. Try again soon."


@define(eq=False)
class _Person:
    """A user who is connected, or was until a moment ago."""

    user: User
    inbox: Log
    clients: set[Client] = field(factory=set)
    gone_since: float | None = None


class Hub:
    """See the module's own text. `run` is its task, and owns pump, clock, heartbeat, rooms."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        provider: Provider,
        *,
        presets: Presets,
        chance: random.Random,
    ) -> None:
        self.settings = settings
        self.store = store
        self.provider = provider
        self.chance = chance
        self.presets = presets
        self.pump = Pump()
        self.rollup = Rollup(settings.rollup / 1000)
        self._people: dict[str, _Person] = {}
        self._clients: dict[Client, dict[str, LiveRoom]] = {}
        self._rooms: dict[str, LiveRoom] = {}
        self._opening: dict[str, trio.Event] = {}
        self._nursery: trio.Nursery | None = None
        self._deserted = trio.Event()
        self._services = Services(
            settings=settings,
            store=store,
            provider=provider,
            rollup=self.rollup,
            ids=Ids(),
            chance=chance,
            new_log=lambda: Log(TUPLES, settings.window, self.pump.log_grew),
            inbox=lambda user: self._person_of(user).inbox,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until cancelled. Started when the lobby is open."""
        async with trio.open_nursery() as background:
            background.start_soon(self.pump.run)
            background.start_soon(self.rollup.run)
            background.start_soon(self._heartbeat)
            background.start_soon(self._save_replies)
            async with trio.open_nursery() as self._nursery:
                await self._open_lobby()
                task_status.started()
                await trio.sleep_forever()  # ended by whoever owns the hub

    async def say_goodbye(self) -> None:
        """End all turns, give everybody what was said, and close all sockets (1001).

        The deadline is the caller's.
        """
        rooms = list(self._rooms.values())
        for room in rooms:
            room.close()
        for room in rooms:
            await room.ended.wait()
        with suppress(StoreError):
            await self.store.commit()  # all ends are stored and shown, or can't be stored
        for client in list(self._clients):
            client.close(Close.GOING_AWAY, "The server is restarting.")
        if self._clients:
            self._deserted = trio.Event()
            await self._deserted.wait()

    # ── connections ──────────────────────────────────────────────────────────────────

    @property
    def connections(self) -> int:
        """How many sockets are open."""
        return len(self._clients)

    def connect(self, client: Client) -> Log:
        """Take a client in, and let it follow its inbox from now on."""
        person = self._person(client.user)
        person.clients.add(client)
        person.gone_since = None
        self._clients[client] = {}
        client.follow(person.inbox)
        return person.inbox

    def disconnect(self, client: Client) -> None:
        """Take a client out of everything; twice is once."""
        for room in self._clients.pop(client, {}).values():
            room.leave(client)
        client.leave_logs()
        if not self._clients:
            self._deserted.set()
        person = self._people.get(client.user.id)
        if person is not None:
            person.clients.discard(client)
            if not person.clients:
                person.gone_since = trio.current_time()

    def end_session(self, session: str) -> None:
        """Close the sockets of a session that has ended."""
        for client in list(self._clients):
            if client.session == session:
                client.close(Close.POLICY, "You were logged out.")

    def resume_inbox(self, client: Client, since: Since, answer: Callable[[object], None]) -> None:
        """Let a client read its inbox on from where it was, if that can be."""
        inbox = self._person(client.user).inbox
        recovered = inbox.holds(since.epoch, since.offset)
        offset = since.offset if recovered else inbox.head
        answer({"epoch": inbox.epoch, "offset": offset, "recovered": recovered})
        client.follow(inbox, offset)

    async def rename(self, user: User, name: str) -> User:
        """Give a user another name, here and wherever they are."""
        user = msgspec.structs.replace(user, name=clean(name, self.settings.name_chars, "name"))
        await self._keep(SaveUser(user))
        person = self._people.get(user.id)
        if person is not None:
            person.user = user
            for client in person.clients:
                client.user = user
        for room in self._rooms.values():
            room.rename(user)
        return user

    def _person(self, user: User) -> _Person:
        person = self._people.get(user.id)
        if person is None:
            inbox = Log(TUPLES, self.settings.inbox_window, self.pump.log_grew, inbox=True)
            person = self._people[user.id] = _Person(user, inbox, gone_since=trio.current_time())
        return person

    def _person_of(self, id: str) -> _Person:
        return self._people.get(id) or self._person(User(id, ""))

    # ── rooms ────────────────────────────────────────────────────────────────────────

    async def record(self, id: str) -> Room | None:
        """Return a room's settings, live or not; None if there is none."""
        room = self._rooms.get(id)
        return room.record if room is not None else await self._asked(self.store.room(id))

    async def room(self, id: str) -> LiveRoom:
        """Return the live room, opening it if need be.

        Raises:
            NotFound: there is none.

        """
        while (room := self._rooms.get(id)) is None:
            if opening := self._opening.get(id):
                await opening.wait()  # the one who opens it has a deadline: the store's
                continue
            self._opening[id] = trio.Event()
            try:
                record = await self._asked(self.store.room(id))
                if record is None:
                    raise NotFound("There is no such room.", code="no_room")
                await self._go_live(record)
            finally:
                self._opening.pop(id).set()
        return room

    async def admitted(self, user: User, id: str, invite: str | None = None) -> LiveRoom:
        """Return a room that the user may be in; an invite makes them a member.

        Raises:
            NotFound: there is none, or they must not know of it.

        """
        room = await self.room(id)
        record = room.record
        if record.visibility == "public" or record.owner == user.id:
            return room
        if await self._asked(self.store.is_member(id, user.id)):
            return room
        # A game's id is its invite.
        if record.visibility == "link" and record.invite and record.invite in {invite, id}:
            await self._keep(AddMember(id, user.id))
            return room
        raise NotFound("There is no such room, or you need an invite.", code="no_room")

    def joined(self, client: Client, id: str) -> LiveRoom:
        """Return a room that this connection is in.

        Raises:
            Conflict: it is not.

        """
        room = self._clients.get(client, {}).get(id)
        if room is None:
            raise Conflict("Join this room first.", code="not_joined")
        return room

    async def join(
        self, client: Client, command: JoinRoom, welcome: Callable[[Snapshot], None]
    ) -> None:
        """Let a client into a room; see `LiveRoom.join`."""
        room = await self.admitted(client.user, command.room, command.invite)
        await self._enter(client, room, command, welcome)

    async def create(
        self, client: Client, command: CreateRoom, welcome: Callable[[Snapshot], None]
    ) -> None:
        """Make a room and let its maker in."""
        record = await self.new_room(client.user, command)
        await self._enter(client, await self.room(record.id), JoinRoom(record.id), welcome)

    async def _enter(
        self, client: Client, room: LiveRoom, command: JoinRoom, welcome: Callable[[Snapshot], None]
    ) -> None:
        rooms = self._clients.get(client)
        if rooms is None:
            return  # it has gone meanwhile
        if room.id not in rooms and len(rooms) >= self.settings.rooms_per_socket:
            raise TooMany(
                "You are in too many rooms at once. Leave one first.", code="too_many_rooms"
            )
        rooms[room.id] = room
        try:
            await room.join(client, command.since, welcome)
        except StoreError as error:
            rooms.pop(room.id, None)
            raise Unavailable(_DOWN, code="store_down", retry_after=2) from error
        if client not in self._clients:  # it went while the history was read
            room.leave(client)

    def leave(self, client: Client, id: str) -> None:
        """Take a client out of a room; twice is once."""
        room = self._clients.get(client, {}).pop(id, None)
        if room is not None:
            room.leave(client)

    async def new_room(self, user: User, command: CreateRoom) -> Room:
        """Make and store a room that belongs to the user."""
        await self._check_owned(user)
        visibility = command.visibility or "private"
        cast = (
            self._cast(command.characters) if command.characters is not None else self._plain_cast()
        )
        record = Room(
            id=secret_id(),
            title=clean(command.title or "New chat", self.settings.title_chars, "title"),
            scenario=self._bounded(command.scenario or "", "scenario"),
            cast=cast,
            visibility=visibility,
            answer=command.answer or "all",
            owner=user.id,
            invite=secret_id() if visibility == "link" else None,
            pace=self.settings.pace,
            at=now(),
        )
        await self._keep(SaveUser(user), SaveRoom(record), AddMember(record.id, user.id))
        return record

    async def new_game(
        self, scenario: str, cast: Sequence[NewCharacter], owner: User | None
    ) -> Room:
        """Make and store a room for clients that know it as a game; its id is its invite."""
        if owner is not None:
            await self._check_owned(owner)
        id = secret_id()
        players = self._cast(list(cast))
        names = ", ".join(one.name for one in players)
        record = Room(
            id=id,
            title=f"Game: {names}"[: self.settings.title_chars],
            scenario=self._bounded(scenario, "scenario"),
            cast=players,
            visibility="link",
            owner=owner.id if owner else None,
            invite=id,
            game=True,
            pace=self.settings.pace,
            at=now(),
        )
        notice = system_notice(self._services.ids.new(), id, f"Game started! Players: {names}")
        changes: list[Change] = [SaveRoom(record), AddMessage(notice)]
        if owner is not None:
            changes += [SaveUser(owner), AddMember(id, owner.id)]
        await self._keep(*changes)
        return record

    async def _check_owned(self, user: User) -> None:
        mine = [
            room for room in await self._asked(self.store.rooms(user.id)) if room.owner == user.id
        ]
        if len(mine) >= self.settings.rooms_per_user:
            raise TooMany(
                f"You own {len(mine)} rooms already; delete one first.", code="too_many_rooms"
            )

    async def rooms(self, user: User) -> list[Room]:
        """Return the rooms that the user may see, the lobby first."""
        found = await self._asked(self.store.rooms(user.id))
        rooms = [shown(room) for room in found if not room.archived]
        rooms.sort(key=lambda room: room.id != LOBBY)
        return rooms

    async def update(self, user: User, command: UpdateRoom) -> Room:
        """Change a room's settings; only its owner may.

        Raises:
            Forbidden: somebody else's room.

        """
        room = await self.admitted(user, command.room)
        self._must_own(user, room)
        changed: dict[str, object] = {}
        if command.title is not None:
            changed["title"] = clean(command.title, self.settings.title_chars, "title")
        if command.scenario is not None:
            changed["scenario"] = self._bounded(command.scenario, "scenario")
        if command.characters is not None:
            changed["cast"] = self._cast(command.characters, room.record.cast)
        if command.answer is not None:
            changed["answer"] = command.answer
        if command.visibility is not None:
            changed["visibility"] = command.visibility
            if command.visibility == "link" and room.record.invite is None:
                changed["invite"] = secret_id()
        return await room.update(**changed) if changed else shown(room.record)

    async def delete(self, user: User, id: str) -> None:
        """Remove a room and all that was said in it; only its owner may."""
        room = await self.admitted(user, id)
        self._must_own(user, room)
        await self._keep(RemoveRoom(id))
        self._rooms.pop(id, None)
        room.close()
        await room.ended.wait()  # its turns are cancelled; none of them waits for anybody
        await self._keep(RemoveRoom(id))  # and with it what they said in between
        for client, rooms in self._clients.items():
            if rooms.pop(id, None):
                room.leave(client)
                client.send(client.dialect.event(id, None, False, RoomRemoved()))

    async def messages(self, user: User, page: ReadMessages) -> tuple[Sequence[Message], bool]:
        """Return a page of a room's history as the user may see it."""
        room = await self.admitted(user, page.room)
        return await self._asked(
            self.store.messages(
                room.id, viewer=user.id, before=page.before, limit=page.limit, query=page.query
            )
        )

    def _must_own(self, user: User, room: LiveRoom) -> None:
        if room.record.owner != user.id or room.id == LOBBY:
            raise Forbidden("Only who made this room may change it.")

    def _bounded(self, text: str, what: str) -> str:
        most = self.settings.scenario_chars
        if len(text) > most:
            raise BadRequest(f"A {what} has at most {most:,} characters.", code="too_long")
        return text

    def _plain_cast(self) -> list[Character]:
        return [self.presets.characters[ASSISTANT]]

    def _cast(self, wanted: Cast, present: Sequence[Character] = ()) -> list[Character]:
        if len(wanted) > self.settings.cast:
            raise BadRequest(
                f"A room has at most {self.settings.cast} characters.", code="too_many"
            )
        known = {one.id: one for one in present}
        cast = [self._character(one, known) for one in wanted]
        names = [one.name.casefold() for one in cast]
        if len(set(names)) < len(names):
            raise BadRequest("Two characters of a room can't have the same name.", code="same_name")
        if len({one.id for one in cast}) < len(cast):
            raise BadRequest("Two characters of a room can't have the same id.", code="same_id")
        return cast

    def _character(self, wanted: str | NewCharacter, present: Mapping[str, Character]) -> Character:
        if isinstance(wanted, str):
            if wanted in present:
                return present[wanted]
            if wanted not in self.presets.characters:
                raise BadRequest(f"There is no character “{wanted}”.", code="no_character")
            return self.presets.characters[wanted]
        texts = (wanted.klass, wanted.personality, wanted.backstory, wanted.instructions)
        for text in (*texts, wanted.greeting):
            self._bounded(text, "character's text")
        # Its card never travels to clients, so a change of its other fields must not lose it.
        before = present.get(wanted.id or "")
        return Character(
            card=before.card if before else None,
            triggers=[Trigger(one.when, one.then) for one in wanted.triggers],
            id=wanted.id or self._services.ids.new(),
            name=clean(wanted.name, self.settings.name_chars, "character's name"),
            klass=wanted.klass,
            emoji=wanted.emoji,
            personality=wanted.personality,
            backstory=wanted.backstory,
            instructions=wanted.instructions,
            greeting=wanted.greeting,
            talkativeness=wanted.talkativeness,
            muted=wanted.muted,
            model=wanted.model,
        )

    async def _go_live(self, record: Room) -> LiveRoom:
        if self._nursery is None:
            raise Unavailable("The hub is not open.", retry_after=5)
        newest, _ = await self._asked(self.store.messages(record.id, viewer=None, limit=1))
        for message in newest:
            self._services.ids.seen(message.id)
        room = LiveRoom(record, self._services)
        await self._nursery.start(room.run)
        self._rooms[record.id] = room
        return room

    async def _open_lobby(self) -> None:
        record = await self._asked(self.store.room(LOBBY))
        if record is None:
            record = Room(
                id=LOBBY, title="Lobby", cast=self._plain_cast(), visibility="public", at=now()
            )
            await self._keep(SaveRoom(record))
        await self._go_live(record)

    # ── sessions ─────────────────────────────────────────────────────────────────────

    async def known(self, session: Session) -> User | None:
        """Return the user of a session."""
        person = self._people.get(session.user)
        if person is not None and person.user.name:
            return person.user
        return await self._asked(self.store.user(session.user))

    async def _keep(self, *changes: Change) -> None:
        try:
            await self.store.commit(*changes)
        except StoreError as error:
            raise Unavailable(_DOWN, code="store_down", retry_after=2) from error

    async def _asked(self, question: Awaitable[_T]) -> _T:
        try:
            return await question
        except StoreError as error:
            raise Unavailable(_DOWN, code="store_down", retry_after=2) from error

    # ── upkeep ───────────────────────────────────────────────────────────────────────

    async def _heartbeat(self) -> None:
        """Ping who is silent, give up who stays so, and let go what nobody needs."""
        while True:
            looks = max(1, round(self.settings.ping_interval / _LOOK_SECONDS))
            clients = list(self._clients)
            size = -(-len(clients) // looks)
            for look in range(looks):
                await trio.sleep(self.settings.ping_interval / looks)
                for client in clients[look * size : (look + 1) * size]:
                    self._check(client)
                self._let_go()

    def _check(self, client: Client) -> None:
        silent = trio.current_time() - client.stream.heard
        if silent >= self.settings.ping_timeout and not client.slow:
            client.stream.abort()
        elif silent >= self.settings.ping_interval and not client.slow:
            client.send(_PING)

    def _let_go(self) -> None:
        limit = trio.current_time() - self.settings.keep
        for id, person in list(self._people.items()):
            if person.gone_since is not None and (
                person.gone_since <= limit or person.inbox.head == 0
            ):
                del self._people[id]
        for id, room in list(self._rooms.items()):
            if id != LOBBY and room.idle and (room.idle_since or 0) <= limit:
                room.close()
                del self._rooms[id]

    async def _save_replies(self) -> None:
        while True:
            await trio.sleep(1)
            for room in self._rooms.values():
                for reply in room.replies.values():
                    reply.save()
