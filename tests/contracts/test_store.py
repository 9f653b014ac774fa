"""What every store does, whatever it is made of."""

from collections.abc import Callable

import pytest
import trio
from msgspec.structs import replace

from hub.records import (
    Character,
    Message,
    Session,
    Usage,
    User,
)
from hub.store.contract import (
    KEY_LENGTH,
    AddMember,
    AddMessage,
    Outcome,
    RemoveMember,
    RemoveMessage,
    RemoveRoom,
    RemoveSession,
    SaveMessage,
    SaveRoom,
    SaveSession,
    SaveUser,
    Store,
    StoreError,
)
from hub.store.opening import open_store
from tests.contracts.stores import all_of, open_one, say, texts, where_it_is  # noqa: F401 - fixtures
from tests.postgres import postgres  # noqa: F401 - a fixture
from tests.store.making import message, new_id, room

# Writing


async def test_a_message_comes_back_equal(store: Store) -> None:
    whole = message(
        "**hi**",
        html="<b>hi</b>",
        demo=True,
        reply_to="m1",
        usage=Usage("a-model", 3, 4, 0.5, 1.5, False, "stop"),
        error="what",
        swipes=["one", "two"],
    )
    assert await store.commit(AddMessage(whole, to="bob")) == whole
    assert await store.message("den", whole.id) == (whole, "bob")
    assert await store.message("other", whole.id) is None
    assert await store.message("den", "nothing") is None


async def test_thens_run_in_order_together_and_not_inside_submit(store: Store) -> None:
    told: list[int] = []
    done = trio.Event()

    def tell(number: int) -> Callable[[Outcome], None]:
        return lambda _: told.append(number)

    for number in range(200):
        store.submit(AddMessage(message()), then=tell(number))
    store.submit(then=lambda _: done.set())
    assert told == []
    await done.wait()
    assert told == list(range(200))


async def test_what_is_told_is_stored_and_can_be_read(store: Store) -> None:
    sent = [message(str(number)) for number in range(300)]
    done = trio.Event()
    results: list[Outcome] = []
    for one in sent:
        store.submit(AddMessage(one), then=results.append)
    store.submit(then=lambda _: done.set())
    await done.wait()
    assert results == sent
    assert await all_of(store) == sent


async def test_who_is_cancelled_has_it_stored_all_the_same(store: Store) -> None:
    kept = message()
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.commit(AddMessage(kept))
    assert scope.cancelled_caught
    await store.commit()
    assert await all_of(store) == [kept]


async def test_changes_that_belong_together_are_stored_together_or_not_at_all(
    store: Store,
) -> None:
    first = message()
    with pytest.raises(StoreError, match="does not exist"):
        await store.commit(
            SaveRoom(room("new")),
            AddMessage(first),
            AddMessage(message(room="nowhere")),
        )
    assert await store.room("new") is None
    assert await all_of(store) == []
    kept = message(room="new")
    assert (
        await store.commit(SaveRoom(room("new")), AddMember("new", "ann"), AddMessage(kept)) == kept
    )
    assert await store.is_member("new", "ann")


async def test_one_bad_change_does_not_harm_its_neighbours(store: Store) -> None:
    good = [message(str(number)) for number in range(4)]
    results: list[Outcome] = []
    bad = [
        message("lost \ud800 half"),
        message(room="nowhere"),
        message(id="nul\0"),
        message(id="x" * (KEY_LENGTH + 1)),
    ]
    done = trio.Event()
    for right, wrong in zip(good, bad, strict=True):
        store.submit(AddMessage(right), then=results.append)
        store.submit(AddMessage(wrong), then=results.append)
    store.submit(then=lambda _: done.set())
    await done.wait()
    assert results[::2] == good
    assert [type(result) for result in results[1::2]] == [StoreError] * 4
    assert await all_of(store) == good


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\0b",
        "naïve 日本語 עברית",
        "👩‍👩‍👧 🏳️‍🌈",
        "'; DROP TABLE messages; --",
        "%s :name ? $1",
        "x" * 1_000_000,
        "wörd " * 200_000,
    ],
    ids=["empty", "nul", "scripts", "emoji", "sql", "placeholders", "megabyte", "words"],
)
async def test_any_text_is_kept(store: Store, text: str) -> None:
    kept = message(text)
    await store.commit(AddMessage(kept))
    assert await all_of(store) == [kept]


async def test_a_txn_sent_again_is_stored_once(store: Store) -> None:
    first, again, other = message("one"), message("two"), message("three", author="bob")
    assert await store.commit(AddMessage(first, txn="t")) == first
    assert await store.commit(AddMessage(again, txn="t")) == first
    assert await store.commit(AddMessage(other, txn="t")) == other
    assert await all_of(store) == [first, other]


