"""Characters and scenarios that come with the hub, and those of the user's own.

They are TOML files: `*.toml` in the package's folder `presets`, then in the folders given
(`HUBBUB_PRESETS`). One file holds any number of both:

    [characters.lyra]               # the id; letters, digits, "-" and "_"
    name = "Lyra"
    personality = "..."             # see CHARACTER for all keys
    triggers = [{ when = "riddle*, puzzle*", then = "Get out your notebook." }]

    [scenarios.night-market]
    title = "The night market"
    text = "..."
    cast = ["lyra"]                 # ids of characters, of any file
    answer = "all"                  # or "mention", "natural"

Something with an id that an earlier folder has replaces it whole. Everything is checked at
the start, and an error tells the file and the line.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn, cast

from attrs import Factory, define, frozen

from hub.records import Answer, Character, Record, Trigger
from llm.speaker import MAX_NAME, clean_name

ASSISTANT = "assistant"
"""The id of the character in the lobby; a user's own preset may replace it."""

MAX_CAST = 8
"""Characters in a cast: each answers every message in the mode `all`."""

MAX_PRESET_TEXT = 8_000
"""Characters of one text. Persona and scenario are part of every prompt, whole."""

MAX_PRESET_FILE = 1024 * 1024
"""Bytes of a file."""


class PresetError(Exception):
    """A preset can't be used; the text begins with the file and the line, for people."""


class Scenario(Record, frozen=True, omit_defaults=False):
    """What a room can be about, and with whom.

    Attributes:
        text: what is going on, for people and characters alike.
        cast: ids of characters.
        answer: who answers, where nothing else is wanted.
    """

    id: str
    title: str
    text: str
    cast: list[str]
    answer: Answer = "all"


@frozen
class Presets:
    """All presets, by id, in the order of files and in them."""

    characters: Mapping[str, Character]
    scenarios: Mapping[str, Scenario]

    def cast(self, scenario: str) -> list[Character]:
        """Return the characters of a scenario."""
        return [self.characters[one] for one in self.scenarios[scenario].cast]


def load(folders: Iterable[Path] = ()) -> Presets:
    """Read the presets of the package, then of these folders.

    Raises:
        PresetError: a folder or file can't be read, or something in it is wrong.
    """
    loading = _Loading()
    for folder in (Path(str(files("hub"))) / "presets", *folders):
        loading.folder(folder)
    return loading.finish()


class _UnfitError(Exception):
    """A value is not what its key wants; the text goes on from the key's name."""


Check = Callable[[object], object]
"""Gives the value as it is kept; raises `_UnfitError` with what it should be."""


def _text(most: int = MAX_PRESET_TEXT, *, needed: bool = False) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise _UnfitError("should be text")
        text = value.strip()
        if needed and not text:
            raise _UnfitError("should not be empty")
        if len(text) > most:
            raise _UnfitError(f"should have at most {most} characters, not {len(text)}")
        return text

    return check


def _name(value: object) -> str:
    name = _text(MAX_NAME, needed=True)(value)
    if clean_name(name) != name:
        raise _UnfitError('should be a plain name on one line, without marks such as : * @ # "')
    return name


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _UnfitError("should be a number from 0 to 1")
    return float(value)


def _answer(value: object) -> str:
    if value not in ("all", "mention", "natural"):
        raise _UnfitError('should be "all", "mention" or "natural"')
    return str(value)


def _triggers(value: object) -> list[Trigger]:
    wanted = 'should be a list of { when = "...", then = "..." }'
    if not isinstance(value, list):
        raise _UnfitError(wanted)
    triggers = []
    for one in value:
        if not isinstance(one, dict) or set(one) != {"when", "then"}:
            raise _UnfitError(wanted)
        text = _text(1_000, needed=True)
        triggers.append(Trigger(text(one["when"]), text(one["then"])))
    return triggers


