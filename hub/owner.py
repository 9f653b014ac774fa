"""The owner's commands: `hubbub backup`, `restore`, `check`, `export`, `usage`.

They take the database that `hubbub serve` takes with the same settings. All but `restore`
work while it runs.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import attrs
import trio

from hub.export import FORMATS, File
from hub.settings import Settings, environment, option, read, variable
from hub.store import maintenance
from hub.store.contract import StoreError
from hub.store.opening import choose, open_store
from hub.store.sqlite import SQLite
from hub.usage import DAYS, WAYS, Line, first_day, names, summed, table

FOUND = 1
"""Exit status of `check` where something is wrong."""

MOST_DAYS = 36500
"""Of `usage`: a hundred years, which a date can still go back."""

INTERRUPTED = 130
"""Exit status after Ctrl+C, as shells have it: what was asked for was not done."""

_Command: TypeAlias = Callable[[Settings, argparse.Namespace], int]


def backup(settings: Settings, given: argparse.Namespace) -> int:
    """Copy the database to a new file."""
    file: Path = given.file
    if not file.parent.is_dir():
        raise StoreError(f"There is no folder {file.parent} to write {file.name} to.")
    maintenance.backup(settings.where, file)
    _say(f"{file} is a copy of {_called(settings)}, {file.stat().st_size / 1e6:.1f} MB.")
    return 0


def restore(settings: Settings, given: argparse.Namespace) -> int:
    """Put a backup in the place of the database."""
    replaced = maintenance.restore(given.file, settings.where)
    _say(f"{given.file} was restored to {_called(settings)}.")
    if replaced is not None:
        _say(f"What was there before is now {replaced}.")
    return 0


def check(settings: Settings, _given: argparse.Namespace) -> int:
    """Say what is wrong with the database."""
    problems = _problems(settings.where)
    for problem in problems:
        _say(problem)
    if problems:
        return FOUND
    _say(f"Nothing is wrong with {_called(settings)}.")
    return 0


def _problems(where: str | Path) -> list[str]:
    try:
        return maintenance.check(where)
    except StoreError as error:
        database = choose(where)
        if isinstance(database, SQLite) and database.path.is_file():
            return [str(error)]  # so damaged that it can't even be looked into
        raise


def export(settings: Settings, given: argparse.Namespace) -> int:
    """Write a room to standard output. Whispers stay out: they are not the owner's."""
    room = maintenance.room(settings.where, given.room)
    file = File(room, FORMATS[given.format])
    try:
        out = sys.stdout.buffer
        out.write(file.begin())
        for page in maintenance.pages(settings.where, room.id):
            out.write(file.add(page))
        out.write(file.end())
        out.flush()
    except OSError as error:
        # Else Python would try again to write what is left, and complain, when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StoreError(f"The export can't be written: {error.strerror}.") from None
    return 0


def usage(settings: Settings, given: argparse.Namespace) -> int:
    """Show what replies took."""
    database = choose(settings.where)
    if isinstance(database, SQLite) and not database.path.is_file():
        raise StoreError(f"There is no database at {database.path}.")
    since = first_day(given.days)

    async def read_lines() -> list[Line]:
        async with open_store(settings.where, beside=True) as store:
            name = names(store, given.by)
            return [await name(line) for line in summed(await store.usage(since), given.by)]

    _say(table(trio.run(read_lines), given.by))
    return 0


COMMANDS: dict[str, _Command] = {
    "backup": backup,
    "restore": restore,
    "check": check,
    "export": export,
    "usage": usage,
}


def run(given: argparse.Namespace) -> int:
    """Run the command that was given; returns its exit status.

    Raises:
        SettingError, StoreError: it can't be done.

    """
    values = {name: value for name, value in vars(given).items() if value is not None}
    settings = read(values, environment(Path.cwd()))
    os.umask(0o077)  # private chats are in all that is written here
    try:
        return COMMANDS[given.command](settings, given)
    except KeyboardInterrupt:
        return INTERRUPTED


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the command line."""
    one = _add(commands, "backup", "copy the database to a new file, while the hub runs or not")
    one.add_argument("file", type=Path, metavar="FILE", help="the new file")
    one = _add(commands, "restore", "put a backup in the place of the database")
    one.add_argument("file", type=Path, metavar="FILE", help="what `hubbub backup` wrote")
    _add(commands, "check", "look for damage in the database; exit status 1 if there is any")
    one = _add(commands, "export", "write a room to standard output")
    one.add_argument("room", metavar="ROOM", help="its id, as in the page's address; or lobby")
    one.add_argument("--format", choices=FORMATS, default="md", help="[md]")
    one = _add(commands, "usage", "show what replies took: tokens and money")
    one.add_argument("--days", type=_days, default=DAYS, metavar="N", help=f"[{DAYS}]")
    one.add_argument("--by", choices=WAYS, default="day", help="[day]")


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {MOST_DAYS}")
    return int(text)


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, about: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    for spec in (attrs.fields(Settings).data, attrs.fields(Settings).database):
        parser.add_argument(
            option(spec.name),
            metavar="X",
            help=f"{spec.metadata['about']} ({variable(spec.name)})",
        )
    return parser


def _called(settings: Settings) -> str:
    # Not the URL itself: a password may be in it.
    return "the database" if settings.database else str(settings.where)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