async def test_a_txn_sent_many_times_at_once_is_stored_once(store: Store) -> None:
    sent = [message(str(number)) for number in range(50)]
    results: list[Outcome] = []
    done = trio.Event()
    for one in sent:
        store.submit(AddMessage(one, txn="same"), then=results.append)
    store.submit(then=lambda _: done.set())
    await done.wait()
    assert results == [sent[0]] * 50
    assert await all_of(store) == sent[:1]


async def test_the_same_id_again_is_stored_once(store: Store) -> None:
    first = message("one")
    await store.commit(AddMessage(first))
    assert await store.commit(AddMessage(replace(first, text="two"))) == first
    assert await all_of(store) == [first]


async def test_a_reply_grows(store: Store) -> None:
    reply = message("", status="running")
    await store.commit(AddMessage(reply))
    grown = replace(reply, text="Once upon")
    ended = replace(reply, text="Once upon a time", status="done", html="<p>")
    await store.commit(SaveMessage(grown))
    assert await all_of(store) == [grown]
    await store.commit(SaveMessage(ended))
    assert await all_of(store) == [ended]


async def test_a_message_that_was_removed_stays_away(store: Store) -> None:
    gone, kept = await say(store, "gone", "kept")
    await store.commit(RemoveMessage("other", gone.id))
    assert await all_of(store) == [gone, kept]
    await store.commit(RemoveMessage("den", gone.id), SaveMessage(replace(gone, text="back")))
    assert await all_of(store) == [kept]
    assert texts(await store.messages("den", viewer="ann", query="gone")) == []


# Rooms, members, users


async def test_a_room_comes_back_equal(store: Store) -> None:
    whole = room("r", scenario="A cave", cast=[Character("c", "Mia", klass="Wizard")], owner="ann")
    await store.commit(SaveRoom(whole))
    assert await store.room("r") == whole
    changed = replace(whole, title="Cave", archived=True)
    await store.commit(SaveRoom(changed))
    assert await store.room("r") == changed
    assert await store.room("nowhere") is None


async def test_an_invite_finds_its_room_and_belongs_to_one(store: Store) -> None:
    linked = room("r", visibility="link", invite="secret")
    await store.commit(SaveRoom(linked), SaveRoom(room("s")))
    assert await store.room_by_invite("secret") == linked
    assert await store.room_by_invite("other") is None
    with pytest.raises(StoreError, match="already"):
        await store.commit(SaveRoom(room("s", invite="secret")))
    await store.commit(SaveRoom(replace(linked, invite=None)))
    assert await store.room_by_invite("secret") is None
    await store.commit(SaveRoom(room("s", invite="secret")))


async def test_rooms_are_those_one_may_see_the_latest_written_first(store: Store) -> None:
    await store.commit(
        SaveRoom(room("lobby", visibility="public")),
        SaveRoom(room("mine")),
        SaveRoom(room("linked", visibility="link")),
        AddMember("mine", "ann"),
        AddMember("mine", "ann"),
        AddMember("linked", "ann"),
    )

    async def listed(user: str = "ann", **more: int) -> list[str]:
        return [one.id for one in await store.rooms(user, **more)]

    assert await listed() == ["linked", "mine", "lobby"]
    assert await listed("bob") == ["lobby"]
    await say(store, "hello", room="lobby")
    await store.commit(SaveRoom(room("mine", title="changed")))
    assert await listed() == ["lobby", "linked", "mine"]
    assert await listed(limit=2) == ["lobby", "linked"]
    await store.commit(RemoveMember("linked", "ann"), RemoveMember("nowhere", "ann"))
    assert await listed() == ["lobby", "mine"]


async def test_members(store: Store) -> None:
    await store.commit(AddMember("den", "ann"))
    assert await store.is_member("den", "ann")
    assert not await store.is_member("den", "bob")
    assert not await store.is_member("nowhere", "ann")
    with pytest.raises(StoreError, match="does not exist"):
        await store.commit(AddMember("nowhere", "ann"))


async def test_a_removed_room_is_gone_with_all_that_was_in_it(store: Store) -> None:
    sent = message("treasure")
    await store.commit(AddMember("den", "ann"), AddMessage(sent, txn="t"))
    await store.commit(RemoveRoom("den"))
    assert await store.room("den") is None
    assert not await store.is_member("den", "ann")
    assert await store.message("den", sent.id) is None
    await store.commit(SaveRoom(room()), AddMember("den", "ann"))
    assert await all_of(store) == []
    assert texts(await store.search("ann", "treasure")) == []
    assert await store.commit(AddMessage(replace(sent, id=new_id()), txn="t"))


