"""The owner's commands for people: `hubbub user`, `hubbub token`, `hubbub invite`.

They write to the database that `hubbub serve` takes with the same settings, also while it
runs: the hub notices within a second. A password is asked for, or read from standard input
where that is no terminal; never taken from the command line, which others can see.
"""

import argparse
import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias, get_args

import attrs
import trio
from attrs import frozen

from hub.accounts import Accounts, Person
from hub.errors import BadRequest, NotFound
from hub.owner import INTERRUPTED
from hub.passwords import Passwords
from hub.records import Role, Token
from hub.settings import Settings, environment, option, read, variable
from hub.store.opening import open_store
from hub.tokens import Tokens

COMMANDS = ("user", "token", "invite")

Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


@frozen
class _Desk:
    """What a command works with."""

    accounts: Accounts
    tokens: Tokens


_Command: TypeAlias = Callable[[_Desk, argparse.Namespace], Awaitable[None]]


async def add(desk: _Desk, given: argparse.Namespace) -> None:
    """Make an account. The first one is an admin."""
    first = not await desk.accounts.everybody()
    role: Role = given.role or ("admin" if first else "user")
    with_password = not given.no_password
    await desk.accounts.check_free(given.name)
    password = _new_password(given.name) if with_password else None
    user = await desk.accounts.register(given.name, password, role=role)
    _say(f"{user.name} has an account now (role: {role}).")


async def list_users(desk: _Desk, _given: argparse.Namespace) -> None:
    """List the accounts."""
    everybody = await desk.accounts.everybody()
    wide = max((len(one.user.name) for one in everybody), default=0)
    for one in everybody:
        notes = [
            one.account.at[:10],
            "disabled" if one.account.disabled else "",
            "" if one.account.password else "no password",
        ]
        _say(
            f"{one.user.name:{wide}}  {one.user.role:9}  {'  '.join(filter(None, notes))}".rstrip()
        )


async def password(desk: _Desk, given: argparse.Namespace) -> None:
    """Set a password; all the account's sessions end."""
    one = await desk.accounts.named(given.name)
    new = None if given.none else _new_password(one.user.name)
    await desk.accounts.set_password(one.user.id, new)
    _say(f"{one.user.name} has {'no' if new is None else 'a new'} password, and is logged out.")


async def role(desk: _Desk, given: argparse.Namespace) -> None:
    """Give an account another role."""
    one = await desk.accounts.named(given.name)
    await desk.accounts.set_role(one.user.id, given.role)
    _say(f"{one.user.name} is {given.role} now.")


async def disable(desk: _Desk, given: argparse.Namespace) -> None:
    """Lock an account out."""
    one = await desk.accounts.named(given.name)
    await desk.accounts.set_disabled(one.user.id, True)
    _say(f"{one.user.name} can't come in any more.")


async def enable(desk: _Desk, given: argparse.Namespace) -> None:
    """Let an account in again."""
    one = await desk.accounts.named(given.name)
    await desk.accounts.set_disabled(one.user.id, False)
    _say(f"{one.user.name} can come in again.")


async def remove(desk: _Desk, given: argparse.Namespace) -> None:
    """Remove an account for good."""
    one = await desk.accounts.named(given.name)
    await desk.accounts.remove(one.user.id)
    _say(f"{one.user.name} has no account any more. What they said stays.")


async def add_token(desk: _Desk, given: argparse.Namespace) -> None:
    """Make an API token and print it."""
    one = await desk.accounts.named(given.name)
    secret, _ = await desk.tokens.add(one.user, "api", given.label, given.days)
    _say(secret)


async def list_tokens(desk: _Desk, given: argparse.Namespace) -> None:
    """List tokens and invites: of one account, or of all."""
    if given.name is None:
        whose = list(await desk.accounts.everybody())
    else:
        whose = [await desk.accounts.named(given.name)]
    for one in whose:
        mine = [*await desk.tokens.of(one.user.id), *await desk.tokens.of(one.user.id, "invite")]
        for token in mine:
            _say(
                f"{token.id[:12]}  {token.kind:6}  {one.user.name}  {token.at[:10]}  "
                f"{_end(token)}  {token.label}".rstrip()
            )


def _end(token: Token) -> str:
    if token.expires is None:
        return "for ever"
    return f"until {datetime.fromtimestamp(token.expires, UTC).date()}"


