import time
from email.utils import formatdate

import pytest

from llm.faults import Report, fault_of, model_error, report_of_body, retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_when_to_come_back(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


def test_when_to_come_back_as_a_date() -> None:
    date = formatdate(time.time() + 100, usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(100, abs=10)


def test_milliseconds_go_first() -> None:
    assert retry_after({"retry-after": "2", "retry-after-ms": "1500"}) == 1.5
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("body", "report"),
    [
        (b'{"error": {"message": "m", "type": "t", "code": 5}}', Report("t", "5", "m")),
        (b'{"error": "m"}', Report(message="m")),
        (b'{"detail": "m"}', Report(message="m")),
        (b'{"object": "error", "message": "m", "code": null}', Report(message="m")),
        (b"plain", Report(message="plain")),
        (b"7", Report(message="7")),
    ],
)
def test_errors_come_in_many_forms(body: bytes, report: Report) -> None:
    assert report_of_body(body) == report


@pytest.mark.parametrize(
    ("words", "status", "fault"),
    [
        ("This model's maximum context length is 4096 tokens", 400, "too_long"),
        ("Your credit balance is too low", 400, "key"),
        ("violates: content_policy_violation", 400, "policy"),
        ("whatever", 400, "refused"),
        ("whatever", 418, "refused"),
        ("whatever", 599, "broken"),
        ("whatever", None, "broken"),
    ],
)
def test_words_say_more_than_a_status(words: str, status: int | None, fault: str) -> None:
    assert fault_of(Report(message=words), status) == fault


def test_sentences_begin_large_and_details_are_short() -> None:
    error = model_error("the model's server", "cut", detail="x" * 100_000)
    assert str(error) == "The connection to the model's server broke in the middle of the reply."
    assert str(model_error("the model's server", "stalled")).startswith("The model's")
    assert len(error.detail) < 5000
