"""What the log looks like: each record one line that nobody else can forge.

Texts of strangers get into it: addresses, paths, names. Their control characters are escaped,
so that no line break begins a line that looks like a record of ours, and no escape sequence
reaches a terminal. The further lines of a traceback are set off by a bar.
"""

import logging
import sys
import unicodedata
from typing import Final

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# Control characters, and those that turn the direction of what follows or break lines.
_HIDDEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")


class OneLine(logging.Formatter):
    """See the module's own text."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Put the record on one line."""
        return escaped(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Put the record on one line, and its traceback below."""
        lines = super().format(record).splitlines()
        return "\n  | ".join([lines[0], *(escaped(line) for line in lines[1:])])


def escaped(text: str) -> str:
    r"""Return `text` with what can't be seen written as in Python, for instance ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in _HIDDEN else one
        for one in text
    )


def log_to_stderr(level: str) -> None:
    """Send what is logged from `level` on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
