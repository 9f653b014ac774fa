"""What can go wrong, told in the user's words, and what each transport makes of it.

    HubError                status  code
    ├── BadRequest           400    bad_request (or a code of its own)
    ├── Unauthorized         401    unauthorized
    ├── Forbidden            403    forbidden
    ├── NotFound             404    not_found
    ├── Conflict             409    conflict
    ├── TooMany              429    too_many        retry_after
    └── Unavailable          503    unavailable     retry_after

HTTP answers with the status and ``{"error", "code"}``; a dialect with its own error
message. Anything that is not a `HubError` is our fault: it is logged, and the other side
is told no more than that.
"""

from enum import IntEnum


class HubError(Exception):
    """A request can't be done; the text is a sentence for the person who asked."""

    status = 500
    code = "internal"

    def __init__(
        self, sentence: str, *, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(sentence)
        if code is not None:
            self.code = code
        self.retry_after = retry_after


class BadRequest(HubError):
    """The request itself is wrong."""

    status = 400
    code = "bad_request"


class Unauthorized(HubError):
    """Who asks is not known."""

    status = 401
    code = "unauthorized"


class Forbidden(HubError):
    """Who asks may not do this."""

    status = 403
    code = "forbidden"


class NotFound(HubError):
    """There is no such thing, or it must not be known that there is."""

    status = 404
    code = "not_found"


class Conflict(HubError):
    """It can't be done in the present state."""

    status = 409
    code = "conflict"


class TooMany(HubError):
    """More than a limit allows in a time; `retry_after` seconds until it may be tried again."""

    status = 429
    code = "too_many"


class Unavailable(HubError):
    """It can't be done just now, through no fault of who asks."""

    status = 503
    code = "unavailable"


class Close(IntEnum):
    """Why the hub closes a WebSocket (RFC 6455 section 7.4), and what the client should do."""

    GOING_AWAY = 1001
    """The server goes away: come back, with a pause."""
    PROTOCOL = 1002
    """Broken protocol: coming back the same way is no use."""
    POLICY = 1008
    """Not allowed (any more): don't come back without logging in."""
    TOO_BIG = 1009
    """A frame was bigger than the limit."""
    INTERNAL = 1011
    """Our fault: come back."""
    OVERLOADED = 1013
    """Too much to do: come back later."""
    TOO_SLOW = 4008
    """The client fell behind the window of a log: come back with `since`."""
