"""Accounts: who may log in, by which name and password, in which role.

Knows the store and nothing of connections: what a change means for those who are connected
is `hub.watch`'s, which also hears of changes that the owner's commands make in a process of
their own. An account's row is read, changed and written back under a lock, so that of two
changes in this process neither is lost.
"""

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import trio
from attrs import frozen

from hub.attempts import Attempts
from hub.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HubError,
    NotFound,
    Unauthorized,
)
from hub.ids import secret_id
from hub.names import clean, key
from hub.passwords import Passwords, check
from hub.records import Account, Role, Token, User
from hub.room import now
from hub.store.contract import (
    Change,
    EndSessions,
    RemoveToken,
    RemoveUser,
    SaveAccount,
    SaveIdentity,
    SaveUser,
    Store,
    StoreError,
)

security = logging.getLogger("hub.security")

OWNER = "the owner"
"""Who did it, in the log, where it was a command and nobody who is logged in."""

MOST_NAMES = 100
"""Names tried for somebody whom another service sends: "Ada", "Ada 2", and so on."""


@frozen
class Person:
    """A user with an account."""

    user: User
    account: Account


class Accounts:
    """See the module's own text.

    Args:
        name_chars: the longest name.

    """

    def __init__(self, store: Store, passwords: Passwords, *, name_chars: int) -> None:
        self._store = store
        self._passwords = passwords
        self._name_chars = name_chars
        self._attempts = Attempts()
        self._changing = trio.Lock()

    # ── who is there ─────────────────────────────────────────────────────────────────

    async def everybody(self) -> Sequence[Person]:
        """Return all accounts, by name."""
        return [Person(user, account) for user, account in await self._store.accounts()]

    async def find(self, id: str) -> Person:
        """Return an account by its user's id.

        Raises:
            NotFound: there is none.

        """
        user, account = await self._store.user(id), await self._store.account(id)
        if user is None or account is None:
            raise NotFound("There is no such account.", code="no_account")
        return Person(user, account)

    async def named(self, name: str) -> Person:
        """Return an account by its name.

        Raises:
            NotFound: there is none.

        """
        account = await self._store.account_by_key(key(name))
        user = await self._store.user(account.user) if account is not None else None
        if user is None or account is None:
            raise NotFound("There is no account of this name.", code="no_account")
        return Person(user, account)

    async def check_free(self, name: str, *, but: str | None = None) -> None:
        """Refuse a name that is an account's, or looks like one's; `but` is whose it may be.

        Raises:
            Conflict: it is taken.

        """
        account = await self._store.account_by_key(key(name))
        if account is not None and account.user != but:
            raise Conflict("This name, or one that looks like it, is taken.", code="name_taken")

    # ── coming in ────────────────────────────────────────────────────────────────────

    async def register(
        self,
        name: str,
        password: str | None,
        *,
        role: Role = "user",
        guest: User | None = None,
        invite: Token | None = None,
        address: str | None = None,
    ) -> User:
        """Make an account.

        Args:
            name: how people see its owner, who logs in by it.
            password: None for somebody who comes in another way.
            role: from the beginning.
            guest: who becomes an account, and stays the same user with the same rooms.
            invite: what lets them in; used up by it.
            address: where a stranger asks from; None for the owner.

        Raises:
            BadRequest: name or password won't do.
            Conflict: the name is taken.
            TooMany: too many new accounts from this address.

        """
        name = clean(name, self._name_chars, "name")
        await self.check_free(name)
        if password is not None:
            check(password)
        if address is not None:
            self._attempts.newcomer(address)
        hashed = await self._passwords.hash(password) if password is not None else None
        user = User(guest.id if guest else secret_id(), name, guest=False, role=role)
        used: list[Change] = [RemoveToken(invite.id)] if invite else []
        await self._add(user, hashed, *used)
        security.info("account %s (%s) made from %s", user.id, role, address or OWNER)
        return user

    async def log_in(self, name: str, password: str, address: str) -> Person:
        """Return who has this name and password.

        Raises:
            Unauthorized: nobody has. An unknown name takes as long and is told the same.
            Forbidden: the account is disabled.
            TooMany: after failures, of this name or from this address.

        """
        account = await self._store.account_by_key(key(name))
        user = account.user if account else None
        await self._prove(key(name), account, password, address)
        person = await self.find(user or "")
        if person.account.disabled:
            security.warning("log-in of %s, who is disabled, from %s", user, address)
            raise Forbidden("This account is disabled.", code="disabled")
        security.info("log-in of %s from %s", user, address)
        return person

    async def unchanged(self, person: Person) -> bool:
        """Whether somebody may still come in by the password by which they just did."""
        account = await self._store.account(person.user.id)
        return (
            account is not None
            and not account.disabled
            and account.password == person.account.password
        )

    async def _prove(self, name: str, account: Account | None, password: str, address: str) -> None:
        """Return if the password is the account's."""
        attempt = self._attempts.begin(name, address)
        try:
            verdict = await self._passwords.verify(account.password if account else None, password)
        except HubError:
            attempt.forgive()
            raise
        if account is None or not verdict.right:
            # The name itself stays out of the log: it may be a password in the wrong field.
            who = account.user if account else "an unknown name"
            security.warning("wrong password for %s from %s", who, address)
            raise Unauthorized(
                "This name and password don't belong together.", code="wrong_password"
            )
        attempt.forgive()
        if verdict.fresh is not None:
            await self._change_account(account.user, password=verdict.fresh)

    async def identified(
        self,
        subject: str,
        name: str,
        *,
        adopt: bool = False,
        guest: User | None = None,
        newcomers: bool = True,
    ) -> User:
        """Return the user whom another service knows as `subject`; a new account at first.

        Args:
            subject: the service and its name of the user, never reused for somebody else.
            name: how the user is called there.
            adopt: the service's names are the owner's to give: an account without a password
                that the owner made under this very name is this user's.
            guest: who becomes the new account, if it is one.
            newcomers: whether there may be a new account.

        Raises:
            Forbidden: the account is disabled, or there is none and must be none.
            Conflict: the name is taken, and `adopt` leaves no room for another.

        """
        id = await self._store.identity(subject)
        if id is None and not newcomers:
            raise Forbidden(
                "You have no account here. Ask whoever runs this hub.", code="registration_closed"
            )
        if id is None:
            async with self._changing:  # a browser asks twice at once, but is one user
                id = await self._store.identity(subject)
                id = id or await self._introduce(subject, name, adopt=adopt, guest=guest)
        person = await self.find(id)
        if person.account.disabled:
            raise Forbidden("This account is disabled.", code="disabled")
        return person.user

    async def _introduce(self, subject: str, name: str, *, adopt: bool, guest: User | None) -> str:
        name = clean(name[: self._name_chars], self._name_chars, "name")
        there = await self._adoptable(name) if adopt else None
        if there is not None:
            await self._store.commit(SaveIdentity(subject, there))
            return there
        if adopt:
            await self.check_free(name)
        id = guest.id if guest else secret_id()
        user = User(id, await self._free_name(name), guest=False, role="user")
        await self._add(user, None, SaveIdentity(subject, user.id))
        security.info("account %s made for somebody whom another service sent", user.id)
        return user.id

    async def _adoptable(self, name: str) -> str | None:
        account = await self._store.account_by_key(key(name))
        user = await self._store.user(account.user) if account else None
        # A look-alike is not enough, nor an account that somebody made for themselves.
        if account is None or user is None or account.password is not None:
            return None
        return user.id if user.name.casefold() == name.casefold() else None

    async def _free_name(self, name: str) -> str:
        for n in range(1, MOST_NAMES):
            ending = f" {n}" if n > 1 else ""
            candidate = name[: self._name_chars - len(ending)] + ending
            if await self._store.account_by_key(key(candidate)) is None:
                return candidate
        raise Conflict("This name is taken.", code="name_taken")

    async def _add(self, user: User, hashed: str | None, *more: Change) -> None:
        account = Account(user.id, key(user.name), hashed, at=now())
        try:
            await self._store.commit(SaveUser(user), SaveAccount(account), *more)
        except StoreError:
            await self.check_free(user.name, but=user.id)  # somebody was faster
            raise

    # ── changes ──────────────────────────────────────────────────────────────────────

    async def change_password(
        self, user: User, old: str, new: str, *, session: str, address: str
    ) -> None:
        """Have somebody change their own password; their other sessions end.

        Raises:
            Unauthorized: the old one is wrong.
            BadRequest: the new one won't do.

        """
        account = (await self.find(user.id)).account
        if account.password is None:
            raise Forbidden("You log in without a password.", code="no_passwords")
        check(new)
        await self._prove(account.key, account, old, address)
        await self.set_password(user.id, new, keep=session)

    async def set_password(self, id: str, new: str | None, *, keep: str | None = None) -> None:
        """Set a password, or None: no password works. All sessions but `keep` end.

        Raises:
            BadRequest: it won't do.
            NotFound: there is no such account.

        """
        hashed = await self._passwords.hash(new) if new is not None else None
        await self._change_account(id, EndSessions(id, keep), password=hashed)
        security.info("password of %s changed", id)

    async def rename(self, user: User, name: str) -> User:
        """Give an account another name, by which its owner logs in from now on.

        Raises:
            Conflict: it is taken.

        """
        name = clean(name, self._name_chars, "name")
        await self.check_free(name, but=user.id)
        async with self._changing:
            person = await self.find(user.id)
            if person.account.password is None:  # see `identified`: names are the owner's there
                raise Forbidden("Your name comes from where you log in.", code="no_passwords")
            renamed = msgspec.structs.replace(person.user, name=name)
            account = msgspec.structs.replace(person.account, key=key(name))
            try:
                await self._store.commit(SaveUser(renamed), SaveAccount(account))
            except StoreError:
                await self.check_free(name, but=user.id)
                raise
        return renamed

    async def set_role(self, id: str, role: Role, *, by: str = OWNER) -> User:
        """Give an account another role.

        Raises:
            NotFound: there is no such account.
            Conflict: nobody would be admin any more.

        """
        if role == "guest":
            raise BadRequest("An account can't be a guest.", code="bad_payload")
        async with self._changing:
            person = await self.find(id)
            if role != "admin":
                await self._check_another_admin(person)
            user = msgspec.structs.replace(person.user, role=role)
            await self._store.commit(SaveUser(user))
        security.info("role of %s is now %s, by %s", id, role, by)
        return user

    async def set_disabled(self, id: str, disabled: bool, *, by: str = OWNER) -> None:
        """Lock somebody out, or let them in again. All sessions of who is locked out end.

        Raises:
            NotFound: there is no such account.
            Conflict: nobody would be admin any more.

        """
        if disabled:
            await self._check_another_admin(await self.find(id))
            await self._change_account(id, EndSessions(id), disabled=True)
        else:
            await self._change_account(id, disabled=False)
        security.info("%s is %s, by %s", id, "disabled" if disabled else "enabled", by)

    async def remove(self, id: str) -> None:
        """Remove an account and its user for good; what they said stays.

        Raises:
            NotFound: there is no such account.
            Conflict: nobody would be admin any more.

        """
        await self._check_another_admin(await self.find(id))
        await self._store.commit(RemoveUser(id))
        security.info("account %s removed", id)

    async def touch(self, id: str, *more: Change) -> None:
        """Store changes of what hangs on an account, so that a running hub notices."""
        await self._change_account(id, *more)

    async def _change_account(self, id: str, *more: Change, **fields: Any) -> None:
        async with self._changing:  # no deadline of its own: the store has them
            person = await self.find(id)
            account = msgspec.structs.replace(person.account, **fields)
            await self._store.commit(SaveAccount(account), *more)

    async def _check_another_admin(self, person: Person) -> None:
        """Refuse to take away the last one who could undo it."""
        if person.user.role != "admin" or person.account.disabled:
            return
        for other in await self.everybody():
            enabled = other.user.role == "admin" and not other.account.disabled
            if enabled and other.user.id != person.user.id:
                return
        raise Conflict("This is the last admin. Make another one first.", code="last_admin")
