"""Who answers, and when: turn-taking as a state machine without clock, task or socket.

The room owns an `Agenda`, tells it what happens and does what it says:

    agenda.say(Waiting(id, text, to=addressed(names, cast)))      # in the reader's task
    ...
    while turn := agenda.next(cast, answer):                      # in the room's turn task
        while speaker := agenda.speaker:
            agenda.replied(await reply(speaker, turn))            # also after a failed one

States and what leads from one to another; what is not in the table changes nothing:

    state    event                      then
    idle     say, speak, talk           queued
    queued   say, speak, talk           queued: prompts are answered together
    queued   next, somebody answers     running, reply 1 of n
    queued   next, nobody answers       queued if more waits, else idle; the prompts are done with
    queued   stop                       idle, if only self-talk was left; else queued
    running  say, speak, talk           running: kept for the next turn
    running  replied, more to come      running, reply i + 1 of n
    running  replied, that was the last queued if anything waits, else idle
    running  stop                       as after the last reply; self-talk ends as well

What waits goes in this order: prompts, the oldest first, with all others for the same eyes
(a whisper is never answered together with what everybody sees) up to one that wants a turn
of its own; then characters that were asked to speak; then self-talk.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random
from typing import Literal, TypeAlias

from attrs import Factory, define, field, frozen
from msgspec.structs import replace

from hub.errors import BadRequest
from hub.records import Answer, Character

MAX_SELF_TALK = 20
"""Turns that characters may talk among themselves: each costs a call of a model."""

SAME_ALONE = 2
"""So often in a row may the same character answer alone by chance; then another joins in."""

State: TypeAlias = Literal["idle", "queued", "running"]


class TurnError(BadRequest):
    """Something was asked of a cast that it cannot do."""

    code = "bad_turn"


@frozen
class Waiting:
    """A prompt that waits for its answer.

    Attributes:
        id: of the message.
        text: what names are looked for in.
        to: ids of characters that must answer, see `addressed`; none: the answer mode decides.
        whisper: whose whisper it is (a user id), None for everybody's.
        apart: it is answered in a turn of its own, as game clients expect.

    """

    id: str
    text: str
    to: tuple[str, ...] = ()
    whisper: str | None = None
    apart: bool = False


@frozen
class Turn:
    """Prompts and who replies to them, in this order; no prompts where nobody asked."""

    speakers: tuple[str, ...]
    prompts: tuple[Waiting, ...] = ()
    whisper: str | None = None


@define
class Agenda:
    """What a room still has to answer.

    Attributes:
        random: the only chance in it; seed it in tests.
        most_talk: turns that characters may talk among themselves at a time.

    """

    random: Random = Factory(Random)
    most_talk: int = MAX_SELF_TALK
    _waiting: list[Waiting] = field(init=False, factory=list)
    _asked_to_speak: list[str] = field(init=False, factory=list)
    _self_talk: int = field(init=False, default=0)
    _running: list[str] = field(init=False, factory=list)
    _last: str | None = field(init=False, default=None)
    _last_text: str = field(init=False, default="")
    _alone: list[str] = field(init=False, factory=list)

    @property
    def state(self) -> State:
        """See the table."""
        if self._running:
            return "running"
        waits = self._waiting or self._asked_to_speak or self._self_talk
        return "queued" if waits else "idle"

    @property
    def speaker(self) -> str | None:
        """The id of the character whose reply is under way or due now; None between turns."""
        return self._running[0] if self._running else None

    @property
    def self_talk(self) -> int:
        """Turns of self-talk that are left."""
        return self._self_talk

    @property
    def waiting(self) -> frozenset[str]:
        """Ids of the prompts that no turn has taken up yet."""
        return frozenset(prompt.id for prompt in self._waiting)

    def say(self, prompt: Waiting) -> None:
        """Somebody wrote something."""
        self._waiting.append(prompt)

    def speak(self, character: str) -> None:
        """Let this character (its id) speak, muted or not; twice is once."""
        if character not in self._asked_to_speak:
            self._asked_to_speak.append(character)

    def talk(self, turns: int) -> None:
        """Let the characters talk among themselves; 0 ends it.

        Raises:
            TurnError: more turns than allowed, or fewer than none.

        """
        if not 0 <= turns <= self.most_talk:
            raise TurnError(
                f"Characters can talk among themselves for 1 to {self.most_talk} turns, not "
                f"{turns}."
            )
        self._self_talk = turns

    def next(self, cast: Sequence[Character], answer: Answer) -> Turn | None:
        """Begin the next turn; None if one is running or there is nothing to answer."""
        while self.state == "queued":
            turn = self._prompted(cast, answer) or self._bidden(cast) or self._among(cast)
            if turn:
                self._running = list(turn.speakers)
                return turn
        return None

    def replied(self, text: str = "") -> None:
        """Note that the reply of `speaker` has ended, in whatever way."""
        if self._running:
            self._last, self._last_text = self._running.pop(0), text

    def stop(self) -> None:
        """End the turn before its next reply, and self-talk. What people wrote stays waiting."""
        self._running.clear()
        self._self_talk = 0

    def _prompted(self, cast: Sequence[Character], answer: Answer) -> Turn | None:
        if not self._waiting:
            return None
        batch = _batch(self._waiting)
        self._waiting = [prompt for prompt in self._waiting if prompt not in batch]
        speakers = self._answering(batch, cast, answer)
        return Turn(speakers, batch, batch[0].whisper) if speakers else None

    def _bidden(self, cast: Sequence[Character]) -> Turn | None:
        if self._waiting or not self._asked_to_speak:
            return None
        asked, self._asked_to_speak = self._asked_to_speak, []
        here = {character.id for character in cast}
        speakers = tuple(one for one in asked if one in here)
        return Turn(speakers) if speakers else None

    def _among(self, cast: Sequence[Character]) -> Turn | None:
        """One reply: by whoever the last one named, else by chance; never the same twice."""
        if self._waiting or self._asked_to_speak or not self._self_talk:
            return None
        able = [c for c in cast if not c.muted and c.id != self._last]
        if not able:
            self._self_talk = 0
            return None
        self._self_talk -= 1
        addressed = named(self._last_text, able)
        return Turn((addressed[0] if addressed else self._by_weight(able).id,))

    def _answering(
        self, batch: Sequence[Waiting], cast: Sequence[Character], answer: Answer
    ) -> tuple[str, ...]:
        """Put together who was addressed and who answers by the mode, each once."""
        here = {character.id for character in cast}
        chosen = [one for prompt in batch for one in prompt.to if one in here]
        text = "\n".join(prompt.text for prompt in batch if not prompt.to)
        if any(not prompt.to for prompt in batch):
            chosen += self._by_mode(text, [c for c in cast if not c.muted], answer)
        return tuple(dict.fromkeys(chosen))

    def _by_mode(self, text: str, able: Sequence[Character], answer: Answer) -> Sequence[str]:
        if answer == "all":
            return [character.id for character in able]
        if answer == "mention":
            return mentioned(text, able)
        return named(text, able) or self._by_chance(able)

    def _by_chance(self, able: Sequence[Character]) -> Sequence[str]:
        """Let each one roll against its talkativeness; at least one speaks."""
        if not able:
            return []
        chosen = [c for c in able if self.random.random() < c.talkativeness]
        stuck = len(self._alone) >= SAME_ALONE
        if not chosen:
            rest = [c for c in able if not (stuck and c.id == self._alone[0])]
            chosen = [self._by_weight(rest or able)]
        elif stuck and [c.id for c in chosen] == self._alone[:1]:
            rest = [c for c in able if c.id != self._alone[0] and c.talkativeness > 0]
            chosen += [self._by_weight(rest)] if rest else []
        ids = {c.id for c in chosen}
        same = len(ids) == 1 and ids == set(self._alone)
        self._alone = (self._alone if same else []) + sorted(ids) if len(ids) == 1 else []
        return [c.id for c in able if c.id in ids]

    def _by_weight(self, able: Sequence[Character]) -> Character:
        weights = [max(c.talkativeness, 0.0) for c in able]
        return self.random.choices(able, weights if sum(weights) > 0 else None)[0]


def addressed(names: Iterable[str], cast: Sequence[Character]) -> tuple[str, ...]:
    """Return the ids of the characters with these names (or ids), muted ones as well.

    Raises:
        TurnError: somebody isn't here; it tells who is.

    """
    known = {c.id.casefold(): c.id for c in reversed(cast)} | _names(cast)
    ids = []
    for name in names:
        wanted = name.strip().removeprefix("@").strip('"').casefold()
        if wanted not in known:
            raise TurnError(_not_here(name, cast))
        ids.append(known[wanted])
    return tuple(dict.fromkeys(ids))


def with_muted(cast: Sequence[Character], name: str, *, muted: bool) -> list[Character]:
    """Return the cast with a character (by name or id) muted, or not any more.

    Raises:
        TurnError: nobody is called that.

    """
    [id] = addressed([name], cast)
    return [replace(one, muted=muted) if one.id == id else one for one in cast]


def mentioned(text: str, cast: Sequence[Character]) -> Sequence[str]:
    """Return the ids of those named with an `@`: `@Lyra`, `@"Long Name"`; in order of mention."""
    return _found(r'(?<!\w)@"?({})"?(?!\w)', text, cast)


def named(text: str, cast: Sequence[Character]) -> Sequence[str]:
    """Return the ids of those named in plain words or with an `@`, in order of mention."""
    return _found(r"(?<!\w)({})(?!\w)", text, cast)


def _found(pattern: str, text: str, cast: Sequence[Character]) -> Sequence[str]:
    """Search for names; where one begins with another, the longest is meant."""
    ids = _names(cast)
    if not ids:
        return []
    longest_first = sorted(ids, key=len, reverse=True)
    names = "|".join(map(re.escape, longest_first))
    hits = re.findall(pattern.format(names), text.casefold())
    return list(dict.fromkeys(ids[hit] for hit in hits))


def _names(cast: Sequence[Character]) -> dict[str, str]:
    """Map what characters are called to their ids: names, and the last word of a long one.

    "Vane" is Inspector Vane, if nobody else could be meant.
    """
    lasts = [(c.name.casefold().split()[-1:], c.id) for c in cast if " " in c.name.strip()]
    count = Counter(last[0] for last, _ in lasts)
    short = {last[0]: one for last, one in lasts if count[last[0]] == 1 and len(last[0]) >= 3}
    return short | {c.name.casefold(): c.id for c in reversed(cast) if c.name.strip()}


def _not_here(name: str, cast: Sequence[Character]) -> str:
    shown = " ".join(name.split())[:60]
    if not cast:
        return f"There is no “{shown}” here: this room has no characters."
    return f"There is no “{shown}” here. Here are: {', '.join(c.name for c in cast)}."


def _batch(waiting: Sequence[Waiting]) -> tuple[Waiting, ...]:
    """Return the oldest prompt, and those for the same eyes that may be answered with it."""
    first = waiting[0]
    same = [prompt for prompt in waiting if prompt.whisper == first.whisper]
    if first.apart:
        return (first,)
    ends = next((n for n, prompt in enumerate(same) if prompt.apart), len(same))
    return tuple(same[:ends])
