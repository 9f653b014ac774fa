"""Turns what goes wrong at the other side into a `ModelError` with a sentence for people.

Sources: https://platform.openai.com/docs/guides/error-codes,
https://docs.anthropic.com/en/api/errors, and the error types of llama.cpp's server.
"""

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec
from attrs import frozen

from llm.provider import Fault, ModelError
from llm.ratelimits import reset_after

MAX_DETAIL = 2000  # characters of what the other side said that go to the log

SENTENCES: dict[Fault, str] = {
    "key": "{who} did not accept the key, or the key may not do this. "
    "Whoever runs this hub has to look at it.",
    "not_found": "{who} has no model of that name, or its address is wrong. "
    "Whoever runs this hub has to look at it.",
    "refused": "{who} did not accept the question in this form.",
    "too_long": "The conversation is too long for the model.",
    "policy": "{who} declined to answer this because of its content.",
    "busy": "{who} takes no more questions just now. Please try again {later}.",
    "overloaded": "{who} is overloaded just now. Please try again {later}.",
    "broken": "{who} has trouble of its own just now. Please try again {later}.",
    "unreachable": "{who} cannot be reached just now. Please try again {later}.",
    "cut": "The connection to {who} broke in the middle of the reply.",
    "stalled": "{who} has been silent for too long.",
    "garbled": "{who} sent something that is not a reply. "
    "Whoever runs this hub should check its address.",
}

BY_STATUS: dict[int, Fault] = {
    401: "key",
    402: "key",
    403: "key",
    404: "not_found",
    405: "not_found",
    408: "broken",
    409: "broken",
    413: "too_long",
    425: "broken",
    429: "busy",
    501: "not_found",
    503: "overloaded",
    529: "overloaded",
}

BY_KIND: dict[str, Fault] = {
    "api_error": "broken",
    "authentication_error": "key",
    "invalid_request_error": "refused",
    "not_found_error": "not_found",
    "overloaded_error": "overloaded",
    "permission_error": "key",
    "rate_limit_error": "busy",
    "rate_limit_exceeded": "busy",
    "server_error": "broken",
    "timeout_error": "broken",
    "unavailable_error": "overloaded",
}

# Words that say more than the status does, which is a bare 400 or 429 in these cases.
BY_WORDS: tuple[tuple[Fault, tuple[str, ...]], ...] = (
    (
        "too_long",
        (
            "context_length_exceeded",
            "exceed_context_size_error",
            "request_too_large",
            "maximum context length",
            "prompt is too long",
        ),
    ),
    ("policy", ("content_policy_violation", "content_filter", "content management policy")),
    ("key", ("insufficient_quota", "billing_error", "credit balance is too low")),
)


@frozen
class Report:
    """What the other side says about its error, as far as it says anything."""

    kind: str = ""
    code: str = ""
    message: str = ""

    @property
    def words(self) -> str:
        """All that was said, to look for words in."""
        return f"{self.kind} {self.code} {self.message}".lower()


class ReportedError(Exception):
    """An error that came as an event in the middle of a stream."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.message)
        self.report = report


def report_of(value: object) -> Report:
    """Read an error in any form that servers give it: `{error: {…}}`, `{error: ""}`, `{…}`."""
    if isinstance(value, dict):
        inner = value.get("error", value)
        if isinstance(inner, dict):
            message = inner.get("message", inner.get("detail", ""))
            return Report(_text(inner.get("type")), _text(inner.get("code")), _text(message))
        return Report(message=_text(inner))
    return Report(message=_text(value))


def report_of_body(body: bytes) -> Report:
    """Read the body of an answer that is an error; it may be anything."""
    try:
        return report_of(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Report(message=body.decode(errors="replace"))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def fault_of(report: Report, status: int | None = None) -> Fault:
    """Say what kind of trouble it is, by its words, its status, its type, in this order."""
    words = report.words
    for fault, signs in BY_WORDS:
        if any(sign in words for sign in signs):
            return fault
    if status is None:
        if report.kind in BY_KIND:
            return BY_KIND[report.kind]
        status = int(report.code) if report.code.isdecimal() else 500
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status >= 500:
        return "broken"
    # We follow no redirects: an address that sends us elsewhere is not the model's.
    return "refused" if status >= 400 else "not_found"


def model_error(
    who: str,
    fault: Fault,
    *,
    status: int | None = None,
    retry_after: float | None = None,
    detail: str = "",
) -> ModelError:
    """Make the error with its sentence; `who` is what people call the model's provider."""
    later = "in a little while"
    if retry_after is not None:
        later = f"in {max(1, math.ceil(retry_after))} s"
    sentence = SENTENCES[fault].format(who=who, later=later)
    return ModelError(
        fault,
        sentence[:1].upper() + sentence[1:],
        status=status,
        retry_after=retry_after,
        detail=detail[:MAX_DETAIL],
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` (RFC 9110 section 10.2.3: seconds or a date), or None.

    OpenAI's finer `retry-after-ms` goes first. Without either, a limit that is used up says it.
    What makes no sense counts as not said.
    """
    if (in_ms := headers.get("retry-after-ms")) is not None:
        seconds = _number(in_ms)
        if seconds is not None:
            return seconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return reset_after(headers)
    seconds = _number(value)
    return _until(value) if seconds is None else seconds


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until(date: str) -> float | None:
    try:
        then = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, then - time.time())
