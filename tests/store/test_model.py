"""Random changes: a database and plain dictionaries end with the same answers."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.records import Account, Author, Message, Room, Session, Tally, Token, User
from hub.store.contract import (
    AddMember,
    AddMessage,
    AddTally,
    Change,
    EndSessions,
    RemoveExpired,
    RemoveMember,
    RemoveMessage,
    RemoveRoom,
    RemoveSession,
    RemoveToken,
    RemoveUser,
    SaveAccount,
    SaveAnswer,
    SaveIdentity,
    SaveMessage,
    SaveRoom,
    SaveSession,
    SaveToken,
    SaveUser,
    Store,
    StoreError,
    TrimAnswers,
)
from hub.store.opening import open_store

ROOMS = st.sampled_from(["lobby", "den", "cave"])
USERS = st.sampled_from(["ann", "bob"])
IDS = st.sampled_from([f"m{number}" for number in range(9)])
TEXTS = st.sampled_from(["red fox", "Red Föx jumps", "a\0b", "bad \ud800", ""]) | st.text(
    max_size=9
)
STATUSES = st.sampled_from(["running", "done"])
TIMES = st.sampled_from([1.0, 1.5, 2.0])
DAYS = st.sampled_from(["2026-01-01", "2026-01-02"])
INVITES = st.none() | st.sampled_from(["i", "j"])


def _message(id: str, room: str, author: str, text: str, status: str) -> Message:
    who = Author(author, author, "human")
    return Message(id, room, who, text, "", "2026", status, demo=False, private=False)  # type: ignore[arg-type]


MESSAGES = st.builds(_message, IDS, ROOMS, USERS, TEXTS, STATUSES)
ADDED = st.builds(AddMessage, MESSAGES, st.none() | USERS, st.none() | st.sampled_from(["t", "u"]))
CHANGES: st.SearchStrategy[Change] = st.one_of(
    *[ADDED] * 6,  # most of them, or little else would have anything to change
    st.builds(SaveMessage, MESSAGES),
    st.builds(RemoveMessage, ROOMS, IDS),
    st.builds(
        lambda room, seen, invite: SaveRoom(Room(room, "t", visibility=seen, invite=invite)),
        ROOMS,
        st.sampled_from(["private", "link", "public"]),
        INVITES,
    ),
    st.builds(RemoveRoom, ROOMS),
    st.builds(AddMember, ROOMS, USERS),
    st.builds(RemoveMember, ROOMS, USERS),
    st.builds(lambda user, name: SaveUser(User(user, name)), USERS, TEXTS),
    st.builds(lambda session, user, at: SaveSession(Session(session, user, at)), IDS, USERS, TIMES),
    st.builds(RemoveSession, IDS),
)
NAMES = st.sampled_from(["ann", "bob", "zoe"])
PEOPLE: st.SearchStrategy[Change] = st.one_of(
    st.builds(lambda user, name: SaveUser(User(user, name)), USERS, NAMES),
    st.builds(lambda user, key: SaveAccount(Account(user, key)), USERS, NAMES),
    st.builds(RemoveUser, USERS),
    st.builds(SaveIdentity, NAMES, USERS),
    st.builds(
        lambda token, user, at: SaveToken(Token(token, "api", user, "", "", at)), IDS, USERS, TIMES
    ),
    st.builds(RemoveToken, IDS),
    st.builds(lambda session, user, at: SaveSession(Session(session, user, at)), IDS, USERS, TIMES),
    st.builds(EndSessions, USERS, st.none() | IDS),
    st.builds(RemoveExpired, TIMES),
    st.builds(
        lambda day, user, room: AddTally(Tally(day, user, room, "m", 1, 2, 3, 0.1)),
        DAYS,
        USERS,
        ROOMS,
    ),
    st.builds(SaveAnswer, IDS, TEXTS, TIMES),
    st.builds(TrimAnswers, TIMES, st.integers(0, 20)),
)


async def told(store: Store, groups: list[list[Change]]) -> list[object]:
    """Submit all at once, so that they share transactions; return what each was told."""
    results: list[object] = []
    for group in groups:
        store.submit(
            *group,
            then=lambda result: results.append(
                str(result) if isinstance(result, StoreError) else result
            ),
        )
    await store.commit()
    return results


async def answers(store: Store) -> list[object]:
    found: list[object] = []
    for user in ("ann", "bob"):
        found += [await store.user(user), await store.rooms(user)]
        for query in ("fox", "red jum", "zzz"):
            ids = sorted(one.id for one in (await store.search(user, query))[0])
            found.append(ids)
        for room in ("lobby", "den", "cave"):
            found += [await store.room(room), await store.is_member(room, user)]
            found += [await store.messages(room, viewer=user, limit=2)]
            found += [await store.messages(room, viewer=user, before="m5", limit=3)]
            found += [list(await store.transcript(room, viewer=user, after="m2"))]
    for id in [f"m{number}" for number in range(9)]:
        found += [await store.session(id), await store.message("den", id)]
        found += [await store.token(id), await store.answer(id)]
    for name in ("ann", "bob", "zoe"):
        found += [await store.account(name), await store.account_by_key(name)]
        found += [await store.identity(name)]
    found += [list(await store.accounts()), list(await store.tokens("api"))]
    found += [list(await store.usage("2026-01-02")), list(await store.usage("", "2026-01-02"))]
    return [*found, await store.room_by_invite("i"), await store.room_by_invite("j")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(CHANGES, max_size=3), min_size=15, max_size=30)
    | st.lists(st.lists(PEOPLE, max_size=3), min_size=15, max_size=30)
)
async def test_sqlite_answers_as_memory_does(groups: list[list[Change]]) -> None:
    rooms: list[Change] = [SaveRoom(Room(id, id)) for id in ("lobby", "den")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.db"
        async with (
            open_store(file, synchronous="NORMAL") as sql,
            open_store("memory:") as memory,
        ):
            everything = [rooms, *groups]
            assert await told(sql, everything) == await told(memory, everything)
            assert await answers(sql) == await answers(memory)
