"""Who is connected: users, their sockets, their inboxes."""

from collections.abc import Awaitable, Callable, Iterator

import trio
from attrs import define, field

from hub.client import Client
from hub.errors import Close
from hub.log import Log
from hub.records import Session, User


@define(eq=False)
class _Person:
    """A user who is connected, or was until a moment ago.

    `returns`: they may come back and read on in their inbox; who has no session is somebody
    else each time.
    """

    user: User
    inbox: Log
    clients: set[Client] = field(factory=set)
    gone_since: float | None = None
    returns: bool = True


class People:
    """See the module's own text.

    Args:
        new_inbox: makes an inbox.
        stored: reads a user whom nobody here knows.

    """

    def __init__(
        self, new_inbox: Callable[[], Log], stored: Callable[[str], Awaitable[User | None]]
    ) -> None:
        self._new_inbox = new_inbox
        self._stored = stored
        self._people: dict[str, _Person] = {}

    def connect(self, client: Client) -> Log:
        """Take a client in; returns its user's inbox, which it follows from now on."""
        person = self._person(client.user)
        # Another of their sockets may have learned of a new name or role in the meantime.
        client.user = person.user if person.clients else client.user
        person.user = client.user
        person.clients.add(client)
        person.gone_since = None
        client.follow(person.inbox)
        return person.inbox

    def disconnect(self, client: Client) -> None:
        """Let a client go; twice is once."""
        person = self._people.get(client.user.id)
        if person is not None:
            person.clients.discard(client)
            person.returns = client.session is not None
            if not person.clients:
                person.gone_since = trio.current_time()

    def inbox(self, user: str) -> Log:
        """Return the inbox of a user, who need not be connected."""
        return self._person(User(user, "")).inbox

    def clients(self, user: str) -> Iterator[Client]:
        """Go through the open sockets of a user."""
        person = self._people.get(user)
        yield from list(person.clients) if person else ()

    def inboxes(self) -> list[Log]:
        """Return the inboxes that are in memory."""
        return [person.inbox for person in self._people.values()]

    def users(self) -> list[User]:
        """Return who is connected."""
        return [person.user for person in self._people.values() if person.clients]

    def sessions(self) -> set[str]:
        """Return the sessions that have open sockets."""
        return {
            client.session
            for person in self._people.values()
            for client in person.clients
            if client.session is not None
        }

    def changed(self, user: User) -> None:
        """Use a user's new name or role from now on, on all their sockets."""
        person = self._people.get(user.id)
        if person is not None:
            person.user = user
            for client in person.clients:
                client.user = user

    def end_session(self, session: str, sentence: str = "You were logged out.") -> None:
        """Close the sockets of a session that has ended."""
        self._close(lambda client: client.session == session, sentence)

    def end_user(self, user: str, sentence: str, *, keep: str | None = None) -> None:
        """Close a user's sockets, but those of the session `keep`."""
        self._close(lambda one: one.user.id == user and one.session != (keep or ""), sentence)

    async def known(self, session: Session) -> User | None:
        """Return the user of a session, as they are now.

        Raises:
            HubError: the store does not answer.

        """
        person = self._people.get(session.user)
        if person is not None and person.clients:
            return person.user
        return await self._stored(session.user)

    def forget(self, before: float) -> None:
        """Let go who has been away since `before` (on trio's clock), and who won't come back."""
        for id, person in list(self._people.items()):
            gone = person.gone_since
            if gone is not None and (gone <= before or not person.returns):
                del self._people[id]

    def _close(self, which: Callable[[Client], bool], sentence: str) -> None:
        for person in list(self._people.values()):
            for client in list(person.clients):
                if which(client):
                    client.close(Close.POLICY, sentence)

    def _person(self, user: User) -> _Person:
        person = self._people.get(user.id)
        if person is None:
            person = _Person(user, self._new_inbox(), gone_since=trio.current_time())
            self._people[user.id] = person
        return person
