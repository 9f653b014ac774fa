"""Keeps open sockets in step with sessions, tokens and accounts, whoever changed these.

One task looks once a second. It ends the sockets of sessions that have expired or are gone,
and those that it has not seen before it looks up: so a session that ended while its socket
was still being opened is noticed too. It also asks the store whether any account has changed,
which the owner's commands do in a process of their own.
"""

import logging
import time

import trio

from hub.hub import Hub
from hub.records import Session
from hub.store.contract import RemoveExpired, StoreError
from hub.tokens import Tokens

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""What the owner's commands change is felt after so long, at most."""

PURGE_SECONDS = 3600.0
"""Between two times at which expired sessions and tokens are removed from the store."""

TOKEN = "token|"  # noqa: S105 - no secret: what a token's sockets have for a session
NEVER = float("inf")


def session_of(token: str, user: str, expires: float | None) -> Session:
    """Return what stands for a session where a program came with a token."""
    return Session(TOKEN + token, user, NEVER if expires is None else expires)


class Watch:
    """See the module's own text. `run` is its task."""

    def __init__(self, hub: Hub, tokens: Tokens) -> None:
        self._hub = hub
        self._store = hub.store
        self._tokens = tokens
        self._ends: dict[str, float] = {}  # of sessions with open sockets
        self._version: int | None = None

    async def run(self) -> None:
        """Look until cancelled. While the store does not answer, all stays as it is."""
        down = False
        purge = 0.0
        while True:
            try:
                await self._check_sessions()
                await self._check_accounts()
                if trio.current_time() >= purge:
                    await self._store.commit(RemoveExpired(time.time()))
                    purge = trio.current_time() + PURGE_SECONDS
            except StoreError as error:
                if not down:
                    logger.warning("Sessions and accounts can't be checked: %s", error)
                down = True
            else:
                down = False
            await trio.sleep(LOOK_SECONDS)

    async def refresh(self, user: str) -> None:
        """Let what is stored of an account hold for its sockets, from now on."""
        person = await self._store.user(user)
        account = await self._store.account(user)
        people = self._hub.people
        if person is None or account is None:
            people.end_user(user, "This account was removed.")
        elif account.disabled:
            people.end_user(user, "This account is disabled.")
        else:
            self._hub.user_changed(person)
            for session in {one.session for one in people.clients(user) if one.session}:
                await self._check(session)

    async def _check_accounts(self) -> None:
        version = await self._store.accounts_version()
        before, self._version = self._version, version
        if version != before and before is not None:
            for user in self._hub.people.users():
                if not user.guest:
                    await self.refresh(user.id)

    async def _check_sessions(self) -> None:
        open_now = self._hub.people.sessions()
        self._ends = {id: end for id, end in self._ends.items() if id in open_now}
        moment = time.time()
        for id in open_now:
            if self._ends.get(id, 0.0) <= moment:
                await self._check(id)

    async def _check(self, id: str) -> None:
        """Look a session up: when it ends, or that it has."""
        end = await self._end_of(id)
        if end <= time.time():
            self._ends.pop(id, None)
            await self._check_accounts()  # what ended the session may be told better by this
            self._hub.people.end_session(id, "Your session has ended.")
        else:
            self._ends[id] = end

    async def _end_of(self, id: str) -> float:
        if not id.startswith(TOKEN):
            session = await self._store.session(id)
            return session.expires if session is not None else 0.0
        token = await self._store.token(id.removeprefix(TOKEN))
        if token is None or not await self._tokens.works(token):
            return 0.0
        return NEVER if token.expires is None else token.expires
