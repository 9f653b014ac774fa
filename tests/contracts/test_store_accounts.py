"""What every store does with accounts, what hangs on them, sums and answers."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from hub.records import (
    Account,
    Session,
    Tally,
    Token,
    User,
)
from hub.store.contract import (
    KEY_LENGTH,
    AddMember,
    AddMessage,
    AddTally,
    AddUser,
    Change,
    EndSessions,
    Outcome,
    RemoveExpired,
    RemoveToken,
    RemoveUser,
    SaveAccount,
    SaveAnswer,
    SaveIdentity,
    SaveSession,
    SaveToken,
    SaveUser,
    Store,
    StoreError,
    TrimAnswers,
)
from tests.contracts.stores import all_of, open_one, say, where_it_is  # noqa: F401 - fixtures
from tests.postgres import postgres  # noqa: F401 - a fixture
from tests.store.making import message

# Accounts


ANN, BOB = User("a", "Ann", guest=False, role="user"), User("b", "Bob", guest=False, role="admin")


async def with_accounts(store: Store) -> tuple[Account, Account]:
    ann, bob = Account("a", "ann", "hash", at="2026"), Account("b", "bob")
    await store.commit(SaveUser(ANN), SaveUser(BOB), SaveAccount(ann), SaveAccount(bob))
    return ann, bob


async def results_of(store: Store, *groups: Sequence[Change]) -> list[Outcome]:
    """Submit all at once, so that they share a transaction."""
    results: list[Outcome] = []
    for group in groups:
        store.submit(*group, then=results.append)
    await store.commit()
    return results


async def test_accounts_are_found_by_user_and_by_key(store: Store) -> None:
    ann, bob = await with_accounts(store)
    assert (await store.account("a"), await store.account_by_key("bob")) == (ann, bob)
    assert (await store.account("ann"), await store.account_by_key("a")) == (None, None)
    assert await store.account("x\0" * 300) is None
    changed = replace(ann, key="zoe", password=None, disabled=True)
    await store.commit(SaveAccount(changed))
    assert await store.account("a") == await store.account_by_key("zoe") == changed
    assert await store.account_by_key("ann") is None
    assert list(await store.accounts()) == [(BOB, bob), (ANN, changed)]


async def test_a_name_belongs_to_one_account(store: Store) -> None:
    ann, bob = await with_accounts(store)
    with pytest.raises(StoreError, match="already has this name"):
        await store.commit(SaveAccount(replace(bob, key="ann")))
    assert [account for _, account in await store.accounts()] == [ann, bob]
    await store.commit(SaveAccount(replace(ann, key="free")), SaveAccount(replace(bob, key="ann")))
    assert await store.account_by_key("ann") == replace(bob, key="ann")


async def test_a_refused_account_fails_its_own_submit_only(store: Store) -> None:
    ann, _ = await with_accounts(store)
    version = await store.accounts_version()
    late, kept = User("l", "Late"), message()
    results = await results_of(
        store,
        [AddMessage(kept)],
        [SaveUser(late), SaveAccount(Account("l", "ann"))],
        [SaveUser(User("n", "New")), SaveAccount(Account("n", "new"))],
        [SaveAccount(Account("nobody", "nobody"))],
        [SaveAccount(Account("n", "x" * (KEY_LENGTH + 1)))],
        [SaveAccount(replace(ann, disabled=True))],
    )
    sentences = [str(one) if isinstance(one, StoreError) else one for one in results]
    assert sentences[:3] == [kept, "Somebody else already has this name.", None]
    assert "user does not exist" in str(sentences[3])
    assert "longer than" in str(sentences[4])
    assert sentences[5] is None
    assert await store.user("l") is None
    assert await store.account_by_key("ann") == replace(ann, disabled=True)
    assert await store.account("n") == Account("n", "new")
    assert await store.accounts_version() == version + 2


async def test_many_who_want_a_name_at_once_and_one_gets_it(store: Store) -> None:
    users = [User(f"u{number}", "Me") for number in range(20)]
    groups: list[list[Change]] = [
        [SaveUser(user), SaveAccount(Account(user.id, "me"))] for user in users
    ]
    results = await results_of(store, *groups)
    assert results[0] is None
    assert [type(result) for result in results[1:]] == [StoreError] * 19
    assert [account.user for _, account in await store.accounts()] == ["u0"]


async def test_a_user_who_is_added_again_stays_as_stored(store: Store) -> None:
    await store.commit(SaveUser(ANN))
    await store.commit(AddUser(replace(ANN, name="Old", role="admin")), AddUser(BOB))
    assert await store.user("a") == ANN
    assert await store.user("b") == BOB


async def test_the_version_rises_with_accounts_and_their_users(store: Store) -> None:
    async def rises(*changes: Change) -> bool:
        before = await store.accounts_version()
        await store.commit(*changes)
        after = await store.accounts_version()
        assert after >= before
        return after > before

    assert not await rises(SaveUser(ANN))
    assert await rises(SaveAccount(Account("a", "ann")))
    assert await rises(SaveUser(replace(ANN, role="moderator")))
    assert not await rises(AddUser(replace(ANN, role="admin")))
    assert not await rises(SaveUser(User("g", "Guest")), SaveSession(Session("s", "a", 1.0)))
    assert await rises(RemoveUser("g"))
    assert await rises(RemoveUser("a"))
    assert not await rises(RemoveUser("a"), SaveUser(User("g", "Guest")))


async def test_a_removed_user_is_gone_but_for_what_was_said(store: Store) -> None:
    _, bob = await with_accounts(store)
    (said,) = await say(store, "hello", author="a")
    changes: list[Change] = []
    for user in ("a", "b"):
        changes += [AddMember("den", user), SaveIdentity(f"oidc|{user}", user)]
        changes += [SaveSession(Session(f"s{user}", user, 9.0))]
        changes += [SaveToken(Token(f"t{user}", "api", user))]
    await store.commit(*changes, AddTally(Tally("2026-11-21", "a", "den", "m", 1)))
    await store.commit(RemoveUser("a"))
    gone: list[object] = [await store.user("a"), await store.account("a")]
    gone += [await store.account_by_key("ann"), await store.identity("oidc|a")]
    gone += [await store.session("sa"), await store.token("ta")]
    assert gone == [None] * 6
    assert not await store.is_member("den", "a")
    assert await all_of(store) == [said]
    assert len(await store.usage("2026")) == 1
    there: list[object] = [await store.user("b"), await store.account("b")]
    there += [await store.identity("oidc|b"), await store.is_member("den", "b")]
    assert there == [BOB, bob, "b", True]
    assert await store.session("sb")
    assert await store.token("tb")
    await store.commit(SaveUser(User("c", "Ann")), SaveAccount(Account("c", "ann")))


async def test_an_identity_is_one_users_at_a_time(store: Store) -> None:
    await with_accounts(store)
    await store.commit(SaveIdentity("header|ann", "a"), SaveIdentity("oidc|x|1", "a"))
    assert await store.identity("header|ann") == await store.identity("oidc|x|1") == "a"
    await store.commit(SaveIdentity("header|ann", "b"))
    assert await store.identity("header|ann") == "b"
    assert await store.identity("header|bob") is None
    with pytest.raises(StoreError, match="user does not exist"):
        await store.commit(SaveIdentity("header|eve", "eve"))


async def test_tokens(store: Store) -> None:
    await with_accounts(store)
    old = Token("t2", "api", "a", "laptop", "2025", 5.0)
    new, his = Token("t1", "api", "a", at="2026"), Token("t0", "api", "b", at="2026")
    invite = Token("t3", "invite", "b")
    await store.commit(*(SaveToken(one) for one in (new, invite, old, his)))
    assert await store.token("t2") == old
    assert await store.token("t") is None
    assert list(await store.tokens("api", "a")) == [old, new]
    assert list(await store.tokens("api")) == [old, his, new]
    assert list(await store.tokens("invite")) == [invite]
    assert list(await store.tokens("invite", "a")) == []
    await store.commit(SaveToken(replace(old, label="phone")), RemoveToken("t1"), RemoveToken("t1"))
    assert list(await store.tokens("api", "a")) == [replace(old, label="phone")]
    with pytest.raises(StoreError, match="user does not exist"):
        await store.commit(SaveToken(Token("t4", "api", "nobody")))


async def test_sessions_end_all_but_one(store: Store) -> None:
    sessions = [Session(id, user, 9.0) for id, user in (("1", "a"), ("2", "a"), ("3", "b"))]
    await store.commit(*map(SaveSession, sessions))
    await store.commit(EndSessions("a", keep="2"))
    assert [await store.session(id) for id in "123"] == [None, *sessions[1:]]
    await store.commit(EndSessions("a", keep="3"), EndSessions("nobody"))
    assert [await store.session(id) for id in "123"] == [None, None, sessions[2]]
    await store.commit(SaveSession(sessions[0]), EndSessions("b"))
    assert [await store.session(id) for id in "123"] == [sessions[0], None, None]


async def test_what_expired_is_removed(store: Store) -> None:
    await with_accounts(store)
    await store.commit(
        *(SaveSession(Session(f"s{at}", "a", at)) for at in (1.0, 2.0, 3.0)),
        *(SaveToken(Token(f"t{at}", "api", "a", expires=at)) for at in (1.0, 2.0, None)),
        RemoveExpired(2.0),
    )
    sessions = [await store.session(f"s{at}") for at in (1.0, 2.0, 3.0)]
    assert [one and one.expires for one in sessions] == [None, 2.0, 3.0]
    assert [token.id for token in await store.tokens("api", "a")] == ["t2.0", "tNone"]


# Sums and answers


async def test_tallies_add_up_by_day_user_room_and_model(store: Store) -> None:
    once = Tally("2026-11-21", "a", "den", "m", 1, 10, 20, 0.25)
    others = [
        replace(once, day="2026-11-20"),
        replace(once, user="b"),
        replace(once, room=""),
        replace(once, model="n"),
    ]
    await store.commit(*(AddTally(one) for one in (once, *others, once)))
    await results_of(store, *[[AddTally(once)]] * 3)
    five = replace(once, calls=5, input_tokens=50, output_tokens=100, cost=1.25)
    day_before, hers, roomless, other = others
    assert list(await store.usage("2026-11-20")) == [day_before, roomless, five, other, hers]
    assert list(await store.usage("2026-11-20", "2026-11-21")) == [day_before]
    assert list(await store.usage("2026-11-22")) == []


async def test_a_tally_takes_the_longest_keys(store: Store) -> None:
    longest = Tally("2026-11-21", "ä" * KEY_LENGTH, "ö" * KEY_LENGTH, "ü" * KEY_LENGTH, 1)
    await results_of(store, [AddTally(longest)], [AddTally(longest)])
    assert list(await store.usage("2026")) == [replace(longest, calls=2)]
    with pytest.raises(StoreError, match="longer than"):
        await store.commit(AddTally(replace(longest, model="m" * (KEY_LENGTH + 1))))


async def test_answers_are_kept_the_latest_under_a_key(store: Store) -> None:
    await store.commit(SaveAnswer("k", "one", 1.5), SaveAnswer("l", "{'a': 'ü %s :x'}", 2.0))
    assert await store.answer("k") == ("one", 1.5)
    assert await store.answer("l") == ("{'a': 'ü %s :x'}", 2.0)
    assert await store.answer("m") is None
    await store.commit(SaveAnswer("k", "two", 3.0))
    assert await store.answer("k") == ("two", 3.0)
    for broken in ("a\0b", "\ud800"):
        with pytest.raises(StoreError, match="broken character"):
            await store.commit(SaveAnswer("k", broken, 3.0))


async def test_answers_are_forgotten_the_oldest_first(store: Store) -> None:
    async def left() -> str:
        return "".join([key for key in "abcdef" if await store.answer(key)])

    answers = [SaveAnswer(key, "üü12", at) for at, key in enumerate("abcdef")]  # 6 bytes each
    await store.commit(*answers)
    await store.commit(TrimAnswers(0.0, 36))
    assert await left() == "abcdef"
    await store.commit(TrimAnswers(1.0, 100))
    assert await left() == "bcdef"
    await store.commit(TrimAnswers(1.0, 29))
    assert await left() == "cdef"
    await store.commit(SaveAnswer("c", "x", 9.0), TrimAnswers(0.0, 13))
    assert await left() == "cef"
    await store.commit(TrimAnswers(0.0, 0))
    assert await left() == ""