async def test_users_and_sessions(store: Store) -> None:
    ann = User("u", "Ann")
    session = Session("s", "u", 12.5)
    await store.commit(SaveUser(ann), SaveSession(session))
    assert await store.user("u") == ann
    assert await store.session("s") == session
    await store.commit(
        SaveUser(replace(ann, name="Anna")), SaveSession(replace(session, expires=99))
    )
    assert await store.user("u") == replace(ann, name="Anna")
    assert await store.session("s") == replace(session, expires=99)
    await store.commit(RemoveSession("s"))
    assert await store.session("s") is None
    assert await store.user("nobody") is None


# Reading


async def test_whispers_are_seen_by_their_owner_only(store: Store) -> None:
    await say(store, "to all")
    await say(store, "to ann", to="ann")
    await say(store, "to bob", to="bob")

    async def seen(viewer: str | None) -> list[str]:
        everything = [one.text for one in await all_of(store, viewer=viewer)]
        transcript = await store.transcript("den", viewer=viewer)
        assert [one.text for one in transcript] == everything
        assert texts(await store.messages("den", viewer=viewer, query="to")) == everything
        return everything

    assert await seen("ann") == ["to all", "to ann"]
    assert await seen("bob") == ["to all", "to bob"]
    assert await seen(None) == ["to all"]


async def test_pages_go_back_to_the_first_message(store: Store) -> None:
    sent = await say(store, *map(str, range(25)))
    await say(store, "elsewhere", room="den", to="bob")
    newest, more = await store.messages("den", viewer="ann", limit=10)
    assert (list(newest), more) == (sent[15:], True)
    older, more = await store.messages("den", viewer="ann", before=newest[0].id, limit=10)
    assert (list(older), more) == (sent[5:15], True)
    oldest, more = await store.messages("den", viewer="ann", before=older[0].id, limit=10)
    assert (list(oldest), more) == (sent[:5], False)
    assert await store.messages("den", viewer="ann", before=sent[0].id) == ([], False)
    exact, more = await store.messages("den", viewer="ann", limit=25)
    assert (len(exact), more) == (25, False)


async def test_a_transcript_is_read_in_order_page_by_page(store: Store) -> None:
    sent = await say(store, *map(str, range(7)))
    first = await store.transcript("den", viewer=None, limit=5)
    rest = await store.transcript("den", viewer=None, after=first[-1].id, limit=5)
    assert [*first, *rest] == sent
    assert list(await store.transcript("den", viewer=None, after=sent[-1].id)) == []


async def test_older_messages_are_found_in_any_room(store: Store) -> None:
    await say(store, "old", at="2025-01-01T00:00:00Z")
    await say(store, "new", at="2026-01-01T00:00:00Z")
    assert [one.text for one in await store.older("2025-06-01")] == ["old"]


@pytest.mark.parametrize("id", ["", "a\0b", "\ud800", "x" * 10_000, "' OR 1=1"])
async def test_odd_ids_are_just_not_there(store: Store, id: str) -> None:
    await say(store, "hello")
    assert await store.room(id) is None
    assert await store.user(id) is None
    assert await store.session(id) is None
    assert await store.message("den", id) is None
    assert await store.messages(id, viewer=id) == ([], False)
    assert await store.messages(id, viewer=id, query="hello") == ([], False)
    assert await store.rooms(id) == []
    assert await store.search(id, "hello", before=id) == ([], False)
    assert texts(await store.messages("den", viewer="ann", before=id, query="zzz")) == []


# Searching


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("fox", ["The quick brown fox", "FOX!"]),
        ("QUICK fox", ["The quick brown fox"]),
        ("fox quick", ["The quick brown fox"]),
        ("qui", ["The quick brown fox"]),
        ("qu", []),
        ("qui fox", []),
        ("eclair", ["Un éclair au café"]),
        ("ÉCLAIR cafe", ["Un éclair au café"]),
        ("strasse", ["Die Straße"]),
        ("日本", ["日本語のテキスト"]),
        ("本語", ["日本語のテキスト"]),
        ('"quick', ["The quick brown fox"]),
        ("quick AND fox", []),
        ("fox*", ["The quick brown fox", "FOX!"]),
        ("text:fox", []),
        ("fox' | 'x", []),
        ("NEAR(quick fox)", []),
        ("^fox -dog", []),
        ("OR", []),
        ("!!!", []),
        ("   ", None),
        ("\0fox", ["The quick brown fox", "FOX!"]),
        ("\ud800", []),
        ("word " * 5_000, []),
    ],
)
async def test_search_sees_words_not_syntax(
    store: Store, query: str, found: list[str] | None
) -> None:
    await store.commit(AddMember("den", "ann"))
    said = ["The quick brown fox", "FOX!", "Un éclair au café", "Die Straße", "日本語のテキスト"]
    await say(store, *said)
    expected = said if found is None else found
    assert texts(await store.messages("den", viewer="ann", query=query)) == expected
    assert texts(await store.search("ann", query)) == (found or [])


