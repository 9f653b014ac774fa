"""The hub: who is connected, which rooms are live, and all that users may ask for.

It knows nothing of wire formats or HTTP: dialects and routes call it with a user and a
command, and say themselves how the result looks on their wire.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
import trio

from hub.adopting import Adoption
from hub.casting import Casting
from hub.client import Client
from hub.commands import (
    Ban,
    CreateRoom,
    JoinRoom,
    NewCharacter,
    ReadMessages,
    Since,
    UpdateRoom,
)
from hub.errors import Close, Conflict, Forbidden, NotFound, TooMany, Unavailable
from hub.events import RoomRemoved
from hub.greeting import greetings_in
from hub.ids import Ids, secret_id
from hub.log import Log
from hub.markup import dressed
from hub.models import picked
from hub.names import clean
from hub.people import People
from hub.presets import Presets
from hub.pump import Pump
from hub.records import LOBBY, Message, Room, User
from hub.rights import RoomAction, Standing, demand, may, standing
from hub.rollup import Rollup
from hub.room import LiveRoom, now, system_notice
from hub.services import Services
from hub.settings import Settings
from hub.showing import Snapshot, shown
from hub.store.contract import (
    AddMember,
    AddMessage,
    AddUser,
    Change,
    RemoveMember,
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

DOWN = "Nothing can be stored just now. Try again soon."


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
        self.people = People(
            new_inbox=lambda: Log(TUPLES, settings.inbox_window, self.pump.log_grew, inbox=True),
            stored=lambda user: self._asked(self.store.user(user)),
        )
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
            inbox=self.people.inbox,
        )
        self.casting = Casting(settings, presets, self._services.ids)

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
        self._clients[client] = {}
        return self.people.connect(client)

    def disconnect(self, client: Client) -> None:
        """Take a client out of everything; twice is once."""
        for room in self._clients.pop(client, {}).values():
            room.leave(client)
        client.leave_logs()
        if not self._clients:
            self._deserted.set()
        self.people.disconnect(client)

    def resume_inbox(self, client: Client, since: Since, answer: Callable[[object], None]) -> None:
        """Let a client read its inbox on from where it was, if that can be."""
        inbox = self.people.inbox(client.user.id)
        recovered = inbox.holds(since.epoch, since.offset)
        offset = since.offset if recovered else inbox.head
        answer({"epoch": inbox.epoch, "offset": offset, "recovered": recovered})
        client.follow(inbox, offset)

    async def rename(self, user: User, name: str) -> User:
        """Give a user another name, here and wherever they are."""
        name = clean(name, self.settings.name_chars, "name")
        return await self.change_user(msgspec.structs.replace(user, name=name))

    async def change_user(self, user: User) -> User:
        """Store a user's new name or role, and use it from the next message on."""
        await self._keep(SaveUser(user))
        self.user_changed(user)
        return user

    def user_changed(self, user: User) -> None:
        """Use what has been stored of a user, here and wherever they are."""
        self.people.changed(user)
        for room in self._rooms.values():
            room.rename(user)

    # ── rooms ────────────────────────────────────────────────────────────────────────

    @property
    def live(self) -> list[LiveRoom]:
        """Rooms that are in memory."""
        return list(self._rooms.values())

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

    async def admitted(
        self, user: User, id: str, invite: str | None = None, *, to: RoomAction = "see"
    ) -> LiveRoom:
        """Return a room in which the user may do something; an invite makes them a member.

        Raises:
            NotFound: there is none, or they must not know of it.
            Forbidden: they may be in it, but not do this.

        """
        room = await self.room(id)
        stands = await self._standing(user, room.record)
        # A game's id is its invite.
        record = room.record
        if (
            stands == "outsider"
            and record.visibility == "link"
            and record.invite
            and record.invite in {invite, id}
        ):
            await self._keep(AddMember(id, user.id))
            stands = "member"
        demand(user, to, stands)
        return room

    async def _standing(self, user: User, room: Room) -> Standing:
        stands = standing(user, room, member=False)
        if stands in {"owner", "banned"}:
            return stands
        member = await self._asked(self.store.is_member(room.id, user.id))
        return standing(user, room, member=member)

    def joined(self, client: Client, id: str, to: RoomAction = "see") -> LiveRoom:
        """Return a room that this connection is in, and in which it may do something.

        Raises:
            Conflict: it is not in it.
            Forbidden: it may not do this, or not any more.

        """
        room = self._clients.get(client, {}).get(id)
        if room is None:
            raise Conflict("Join this room first.", code="not_joined")
        demand(client.user, to, standing(client.user, room.record, member=True))
        return room

    async def join(
        self, client: Client, command: JoinRoom, welcome: Callable[[Snapshot], None]
    ) -> None:
        """Let a client into a room; see `LiveRoom.join`."""
        room = await self.admitted(client.user, command.room, command.invite, to="join")
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
            raise Unavailable(DOWN, code="store_down", retry_after=2) from error
        if client not in self._clients:  # it went while the history was read
            room.leave(client)

    def leave(self, client: Client, id: str) -> None:
        """Take a client out of a room; twice is once."""
        room = self._clients.get(client, {}).pop(id, None)
        if room is not None:
            room.leave(client)

    async def new_room(self, user: User, command: CreateRoom) -> Room:
        """Make and store a room that belongs to the user."""
        demand(user, "create")
        await self.check_owned(user)
        visibility = command.visibility or "private"
        casting = self.casting
        wanted = command.characters
        record = Room(
            id=secret_id(),
            title=casting.title(command.title or "New chat"),
            scenario=casting.bounded(command.scenario or "", "scenario"),
            cast=casting.plain() if wanted is None else casting.cast(wanted),
            visibility=visibility,
            answer=command.answer or "all",
            model=picked(command.model, self.provider),
            owner=user.id,
            invite=secret_id() if visibility == "link" else None,
            pace=self.settings.pace,
            at=now(),
        )
        said = await greetings_in(record, record.cast, user=user.name, ids=self._services.ids)
        first = [AddMessage(one) for one in said]
        await self._keep(AddUser(user), SaveRoom(record), AddMember(record.id, user.id), *first)
        return record

    async def new_game(
        self, scenario: str, cast: Sequence[NewCharacter], owner: User | None
    ) -> Room:
        """Make and store a room for clients that know it as a game; its id is its invite."""
        if owner is not None:
            demand(owner, "create")
            await self.check_owned(owner)
        id = secret_id()
        players = self.casting.cast(list(cast))
        names = ", ".join(one.name for one in players)
        record = Room(
            id=id,
            title=f"Game: {names}"[: self.settings.title_chars],
            scenario=self.casting.bounded(scenario, "scenario"),
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
            changes += [AddUser(owner), AddMember(id, owner.id)]
        await self._keep(*changes)
        return record

    def adoption(self, user: User, title: str) -> Adoption:
        """Return what makes rooms of the chats of a file."""
        demand(user, "create")
        return Adoption(user, self.casting, self._services.ids, title)

    async def adopt(self, user: User, record: Room, messages: Sequence[AddMessage]) -> None:
        """Store a room that came from elsewhere, whole or not at all."""
        await self._keep(AddUser(user), SaveRoom(record), AddMember(record.id, user.id), *messages)

    async def check_owned(self, user: User, more: int = 1) -> None:
        """Refuse a user who would own more rooms than one may."""
        mine = [
            room for room in await self._asked(self.store.rooms(user.id)) if room.owner == user.id
        ]
        if len(mine) + more > self.settings.rooms_per_user:
            raise TooMany(
                f"You own {len(mine)} rooms already, and may own {self.settings.rooms_per_user}.",
                code="too_many_rooms",
            )

    async def rooms(self, user: User, *, archived: bool = False) -> list[Room]:
        """Return the rooms that the user may see, the lobby first; or the archived ones."""
        found = await self._asked(self.store.rooms(user.id))
        # The store lists public rooms to everybody, also to whom a room has banned.
        rooms = [shown(room) for room in found if room.archived == archived and open_to(user, room)]
        rooms.sort(key=lambda room: room.id != LOBBY)
        return rooms

    async def update(self, user: User, command: UpdateRoom) -> Room:
        """Change a room's settings.

        Raises:
            Forbidden: they may not.

        """
        room = await self.admitted(user, command.room, to="edit")
        before: set[str] = set()

        def decide(record: Room) -> dict[str, object]:
            before.update(one.id for one in record.cast)
            return self._changes(command, record)

        changed = await room.change(decide)
        await self.greet(user, room, before)
        return changed

    async def greet(self, user: User, room: LiveRoom, before: Container[str]) -> None:
        """Have those say their first words whom the user has brought into a live room.

        `before`: ids of those who were in it already.
        """
        newcomers = [one for one in room.record.cast if one.id not in before]
        ids = self._services.ids
        for message in await greetings_in(room.record, newcomers, user=user.name, ids=ids):
            room.post(message)

    def _changes(self, command: UpdateRoom, record: Room) -> dict[str, object]:
        changed: dict[str, object] = {}
        if command.title is not None:
            changed["title"] = self.casting.title(command.title)
        if command.scenario is not None:
            changed["scenario"] = self.casting.bounded(command.scenario, "scenario")
        if command.characters is not None:
            changed["cast"] = self.casting.cast(command.characters, record.cast)
        if command.answer is not None:
            changed["answer"] = command.answer
        if command.model is not msgspec.UNSET:
            changed["model"] = picked(command.model, self.provider)
        if command.archived is not None:
            if command.archived and record.id == LOBBY:
                raise Forbidden("The lobby stays.")
            changed["archived"] = command.archived
        if command.visibility is not None:
            changed["visibility"] = command.visibility
            if command.visibility == "link" and record.invite is None:
                changed["invite"] = secret_id()
        return changed

    async def delete(self, user: User, id: str) -> None:
        """Remove a room and all that was said in it.

        Raises:
            Forbidden: they may not; nobody may remove the lobby.

        """
        room = await self.admitted(user, id, to="delete")
        if id == LOBBY:
            raise Forbidden("The lobby stays.")
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
        messages, more = await self._asked(
            self.store.messages(
                room.id, viewer=user.id, before=page.before, limit=page.limit, query=page.query
            )
        )
        return await dressed(messages), more

    # ── who is sent away ─────────────────────────────────────────────────────────────

    async def kick(self, user: User, id: str, target: str) -> None:
        """Send somebody out of a room; an invite lets them in again."""
        room = await self.admitted(user, id, to="kick")
        self._check_target(room, target)
        await self._keep(RemoveMember(id, target))
        self._send_out(room, target)

    async def ban(self, user: User, command: Ban) -> None:
        """Send somebody out of a room for good, or take that back."""
        room = await self.admitted(user, command.room, to="ban")
        self._check_target(room, command.user)
        banned = [one for one in room.record.banned or () if one != command.user]
        if command.banned:
            if len(banned) >= self.settings.banned_per_room:
                raise TooMany("The list of this room's banned people is full.")
            await self._keep(RemoveMember(command.room, command.user))
            banned.append(command.user)
        await room.update(banned=banned)
        if command.banned:
            self._send_out(room, command.user)

    def _check_target(self, room: LiveRoom, target: str) -> None:
        if target == room.record.owner:
            raise Forbidden("Who made a room can't be sent out of it.")

    def _send_out(self, room: LiveRoom, target: str) -> None:
        """Take out of the room all sockets of a user who may not be in it any more."""
        for client in self.people.clients(target):
            if may(client.user, "see", standing(client.user, room.record, member=False)):
                continue
            self.leave(client, room.id)
            client.send(client.dialect.event(room.id, None, False, RoomRemoved()))

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
                id=LOBBY, title="Lobby", cast=self.casting.plain(), visibility="public", at=now()
            )
            await self._keep(SaveRoom(record))
        await self._go_live(record)

    async def _keep(self, *changes: Change) -> None:
        try:
            await self.store.commit(*changes)
        except StoreError as error:
            raise Unavailable(DOWN, code="store_down", retry_after=2) from error

    async def _asked(self, question: Awaitable[_T]) -> _T:
        try:
            return await question
        except StoreError as error:
            raise Unavailable(DOWN, code="store_down", retry_after=2) from error

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
        self.people.forget(limit)
        for id, room in list(self._rooms.items()):
            if id != LOBBY and room.idle and (room.idle_since or 0) <= limit:
                room.close()
                del self._rooms[id]

    async def _save_replies(self) -> None:
        while True:
            await trio.sleep(1)
            for room in self._rooms.values():
                for reply in (*room.replies.values(), *room.unsaved.values()):
                    reply.save()


def open_to(user: User, room: Room) -> bool:
    """Whether a room that the store lists for a user is really open to them."""
    return may(user, "see", standing(user, room, member=True))