def _ids(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _UnfitError("should be a list of ids of characters")
    if not 1 <= len(value) <= MAX_CAST:
        raise _UnfitError(f"should have 1 to {MAX_CAST} characters, not {len(value)}")
    if len(set(value)) < len(value):
        raise _UnfitError("should name each character once")
    return cast("list[str]", value)


CHARACTER: Mapping[str, Check] = {
    "name": _name,
    "class": _text(100),
    "emoji": _text(16),
    "personality": _text(),
    "backstory": _text(),
    "instructions": _text(),
    "triggers": _triggers,
    "greeting": _text(),
    "talkativeness": _share,
    "model": _text(200),
}
SCENARIO: Mapping[str, Check] = {
    "title": _text(100, needed=True),
    "text": _text(needed=True),
    "cast": _ids,
    "answer": _answer,
}
NEEDED = {"characters": ("name",), "scenarios": ("title", "text", "cast")}
KEYS = {"characters": CHARACTER, "scenarios": SCENARIO}

_ID = re.compile(r"[\w-]{1,64}")


@frozen
class _Source:
    """A file, and where things are in it."""

    path: Path
    lines: Sequence[str]

    def fail(self, where: Sequence[str], sentence: str) -> NoReturn:
        raise PresetError(f"{self.path}:{self._line(where)}: {sentence}")

    def _line(self, where: Sequence[str]) -> int:
        """Find the line of a table or of a key in it; the first one where that fails."""
        header = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(map(_quotable, where[:2])) + r"\s*[\].]")
        start = next((n for n, line in enumerate(self.lines) if header.match(line)), None)
        if start is None:
            return 1
        key = re.compile(r"\s*" + _quotable(where[2]) + r"\s*[=.]") if len(where) > 2 else None
        for number, line in enumerate(self.lines[start + 1 :], start + 2):
            if line.lstrip().startswith("["):
                break
            if key and key.match(line):
                return number
        return start + 1


def _quotable(key: str) -> str:
    return rf"[\"']?{re.escape(key)}[\"']?"


@define
class _Loading:
    """What was read so far; later folders replace what earlier ones had."""

    _characters: dict[str, Character] = Factory(dict)
    _scenarios: dict[str, Scenario] = Factory(dict)
    _sources: dict[str, _Source] = Factory(dict)

    def folder(self, folder: Path) -> None:
        """Read all files of a folder, by name. In one folder an id may come only once."""
        if not folder.is_dir():
            raise PresetError(f"{folder}: there is no such folder of presets.")
        seen: dict[tuple[str, str], _Source] = {}
        for path in sorted(folder.glob("*.toml")):
            source, tables = _read(path)
            for kind, id_, table in _tables(source, tables):
                if (kind, id_) in seen:
                    source.fail((kind, id_), f"“{id_}” is in {seen[kind, id_].path.name} already.")
                seen[kind, id_] = source
                self._add(source, kind, id_, table)

    def _add(self, source: _Source, kind: str, id_: str, table: Mapping[str, Any]) -> None:
        values = _checked(source, kind, id_, table)
        if kind == "characters":
            values = {{"class": "klass"}.get(key, key): value for key, value in values.items()}
            self._characters[id_] = Character(id=id_, **values)
        else:
            self._scenarios[id_] = Scenario(id=id_, **values)
            self._sources[id_] = source

    def finish(self) -> Presets:
        """Check that all casts exist, now that all files were read."""
        for scenario in self._scenarios.values():
            for one in scenario.cast:
                if one not in self._characters:
                    where = ("scenarios", scenario.id, "cast")
                    sentence = f"there is no character with the id “{one}”."
                    self._sources[scenario.id].fail(where, sentence)
        return Presets(self._characters, self._scenarios)


def _read(path: Path) -> tuple[_Source, dict[str, Any]]:
    try:
        raw = path.read_bytes()
    except OSError:
        raise PresetError(f"{path}: this file can't be read.") from None
    if len(raw) > MAX_PRESET_FILE:
        raise PresetError(f"{path}: this file is bigger than {MAX_PRESET_FILE // 1024} KiB.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PresetError(f"{path}:{line}: this is not UTF-8.") from None
    try:
        return _Source(path, text.splitlines()), tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise PresetError(f"{path}:{line}: this is not valid TOML.") from None
    except RecursionError:
        raise PresetError(f"{path}: this is nested too deeply.") from None


def _tables(
    source: _Source, tables: Mapping[str, Any]
) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for kind, entries in tables.items():
        if kind not in KEYS or not isinstance(entries, dict):
            source.fail(
                (kind,), f"only [characters.ID] and [scenarios.ID] are known, not “{kind}”."
            )
        for id_, table in entries.items():
            if not _ID.fullmatch(id_):
                source.fail((kind, id_), f"“{id_}” is no id: letters, digits, - and _ make one.")
            if not isinstance(table, dict):
                source.fail((kind, id_), f"[{kind}.{id_}] should be a table.")
            yield kind, id_, table


def _checked(source: _Source, kind: str, id_: str, table: Mapping[str, Any]) -> dict[str, Any]:
    for key in NEEDED[kind]:
        if key not in table:
            source.fail((kind, id_), f"[{kind}.{id_}] has no “{key}”.")
    values = {}
    for key, value in table.items():
        check = KEYS[kind].get(key)
        if check is None:
            known = ", ".join(KEYS[kind])
            source.fail((kind, id_, key), f"“{key}” is not known here. Known are: {known}.")
        try:
            values[key] = check(value)
        except _UnfitError as error:
            source.fail((kind, id_, key), f"“{key}” {error}.")
    return values