async def remove_token(desk: _Desk, given: argparse.Namespace) -> None:
    """End a token or an invite."""
    for one in await desk.accounts.everybody():
        try:
            token = await desk.tokens.remove(one.user.id, given.id)
        except NotFound:
            continue
        _say(f"The token {token.id[:12]} of {one.user.name} opens nothing any more.")
        return
    raise NotFound("There is no such token; `hubbub token list` shows them.", code="no_token")


async def invite(desk: _Desk, given: argparse.Namespace) -> None:
    """Make an invite and print it."""
    one = await _inviter(desk, given.by)
    secret, _ = await desk.tokens.add(one.user, "invite", given.label, given.days)
    _say(f"/#register={secret}")
    sys.stderr.write("Put the hub's address before it. It makes one account.\n")


async def _inviter(desk: _Desk, name: str | None) -> Person:
    if name is not None:
        return await desk.accounts.named(name)
    for one in await desk.accounts.everybody():
        if one.user.role == "admin" and not one.account.disabled:
            return one
    raise NotFound("Make an account first: hubbub user add NAME")


def _new_password(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    new = getpass.getpass(f"New password of {name}: ")
    if getpass.getpass("Once more: ") != new:
        raise BadRequest("These are two different passwords.")
    return new


def run(given: argparse.Namespace) -> int:
    """Run the command that was given; returns its exit status.

    Raises:
        SettingError, StoreError, HubError: it can't be done.

    """
    values = {
        spec.name: value
        for spec in (_DATA, _DATABASE)
        if (value := getattr(given, spec.name)) is not None
    }
    settings = read(values, environment(Path.cwd()))
    os.umask(0o077)
    command: _Command = given.do

    async def work() -> None:
        async with open_store(settings.where, beside=True) as store:
            accounts = Accounts(store, Passwords(), name_chars=settings.name_chars)
            await command(_Desk(accounts, Tokens(store, accounts)), given)

    try:
        trio.run(work)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


_DATA = attrs.fields(Settings).data
_DATABASE = attrs.fields(Settings).database


def add_to(commands: Parsers) -> None:
    """Add the commands to the command line."""
    users = _group(commands, "user", "accounts: who may log in, and in which role")
    one = _named(users, "add", add, "make an account; the first one is an admin")
    one.add_argument("--role", choices=_ROLES)
    one.add_argument("--no-password", action="store_true", help="for who comes through a proxy")
    _add(users, "list", list_users, "list the accounts")
    one = _named(users, "password", password, "set a password, and end the account's sessions")
    one.add_argument("--none", action="store_true", help="no password works any more")
    one = _named(users, "role", role, "give an account another role")
    one.add_argument("role", choices=_ROLES)
    _named(users, "disable", disable, "lock an account out")
    _named(users, "enable", enable, "let an account in again")
    _named(users, "remove", remove, "remove an account for good; what was said stays")
    tokens = _group(commands, "token", "API tokens, for programs")
    one = _named(tokens, "add", add_token, "make a token for an account, and print it")
    _about_token(one, days=None)
    one = _add(tokens, "list", list_tokens, "list tokens and invites, without their secrets")
    one.add_argument("name", nargs="?", metavar="NAME")
    one = _add(tokens, "remove", remove_token, "end a token or an invite")
    one.add_argument("id", metavar="ID", help="as `hubbub token list` shows it")
    one = _add(commands, "invite", invite, "print an invitation to make an account")
    one.add_argument("--by", metavar="NAME", help="who invites [the first admin]")
    _about_token(one, days=7.0)


_ROLES = get_args(Role)[1:]  # nobody with an account is a guest


def _group(commands: Parsers, name: str, about: str) -> Parsers:
    parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    return parser.add_subparsers(dest="action", metavar="ACTION", required=True)


def _add(commands: Parsers, name: str, do: _Command, about: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(do=do)
    for spec in (_DATA, _DATABASE):
        parser.add_argument(
            option(spec.name),
            metavar="X",
            help=f"{spec.metadata['about']} ({variable(spec.name)})",
        )
    return parser


def _named(commands: Parsers, name: str, do: _Command, about: str) -> argparse.ArgumentParser:
    parser = _add(commands, name, do, about)
    parser.add_argument("name", metavar="NAME")
    return parser


def _about_token(parser: argparse.ArgumentParser, *, days: float | None) -> None:
    parser.add_argument("--label", default="", help="what it is for")
    shown = "for ever" if days is None else f"{days:g}"
    parser.add_argument(
        "--days", type=_days, default=days, metavar="N", help=f"how long it works [{shown}]"
    )


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= 3650:
        raise argparse.ArgumentTypeError("must be from above 0 to 3650")
    return days


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
