"""Passwords: hashed with argon2id (RFC 9106), beside the event loop, a few at a time.

One hash takes some tenths of a second and 64 MiB, on purpose: that is what a thief of the
database would pay for each guess. It releases the interpreter's lock while it works, so a
thread keeps the loop free; a limiter keeps the memory bounded.
"""

import base64
import secrets
import unicodedata
from collections.abc import Callable
from typing import TypeVar

import argon2
import trio
from attrs import frozen

from hub.errors import BadRequest, Unavailable

_T = TypeVar("_T")

SHORTEST = 8
"""Characters, as NIST SP 800-63B section 5.1.1.2 has it; no other rules, for they don't help."""

LONGEST = 256
"""Characters: more than any passphrase; what is longer costs time to hash and helps nobody."""

AT_ONCE = 2
"""Hashes at the same time: 64 MiB and a core each."""

MOST_WAITING = 40
"""Who finds so many before them is told to come back: ten seconds' work, at two at once."""

# Second recommended option of RFC 9106 section 4; one lane, for two threads are busy already.
PARAMETERS = argon2.Parameters(
    type=argon2.Type.ID,
    version=argon2.low_level.ARGON2_VERSION,
    salt_len=16,
    hash_len=32,
    time_cost=3,
    memory_cost=64 * 1024,
    parallelism=1,
)


@frozen
class Verdict:
    """Whether a password was right.

    Attributes:
        right: it was.
        fresh: a new hash to be kept, where the old one was made with other parameters.

    """

    right: bool
    fresh: str | None = None


class Passwords:
    """See the module's own text. One for a hub, so that the limits are those of the hub."""

    def __init__(self, parameters: argon2.Parameters | None = None) -> None:
        chosen = parameters or PARAMETERS
        self._hasher = argon2.PasswordHasher.from_parameters(chosen)
        self._decoy = _decoy(chosen)
        self._limiter = trio.CapacityLimiter(AT_ONCE)

    async def hash(self, password: str) -> str:
        """Return a hash of a new password (PHC string).

        Raises:
            BadRequest: it is too short or too long.
            Unavailable: too many wait.

        """
        check(password)
        return await self._beside(lambda: self._hasher.hash(_prepared(password)))

    async def verify(self, hashed: str | None, password: str) -> Verdict:
        """Compare a password with a hash; with None it takes as long, and is wrong.

        Raises:
            Unavailable: too many wait.

        """
        return await self._beside(lambda: self._verify(hashed, password[: LONGEST + 1]))

    def _verify(self, hashed: str | None, password: str) -> Verdict:
        prepared = _prepared(password)
        try:
            self._hasher.verify(hashed or self._decoy, prepared)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return Verdict(right=False)
        if hashed is None:
            return Verdict(right=False)
        stale = self._hasher.check_needs_rehash(hashed)
        return Verdict(right=True, fresh=self._hasher.hash(prepared) if stale else None)

    async def _beside(self, job: Callable[[], _T]) -> _T:
        if self._limiter.statistics().tasks_waiting >= MOST_WAITING:
            raise Unavailable(
                "Too many people are logging in just now. Try again soon.",
                code="overloaded",
                retry_after=5,
            )
        # No deadline of its own: a bounded number of jobs of bounded time is before it.
        return await trio.to_thread.run_sync(job, limiter=self._limiter)


def check(password: str) -> None:
    """Refuse a new password that is too short or too long.

    Raises:
        BadRequest: it is.

    """
    if len(password) < SHORTEST:
        raise BadRequest(f"A password has at least {SHORTEST} characters.", code="short_password")
    if len(password) > LONGEST:
        raise BadRequest(f"A password has at most {LONGEST} characters.", code="too_long")


def _prepared(password: str) -> bytes:
    # The same letters may be typed as other code points on another machine (NIST, as above).
    return unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")


def _decoy(parameters: argon2.Parameters) -> str:
    """Return a hash of nothing (PHC string), which takes as long to compare with as a real one."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (parameters.salt_len, parameters.hash_len)
    )
    costs = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    return f"$argon2id$v={parameters.version}${costs}${salt}${digest}"
