"""When a rate limit is over, by the headers that clouds send beside or instead of Retry-After.

Only limits with nothing left count: the others say when they would be full again.

Sources: https://platform.openai.com/docs/guides/rate-limits (durations such as `6m0s`),
https://docs.anthropic.com/en/api/rate-limits (times as in RFC 3339).
"""

import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime

OPENAI = ("requests", "tokens")
ANTHROPIC = ("requests", "tokens", "input-tokens", "output-tokens")

DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
UNITS = (86400.0, 3600.0, 60.0, 1.0, 0.001)  # seconds, of the groups of DURATION


def reset_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until all limits that are used up are there again; None if none says so.

    What makes no sense counts as not said.
    """
    waits = [wait for wait in _waits(headers) if wait is not None]
    return max(waits, default=None)


def _waits(headers: Mapping[str, str]) -> Iterator[float | None]:
    for kind in OPENAI:
        if headers.get(f"x-ratelimit-remaining-{kind}") == "0":
            yield _duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
    for kind in ANTHROPIC:
        if headers.get(f"anthropic-ratelimit-{kind}-remaining") == "0":
            yield _until(headers.get(f"anthropic-ratelimit-{kind}-reset", ""))


def _duration(text: str) -> float | None:
    found = DURATION.fullmatch(text)
    if not text or found is None:
        return None
    return sum(
        float(n) * unit for n, unit in zip(found.groups(), UNITS, strict=True) if n is not None
    )


def _until(text: str) -> float | None:
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return None
    if then.tzinfo is None:
        return None
    return max(0.0, then.timestamp() - time.time())
