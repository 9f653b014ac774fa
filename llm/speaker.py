"""Who is speaking: names that are safe to put in a prompt, and replies kept to one speaker.

A model that sees a conversation likes to go on with it: after its own lines it writes
"Finn: ..." and speaks for somebody else. `stop_strings` asks the model's server to end
there; `SpeakerGuard` makes sure of it, since servers take few such strings or none.
"""

import unicodedata
from collections.abc import Iterable, Sequence

MAX_NAME = 60
"""Characters of a name in a prompt. A longer one is a text, not a name."""

MAX_STOPS = 4
"""OpenAI's chat API takes at most four stop strings (its reference, `stop`)."""

_OPENERS = '*_["“'
_CLOSERS = '*_]"”'
_COLONS = ":\uff1a"  # the second is the wide one of Chinese and Japanese
_MARKS = 4
"""At most so many marks (as in `**Finn:**`) on a side of a name: more is decoration."""


def clean_name(name: str) -> str:
    """Make one line of a name: no control or invisible characters, no colons, not too long.

    So nobody's name can start a line of its own in a prompt, or look like a label.
    """
    text = unicodedata.normalize("NFC", name)
    visible = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    for mark in _COLONS + '*[]{}<>"`@#|':
        visible = visible.replace(mark, " ")
    return " ".join(visible.split())[:MAX_NAME].strip() or "Somebody"


def stop_strings(others: Iterable[str], *, limit: int = MAX_STOPS) -> tuple[str, ...]:
    r"""Return texts that end a reply (`"\nFinn:"`), for the first `limit` of `others`."""
    names = dict.fromkeys(clean_name(name) for name in others)
    return tuple(f"\n{name}:" for name in names)[:limit]


class SpeakerGuard:
    r"""Passes a streamed reply through, without its own name and cut where it becomes another's.

        guard = SpeakerGuard("Lyra", ["Finn", "Ada"])
        for delta in reply:
            show(guard.feed(delta))
            if guard.cut:
                break               # and close the upstream: the rest is not wanted
        show(guard.finish())

    A label is a name at the start of a line with a colon after it, bare or in marks:
    `Finn:`, `**Finn**:`, `*Finn:*`, `[Finn]:`, `"Finn":`, in any letter case. Only what may
    still become a label is withheld, with the line break before it, so a reply that is cut
    ends clean. Inside a code fence there are no labels.

    Attributes:
        cut: the reply began to speak for another; all that is fed from now on is dropped.

    """

    def __init__(self, own: str, others: Iterable[str]) -> None:
        self.cut = False
        own_names = _forms([own])
        labels = dict.fromkeys(_forms(others), False) | dict.fromkeys(own_names, True)
        # The longest first: "Ada Lovelace:" is not "Ada" with something after it.
        self._labels = sorted(labels.items(), key=lambda label: -len(label[0]))
        self._held = ""
        self._line = ""  # the beginning of the present line, as far as it was passed on
        self._at_start = True  # of a line, so a label may come
        self._begun = False  # something was passed on
        self._fenced = False
        self._unclosed = ""  # marks that opened before an own label and may close after it
        self._after_label = False

    def feed(self, delta: str) -> str:
        """Take text as it came, return what may be shown of it; it may be empty."""
        text, self._held = self._held + delta, ""
        passed: list[str] = []
        while text and not self.cut:
            step = self._step_label if self._at_start else self._step_line
            text = step(text, passed)
        shown = "".join(passed)
        self._begun = self._begun or bool(shown)
        return shown

    def finish(self) -> str:
        """Return what was withheld when the reply has ended; white space at its end is dropped."""
        held, self._held = self._held, ""
        return "" if self.cut else (held.rstrip() if self._begun else held.strip())

    def _step_line(self, text: str, passed: list[str]) -> str:
        head, newline, rest = text.partition("\n")
        passed.append(head)
        self._line = (self._line + head)[:8]
        if not newline:
            return ""
        if self._line.lstrip().startswith(("```", "~~~")):
            self._fenced = not self._fenced
        self._line = ""
        self._at_start = True
        return "\n" + rest

    def _step_label(self, text: str, passed: list[str]) -> str:
        """Look for a label at the start of a line; the line breaks before it are part of `text`."""
        if self._after_label:
            text = self._drop_closing(text)
            if not text:
                return ""
        body = text.lstrip()
        space = text[: len(text) - len(body)] if self._begun or passed else ""
        end = None if self._fenced else self._label_end(body)
        if body and end is None:
            passed.append(space)
            self._line = body[:0]
            self._at_start = False
            return body
        if not body or end == 0:
            self._held = space + body
            return ""
        return self._found(space, body, end or 0)

    def _found(self, space: str, body: str, end: int) -> str:
        """Cut before another's label (`end` is -1), or leave out one's own and go on."""
        if end < 0:
            self.cut = True
            return ""
        opened = body[: len(body) - len(body.lstrip(_OPENERS))]
        closed = body[:end].rstrip(_COLONS + " \t")[-1:] in _CLOSERS
        self._unclosed = "" if closed else opened
        self._after_label = True
        # The line break before the label stays: what follows is a line of the same speaker.
        return space + body[end:] if body[end:] else self._hold(space)

    def _hold(self, space: str) -> str:
        self._held = space
        return ""

    def _drop_closing(self, text: str) -> str:
        """Drop the marks that close an own label, and the blanks between it and the words."""
        body = text.lstrip()
        space = text[: len(text) - len(body)]
        while self._unclosed and body and body[0] == self._unclosed[-1]:
            self._unclosed, body = self._unclosed[:-1], body[1:]
        stripped = body.lstrip(" \t")
        if not stripped:
            self._held = space
            return ""
        self._after_label, self._unclosed = False, ""
        return space.rstrip(" \t") + stripped

    def _label_end(self, body: str) -> int | None:
        """Where an own label ends; -1 another's, 0 it may become one, None it is none."""
        name_part = body.lstrip(_OPENERS)
        opened = len(body) - len(name_part)
        if opened > _MARKS:
            return None
        if not name_part:
            return 0
        folded = _fold(name_part)
        undecided = False
        for name, own in self._labels:
            if len(folded) < len(name):
                undecided = undecided or name.startswith(folded)
            elif folded.startswith(name):
                after = _colon_after(name_part, len(name))
                if after:
                    return opened + after if own else -1
                undecided = undecided or after == 0
        return 0 if undecided else None


def _colon_after(text: str, start: int) -> int | None:
    """Return where the colon after a name ends; 0 if it may still come, None if it won't."""
    end = start
    while end < len(text) and end - start < _MARKS and text[end] in _CLOSERS + " ":
        end += 1
    if end == len(text):
        return 0
    return end + 1 if text[end] in _COLONS else None


def _fold(text: str) -> str:
    """Fold letter case, one character to one, so that places in the text stay the same."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _forms(names: Iterable[str]) -> Sequence[str]:
    """Names as written and as they stand in prompts, folded; never empty ones."""
    forms = {_fold(form) for name in names for form in (name.strip(), clean_name(name))}
    return sorted(form for form in forms if form)
