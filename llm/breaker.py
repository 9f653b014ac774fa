"""A breaker: who failed again and again is left alone for a while. Pure, time is passed in.

    closed ──failures──> open ──rest──> half-open ──first text──> closed
                           ^────────failed─────────┘

Half-open lets one call through; by its outcome the breaker closes, or rests again.
"""

from collections import deque
from typing import Literal

from attrs import define, field, frozen

from llm.provider import Fault

State = Literal["closed", "open", "half-open"]

# These say something about the model, the others about the question. A model that is `busy`
# is well; it says itself when to come back.
COUNTED: frozenset[Fault] = frozenset(
    {"key", "broken", "overloaded", "unreachable", "stalled", "garbled"}
)


@frozen
class BreakerSettings:
    """When it opens, and for how long. Times in seconds.

    Attributes:
        failures: so many within `window` open it: more than the tries of one call, so that
            one bad question does not.
        share: if they are at least this share of all calls in the window; a busy model
            with a few errors is not down.
        window: failures longer ago do not count.
        rest: how long it stays open; a server restarts in about as long.

    """

    failures: int = 5
    share: float = 0.5
    window: float = 30.0
    rest: float = 15.0


@define
class Breaker:
    """See the module's own text."""

    settings: BreakerSettings
    _outcomes: deque[tuple[float, bool]] = field(factory=deque, init=False)
    _opened: float | None = field(default=None, init=False)
    _probing: bool = field(default=False, init=False)

    def state(self, now: float) -> State:
        """What it is at this time."""
        if self._opened is None:
            return "closed"
        return "open" if now < self._opened + self.settings.rest else "half-open"

    def rest(self, now: float) -> float:
        """Seconds until a call may be tried; 0 if it may be now."""
        match self.state(now):
            case "closed":
                return 0.0
            case "open":
                assert self._opened is not None
                return self._opened + self.settings.rest - now
            case "half-open":
                return self.settings.rest if self._probing else 0.0

    def enter(self, now: float) -> "Attempt | None":
        """Begin a call; None if it may not be now."""
        if self.rest(now) > 0:
            return None
        probe = self.state(now) == "half-open"
        self._probing = self._probing or probe
        return Attempt(self, probe)

    def _open(self, now: float) -> None:
        self._opened = now
        self._outcomes.clear()

    def _judge(self, now: float) -> None:
        bad = sum(failed for _, failed in self._outcomes)
        if bad >= self.settings.failures and bad >= self.settings.share * len(self._outcomes):
            self._open(now)

    def _note(self, now: float, *, failed: bool) -> None:
        self._outcomes.append((now, failed))
        while self._outcomes[0][0] <= now - self.settings.window:
            self._outcomes.popleft()


@define
class Attempt:
    """A call that a breaker let through. Of its outcomes the first counts."""

    _breaker: Breaker
    _probe: bool
    _over: bool = False

    def succeeded(self, now: float) -> None:
        """It brought text."""
        breaker = self._breaker
        if self._finish():
            if self._probe:
                breaker._opened = None
            breaker._note(now, failed=False)

    def failed(self, now: float) -> None:
        """It failed by a fault of the model."""
        breaker = self._breaker
        if not self._finish():
            return
        if self._probe:
            breaker._open(now)
        elif breaker._opened is None:  # else it is from before, and says nothing new
            breaker._note(now, failed=True)
            breaker._judge(now)

    def left(self) -> None:
        """It ended and says nothing about the model: stopped, or refused for its content."""
        self._finish()

    def _finish(self) -> bool:
        first, self._over = not self._over, True
        if first and self._probe:
            self._breaker._probing = False
        return first
