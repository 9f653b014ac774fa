"""Chats from elsewhere become rooms: with new ids, and nobody's account in them but the importer's.

A file may say what it likes about who wrote what. Names are kept, as names; but the ids of
authors are made anew, so that no message is ever a user's of this hub who did not bring it.
Rooms come in as private: a file holds other people's words too.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec
import trio
from attrs import define, field

from hub import importing
from hub.casting import Casting
from hub.commands import NewCharacter
from hub.errors import BadRequest, HubError
from hub.ids import Ids, secret_id
from hub.importing import BadFile, Chat, Said
from hub.markup import render
from hub.names import clean
from hub.records import Author, Character, Message, Room, User
from hub.room import now
from hub.store.contract import AddMessage
from hub.wire.tuples import explain
from llm.speaker import clean_name

RENDERED = 50
"""Messages that are rendered at a time, beside the event loop: some 50 ms."""

STORED_CHARS = 20_000_000
"""Texts and HTML of one room; the store lets 32 million characters wait in all."""

CARD_BYTES = 1024 * 1024
"""A character's card, as JSON; as much as a card may have that comes by itself."""

NAME_CHARS = 200
"""An author's name, which other programs may allow to be longer than we do."""

ERROR_CHARS = 1000
"""What went wrong with a reply: a sentence."""

LONGEST_PACE = 60_000  # ms, as of the setting


@define
class Adoption:
    """Makes rooms of the chats of one file, for one user. Used by the trio thread only."""

    user: User
    casting: Casting
    ids: Ids
    title: str = ""
    _strangers: dict[str, str] = field(factory=dict)

    def room(self, chat: Chat) -> Room:
        """Return the room that a chat becomes.

        Raises:
            BadFile: the file has what a room here can't have.

        """
        settings = chat.settings or importing.Settings()
        try:
            return Room(
                id=secret_id(),
                title=self._title(settings.title, chat),
                scenario=self.casting.bounded(settings.scenario, "scenario"),
                cast=self._cast(self._wanted(chat)),
                answer=settings.answer,
                owner=self.user.id,
                archived=settings.archived,
                pace=max(0, min(settings.pace, LONGEST_PACE)),
                at=importing.date(settings.at) or _first_date(chat) or now(),
            )
        except HubError as error:
            raise BadFile(f"{chat.place}: {error}") from None

    def _title(self, wanted: str, chat: Chat) -> str:
        if wanted:
            return self.casting.title(wanted)
        names = ", ".join(one.name for one in self._wanted(chat))
        most = self.casting.settings.title_chars
        for text in (self.title, f"Chat with {names}" if names else "", "Imported chat"):
            try:
                return clean(text[:most], most, "title")
            except BadRequest:
                continue
        return "Imported chat"[:most]

    def _wanted(self, chat: Chat) -> Sequence[Character]:
        """Return the cast as the file has it; where it says nothing of it, those who speak."""
        if chat.settings is not None:
            return chat.settings.cast
        limits = self.casting.settings
        found: dict[str, Character] = {}
        for one in chat.said:
            name = _name(one.author.name)[: limits.name_chars].strip()
            if one.author.kind == "character" and len(found) < limits.cast:
                known = Character(one.author.id, name, emoji=one.author.emoji)
                found.setdefault(name.casefold(), known)
        return list(found.values())

    def _cast(self, wanted: Sequence[Character]) -> list[Character]:
        most = self.casting.settings.cast
        made = self.casting.cast([self._character(one) for one in islice(wanted, most + 1)])
        return [
            msgspec.structs.replace(one, card=before.card)
            for one, before in zip(made, wanted, strict=True)
        ]

    def _character(self, one: Character) -> NewCharacter:
        if one.card is not None and len(msgspec.json.encode(one.card)) > CARD_BYTES:
            raise BadRequest(f"The card of {one.name[:40]} is larger than a megabyte.")
        fields = {"id": one.id if one.id in self.casting.presets.characters else None}
        known = msgspec.to_builtins(msgspec.structs.replace(one, card=None, id=""))
        try:
            return msgspec.convert(known | fields, NewCharacter)
        except msgspec.ValidationError as error:
            raise BadRequest(f"The character {one.name[:40]}: {explain(error)}") from None

    async def messages(
        self, chat: Chat, room: Room, limiter: trio.CapacityLimiter
    ) -> list[AddMessage]:
        """Return a chat's messages as they are stored.

        Raises:
            BadFile: with their HTML they are too much.

        """
        authors = self._authors(chat, room)
        ids = [self.ids.new() for _ in chat.said]
        known = {one.id: id for one, id in zip(chat.said, ids, strict=True) if one.id}
        made: list[AddMessage] = []
        size = 0
        at = room.at
        for start in range(0, len(ids), RENDERED):
            said = chat.said[start : start + RENDERED]
            texts = [one.text for one in said]
            html = await trio.to_thread.run_sync(_rendered, texts, limiter=limiter)
            size += sum(map(len, texts)) + sum(map(len, html))
            if size > STORED_CHARS:
                raise BadFile(f"{chat.place}: This room is too long. Split the file.")
            for one, its, id in zip(said, html, ids[start:], strict=False):
                at = one.at or at
                message = _message(one, authors[one.author], id, room.id, at, its, known)
                made.append(AddMessage(message, self.user.id if one.private else None))
        return made

    def _authors(self, chat: Chat, room: Room) -> dict[Author, Author]:
        """Say who the authors of a chat are here."""
        cast = {one.id: made.id for one, made in zip(self._wanted(chat), room.cast, strict=True)}
        mine = chat.mine | {self.user.id}
        found = {}
        for author in {one.author for one in chat.said}:
            if author.kind == "system":
                id = "system"
            elif author.kind == "human" and author.id in mine:
                id = self.user.id
            else:
                id = (author.kind == "character" and cast.get(author.id)) or self._stranger(author)
            emoji = author.emoji and author.emoji[:16]
            found[author] = Author(id, _name(author.name), author.kind, emoji)
        return found

    def _stranger(self, author: Author) -> str:
        return self._strangers.setdefault(f"{author.kind} {author.id}", f"imported-{secret_id()}")


def _rendered(texts: Iterable[str]) -> list[str]:
    return [render(text) for text in texts]


def _message(
    one: Said, author: Author, id: str, room: str, at: str, html: str, known: dict[str, str]
) -> Message:
    return Message(
        id=id,
        room=room,
        author=author,
        text=one.text,
        html=html,
        at=at,
        status=one.status,
        demo=one.demo,
        private=one.private,
        reply_to=known.get(one.reply_to or ""),
        usage=one.usage,
        error=one.error and one.error[:ERROR_CHARS],
        swipes=list(one.swipes) or None,
    )


def _name(text: str) -> str:
    """Return a name as it was, or what can be shown of it."""
    try:
        return clean(text, NAME_CHARS, "name")
    except BadRequest:
        return clean_name(text)


def _first_date(chat: Chat) -> str | None:
    return next((one.at for one in chat.said if one.at), None)
