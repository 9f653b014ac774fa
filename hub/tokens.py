"""API tokens, by which programs speak for an account, and invites, which let somebody make one.

Both are secrets of which the store keeps only a hash. They are 256 random bits, so a plain
SHA-256 is enough: nobody tries them all.
"""

import hashlib
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from hub.accounts import Accounts
from hub.errors import Forbidden, NotFound, TooMany
from hub.names import clean
from hub.records import Token, User
from hub.room import now
from hub.store.contract import RemoveToken, SaveToken, Store

security = logging.getLogger("hub.security")

PREFIX = "hub_"
"""Of every secret, so that people and scanners of leaked secrets know what it is."""

MOST = 50
"""Tokens, or invites, of one user: more than anybody keeps apart."""

LABEL_CHARS = 60
"""A token's label: a few words."""

DAY = 86_400.0


class Tokens:
    """See the module's own text."""

    def __init__(self, store: Store, accounts: Accounts) -> None:
        self._store = store
        self._accounts = accounts
        self._in_use: set[str] = set()

    async def add(
        self, user: User, kind: Literal["api", "invite"], label: str, days: float | None
    ) -> tuple[str, Token]:
        """Make a token; returns its secret, which is shown this once, and what is kept.

        Args:
            user: for whom it speaks, or who invites.
            kind: `api` or `invite`.
            label: what it is for.
            days: how long it works; None for ever.

        Raises:
            Forbidden: a guest has no tokens.
            TooMany: there are so many already.

        """
        if user.guest:
            raise Forbidden("Only an account has tokens. Register first.", code="guest")
        if len(await self._store.tokens(kind, user.id)) >= MOST:
            raise TooMany(f"There are {MOST} of them already. Remove one first.")
        secret = PREFIX + secrets.token_urlsafe(32)
        expires = time.time() + days * DAY if days is not None else None
        label = clean(label, LABEL_CHARS, "label") if label.strip() else ""
        token = Token(_hash(secret), kind, user.id, label, now(), expires)
        await self._store.commit(SaveToken(token))
        security.info("%s token %s made for %s", kind, token.id[:8], user.id)
        return secret, token

    async def of(self, user: str, kind: str = "api") -> Sequence[Token]:
        """Return a user's tokens, the oldest first."""
        return await self._store.tokens(kind, user)

    async def remove(self, user: str, id: str) -> Token:
        """End a user's token, found by its id or the beginning of it.

        Raises:
            NotFound: the user has none of this id, or several that begin so.

        """
        mine = [*await self.of(user), *await self.of(user, "invite")]
        found = [token for token in mine if len(id) >= 8 and token.id.startswith(id)]
        if len(found) != 1:
            raise NotFound("There is no such token.", code="no_token")
        # The account is touched as well, so that a hub in another process closes the sockets.
        await self._accounts.touch(user, RemoveToken(found[0].id))
        security.info("token %s of %s removed", found[0].id[:8], user)
        return found[0]

    async def api(self, secret: str) -> Token | None:
        """Return the API token with this secret, if it works."""
        token = await self._store.token(_hash(secret))
        return (
            token if token is not None and token.kind == "api" and await self.works(token) else None
        )

    async def works(self, token: Token) -> bool:
        """Whether a token has not expired, and its user may come in."""
        if token.expires is not None and token.expires <= time.time():
            return False
        account = await self._store.account(token.user)
        return account is not None and not account.disabled

    async def invite(self, secret: str) -> Token:
        """Return the invite with this secret.

        Raises:
            Forbidden: there is none, any more; or who invited may not come in themselves.

        """
        token = await self._store.token(_hash(secret))
        if token is None or token.kind != "invite" or not await self.works(token):
            raise Forbidden("This invitation was used already, or has expired.", code="bad_invite")
        return token

    @contextmanager
    def redeeming(self, secret: str | None) -> Iterator[None]:
        """Keep an invite for the block alone: of two at once only one can use it up.

        Raises:
            Forbidden: somebody is using it just now.

        """
        if secret in self._in_use:
            raise Forbidden("This invitation was used already.", code="bad_invite")
        if secret is not None:
            self._in_use.add(secret)
        try:
            yield
        finally:
            self._in_use.discard(secret or "")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