async def test_search_in_a_room_pages_too(store: Store) -> None:
    await store.commit(SaveRoom(room("other")))
    sent = [one for number in range(9) for one in await say(store, f"apple {number}", "pear")]
    await say(store, "apple elsewhere", room="other")
    page, more = await store.messages("den", viewer="ann", query="apple", limit=4)
    assert ([one.text for one in page], more) == ([f"apple {n}" for n in (5, 6, 7, 8)], True)
    page, more = await store.messages(
        "den", viewer="ann", query="apple", limit=6, before=page[0].id
    )
    assert ([one.text for one in page], more) == ([f"apple {n}" for n in range(5)], False)
    assert len(sent) == 18


async def test_search_over_all_rooms_finds_what_one_may_see(store: Store) -> None:
    await store.commit(
        SaveRoom(room("lobby", visibility="public")),
        SaveRoom(room("hers")),
        SaveRoom(room("his")),
        AddMember("hers", "ann"),
        AddMember("his", "bob"),
    )
    await say(store, "apple 1", room="lobby")
    await say(store, "apple 2", room="hers")
    await say(store, "apple 3", room="his")
    await say(store, "apple 4", room="lobby", to="bob")
    await say(store, "apple 5", room="lobby", to="ann")
    assert texts(await store.search("ann", "apple")) == ["apple 1", "apple 2", "apple 5"]
    assert texts(await store.search("bob", "apple")) == ["apple 1", "apple 3", "apple 4"]
    assert texts(await store.search("eve", "apple")) == ["apple 1"]
    page, more = await store.search("ann", "apple", limit=2)
    assert more
    assert texts(await store.search("ann", "apple", before=page[0].id)) == ["apple 1"]


async def test_search_over_very_many_rooms(store: Store) -> None:
    names = [f"r{number}" for number in range(300)]
    await store.commit(*(SaveRoom(room(name, visibility="public")) for name in names))
    await say(store, "apple", room="r7")
    await say(store, "apple", room="den")
    assert len((await store.search("ann", "apple"))[0]) == 1


async def test_a_reply_is_found_once_it_has_ended(store: Store) -> None:
    reply = message("apple", status="running")
    await store.commit(AddMessage(reply))

    async def found() -> list[str]:
        return texts(await store.messages("den", viewer=None, query="apple"))

    assert await found() == []
    await store.commit(SaveMessage(replace(reply, text="apple pie", status="done")))
    assert await found() == ["apple pie"]
    await store.commit(SaveMessage(replace(reply, text="pear", status="done")))
    assert await found() == []
    await store.commit(SaveMessage(replace(reply, text="apple", status="done")))
    await store.commit(SaveMessage(replace(reply, text="apple", status="running")))
    assert await found() == []


# Ending


async def test_closing_stores_what_was_submitted(where: str) -> None:
    results: list[Outcome] = []
    async with open_store(where) as store:
        store.submit(SaveRoom(room()), then=results.append)
        sent = [message(str(number)) for number in range(100)]
        for one in sent:
            store.submit(AddMessage(one), then=results.append)
    assert results == [None, *sent]
    if where != "memory:":
        async with open_store(where) as store:
            assert await all_of(store) == sent


async def test_a_closed_store_says_so(where: str) -> None:
    async with open_store(where) as store:
        await store.aclose()
        await store.aclose()
        with pytest.raises(StoreError, match="shutting down"):
            await store.commit(SaveRoom(room()))


async def test_the_blocks_own_error_comes_out_as_it_was(where: str) -> None:
    with pytest.raises(KeyError):
        async with open_store(where):
            raise KeyError


async def test_leaving_by_cancel_stores_what_was_submitted(where: str) -> None:
    results: list[Outcome] = []
    with trio.CancelScope() as scope:
        async with open_store(where) as store:
            store.submit(SaveRoom(room()), then=results.append)
            scope.cancel()
            await trio.sleep_forever()
    assert results == [None]


async def test_a_flood_is_refused_before_it_fills_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.store.base.PENDING_CHARS", 1_000)
    results: list[Outcome] = []
    done = trio.Event()
    for _ in range(3):
        store.submit(AddMessage(message("x" * 400)), then=results.append)
    store.submit(then=lambda _: done.set())
    await done.wait()
    assert [type(result) for result in results] == [Message, Message, StoreError]
    await store.commit(AddMessage(message("x" * 400)))
