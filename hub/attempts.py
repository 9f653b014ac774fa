"""Attempts to log in or register: counted by name and by address, and refused for a while."""

import logging
from time import monotonic

from attrs import frozen

from hub.errors import TooMany
from hub.patience import ADDRESSES, NAMES, NEWCOMERS, Patience, neighbourhood

security = logging.getLogger("hub.security")

REMEMBERED_CHARS = 64
"""Of a name that somebody tried: a stranger decides how long it is, and we keep many."""


@frozen
class Attempt:
    """One attempt of somebody to show who they are; a failure, unless it is forgiven."""

    _names: Patience
    _name: str
    _addresses: Patience
    _where: str

    def forgive(self) -> None:
        """It succeeded, or it failed through no fault of theirs."""
        self._names.forgive(self._name, all=True)
        # Not all: else a guesser logs in as himself now and then, and never has to wait.
        self._addresses.forgive(self._where, all=False)


class Attempts:
    """See the module's own text."""

    def __init__(self) -> None:
        self._names = Patience(NAMES)
        self._addresses = Patience(ADDRESSES)
        self._newcomers = Patience(NEWCOMERS)

    def begin(self, name: str, address: str) -> Attempt:
        """Let somebody try to log in.

        Raises:
            TooMany: not yet.

        """
        name, where, moment = name[:REMEMBERED_CHARS], neighbourhood(address), monotonic()
        wait = max(self._names.wait(name, moment), self._addresses.wait(where, moment))
        if wait:
            _refuse(wait, "log in", address)
        self._names.attempt(name, moment)
        self._addresses.attempt(where, moment)
        return Attempt(self._names, name, self._addresses, where)

    def newcomer(self, address: str) -> None:
        """Let somebody make an account.

        Raises:
            TooMany: not yet.

        """
        where, moment = neighbourhood(address), monotonic()
        if wait := self._newcomers.wait(where, moment):
            _refuse(wait, "make an account", address)
        self._newcomers.attempt(where, moment)


def _refuse(wait: float, what: str, address: str) -> None:
    security.warning("too many attempts to %s from %s", what, address)
    raise TooMany(
        f"Too many attempts. Wait {max(1, round(wait))} seconds, then try to {what} again.",
        code="too_many_attempts",
        retry_after=wait,
    )
