import io
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.logs import OneLine, escaped


def written(message: str, *arguments: object, trace: bool = False) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine("%(levelname)s %(name)s: %(message)s"))
    logger = logging.Logger("test")  # noqa: LOG001 - not one that others see
    logger.addHandler(handler)
    logger.warning(message, *arguments, exc_info=sys.exc_info() if trace else None)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nWARNING hub: b", r"a\nWARNING hub: b"),
        ("a\r\x1b[31m\x00", r"a\r\x1b[31m\x00"),
        ("a\u2028b\u202ec\x85", r"a\u2028b\u202ec\x85"),
        ("Zoë 李 👩", "Zoë 李 👩"),
        ("a\u00a0b", "a\u00a0b"),
    ],
)
def test_what_strangers_say_stays_on_its_line(text: str, shown: str) -> None:
    assert written("path %s", text) == f"WARNING test: path {shown}\n"


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    assert len(escaped(text).splitlines()) <= 1
    assert len(written("%s", text).splitlines()) == 1


def test_no_line_of_a_traceback_passes_for_a_record() -> None:
    try:
        raise ValueError("x\nWARNING hub.security: logged in: admin\x1b[2J")
    except ValueError:
        lines = written("it failed", trace=True).splitlines()
    assert lines[0] == "WARNING test: it failed"
    assert len(lines) > 3
    assert all(line.startswith("  | ") for line in lines[1:])
    assert "\x1b" not in "".join(lines)
