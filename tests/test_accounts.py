"""Accounts, tokens and invites over a store: what is kept, what is refused."""

import argon2
import msgspec
import pytest
import trio

from hub import attempts as module
from hub.accounts import Accounts
from hub.errors import BadRequest, Conflict, Forbidden, HubError, NotFound, TooMany, Unauthorized
from hub.passwords import Passwords
from hub.records import Session, User
from hub.store.contract import SaveSession, SaveToken, SaveUser, StoreError
from hub.store.memory import MemoryStore
from hub.tokens import MOST, PREFIX, Tokens
from tests.cheap import CHEAP

PASSWORD = "correct horse"
HERE = "192.0.2.1"


class Clock:
    """The time that accounts go by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def accounts(store: MemoryStore, clock: Clock) -> Accounts:
    return Accounts(store, Passwords(CHEAP), name_chars=40)


@pytest.fixture
def tokens(store: MemoryStore, accounts: Accounts) -> Tokens:
    return Tokens(store, accounts)


async def refusal(kind: type[HubError], code: str, job: object) -> HubError:
    with pytest.raises(kind) as refused:
        await job  # type: ignore[misc]
    assert refused.value.code == code
    assert str(refused.value).endswith(".")
    return refused.value


# ── registering and logging in ────────────────────────────────────────────────────────


async def test_who_registers_can_log_in(accounts: Accounts, store: MemoryStore) -> None:
    user = await accounts.register("  Ada  Lovelace ", PASSWORD)
    assert (user.name, user.guest, user.role) == ("Ada Lovelace", False, "user")
    for name in ("Ada Lovelace", "ada lovelace", "\u0410daLovelace"):
        assert (await accounts.log_in(name, PASSWORD, HERE)).user == user
    account = await store.account(user.id)
    assert account is not None
    assert account.password is not None
    assert account.password.startswith("$argon2id$")
    assert PASSWORD not in repr(account)


@pytest.mark.parametrize("name", ["Ada", "ADA", "\u0410da", "A d a", "\u200bAda", "Ada\u202e"])
async def test_no_two_accounts_look_alike(accounts: Accounts, name: str) -> None:
    await accounts.register("Ada", PASSWORD)
    await refusal(Conflict, "name_taken", accounts.register(name, PASSWORD))
    assert len(await accounts.everybody()) == 1


async def test_of_two_who_register_at_once_one_is_refused(accounts: Accounts) -> None:
    outcomes: list[str] = []

    async def register() -> None:
        try:
            outcomes.append((await accounts.register("Ada", PASSWORD)).name)
        except Conflict as error:
            outcomes.append(error.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(register)
        nursery.start_soon(register)
    assert sorted(outcomes) == ["Ada", "name_taken"]


async def test_a_store_that_fails_is_no_name_that_is_taken(
    accounts: Accounts, store: MemoryStore
) -> None:
    store.fail = StoreError("The disk is full.")
    with pytest.raises(StoreError):
        await accounts.register("Ada", PASSWORD)


async def test_a_guest_becomes_an_account_and_stays_who_they_were(
    accounts: Accounts, store: MemoryStore
) -> None:
    guest = User("u1", "Quiet Owl 12")
    await store.commit(SaveUser(guest))
    user = await accounts.register("Ada", PASSWORD, guest=guest)
    assert user == User("u1", "Ada", guest=False, role="user")
    assert await store.user("u1") == user


@pytest.mark.parametrize(
    ("name", "password", "code"),
    [
        ("", PASSWORD, "empty"),
        ("x" * 41, PASSWORD, "too_long"),
        ("Ada", "1234567", "short_password"),
    ],
)
async def test_what_wont_do_is_refused(
    accounts: Accounts, name: str, password: str, code: str
) -> None:
    await refusal(BadRequest, code, accounts.register(name, password))


async def test_wrong_and_unknown_are_told_the_same(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accounts.register("Ada", PASSWORD)
    await accounts.register("Bob", None)
    compared = []
    verify = Passwords._verify

    def counting(self: Passwords, hashed: str | None, password: str) -> object:
        compared.append(hashed)
        return verify(self, hashed, password)

    monkeypatch.setattr(Passwords, "_verify", counting)
    said = {
        str(await refusal(Unauthorized, "wrong_password", accounts.log_in(name, "wrong", HERE)))
        for name in ("Ada", "Nobody", "Bob", "", "\x00")
    }
    assert len(said) == 1
    assert len(compared) == 5  # an unknown name costs what a known one does


async def test_a_hash_of_other_parameters_is_renewed_at_log_in(
    accounts: Accounts, store: MemoryStore
) -> None:
    user = await accounts.register("Ada", PASSWORD)
    stronger = argon2.Parameters(argon2.Type.ID, 19, 16, 32, 2, 16, 1)
    better = Accounts(store, Passwords(stronger), name_chars=40)
    assert (await better.log_in("Ada", PASSWORD, HERE)).user == user
    account = await store.account(user.id)
    assert account is not None
    assert "m=16,t=2" in (account.password or "")


async def test_the_disabled_are_told_so_only_with_their_password(accounts: Accounts) -> None:
    user = await accounts.register("Ada", PASSWORD)
    await accounts.set_disabled(user.id, True)
    await refusal(Unauthorized, "wrong_password", accounts.log_in("Ada", "wrong", HERE))
    await refusal(Forbidden, "disabled", accounts.log_in("Ada", PASSWORD, HERE))
    await accounts.set_disabled(user.id, False)
    assert (await accounts.log_in("Ada", PASSWORD, HERE)).user == user


async def test_guessing_gets_slower_for_a_name_from_anywhere(
    accounts: Accounts, clock: Clock
) -> None:
    await accounts.register("Ada", PASSWORD)
    waits = []
    for n in range(12):
        with pytest.raises((Unauthorized, TooMany)) as refused:
            await accounts.log_in("Ada", "wrong", f"192.0.2.{n}")
        if isinstance(refused.value, TooMany):
            assert refused.value.code == "too_many_attempts"
            assert refused.value.retry_after is not None
            waits.append(round(refused.value.retry_after))
            clock.now += refused.value.retry_after
    assert waits == [1, 2, 4, 8]
    # Who waited and knows the password gets in, and all is forgiven.
    clock.now += 30
    await accounts.log_in("Ada", PASSWORD, HERE)
    await refusal(Unauthorized, "wrong_password", accounts.log_in("Ada", "wrong", HERE))


async def test_guessing_gets_slower_for_an_address_over_all_names(accounts: Accounts) -> None:
    await accounts.register("Mallory", PASSWORD)
    tries = 0
    with pytest.raises(TooMany):
        while tries < 100:
            with pytest.raises(Unauthorized):
                await accounts.log_in(f"Name {tries}", "wrong", HERE)
            tries += 1
            if tries % 5 == 0:  # his own account does not help him
                await accounts.log_in("Mallory", PASSWORD, HERE)
    assert 10 < tries < 30
    assert await accounts.log_in("Mallory", PASSWORD, "192.0.2.2")


async def test_what_a_guesser_says_takes_little_memory(accounts: Accounts) -> None:
    for n in range(5):
        with pytest.raises(Unauthorized):
            await accounts.log_in("x" * 10_000 + str(n), "wrong", f"192.0.2.{n}")
    with pytest.raises(TooMany):  # they begin alike, so they count as one
        await accounts.log_in("x" * 10_000, "wrong", "192.0.2.9")


async def test_many_new_accounts_from_one_address_have_to_wait(accounts: Accounts) -> None:
    with pytest.raises(TooMany):
        for n in range(100):
            await accounts.register(f"Somebody {n * 7919}", PASSWORD, address=HERE)
    assert 20 < len(await accounts.everybody()) < 60


# ── changes ───────────────────────────────────────────────────────────────────────────


async def test_a_new_password_replaces_the_old_one_and_ends_other_sessions(
    accounts: Accounts, store: MemoryStore
) -> None:
    user = await accounts.register("Ada", PASSWORD)
    for id in ("here", "elsewhere"):
        await store.commit(SaveSession(Session(id, user.id, 9e9)))
    change = accounts.change_password
    await refusal(
        Unauthorized,
        "wrong_password",
        change(user, "wrong", "another horse", session="here", address=HERE),
    )
    await refusal(
        BadRequest, "short_password", change(user, PASSWORD, "x", session="here", address=HERE)
    )
    await change(user, PASSWORD, "another horse", session="here", address=HERE)
    assert await store.session("here") is not None
    assert await store.session("elsewhere") is None
    await refusal(Unauthorized, "wrong_password", accounts.log_in("Ada", PASSWORD, HERE))
    await accounts.log_in("Ada", "another horse", HERE)


async def test_a_name_is_changed_for_good(accounts: Accounts) -> None:
    user = await accounts.register("Ada", PASSWORD)
    await accounts.register("Bob", PASSWORD)
    await refusal(Conflict, "name_taken", accounts.rename(user, "B ob"))
    assert (await accounts.rename(user, "ADA")).name == "ADA"
    assert (await accounts.rename(user, "Countess")).name == "Countess"
    await accounts.log_in("Countess", PASSWORD, HERE)
    await refusal(Unauthorized, "wrong_password", accounts.log_in("Ada", PASSWORD, HERE))
    assert (await accounts.register("Ada", PASSWORD)).id != user.id


async def test_the_last_admin_stays(accounts: Accounts) -> None:
    ada = await accounts.register("Ada", PASSWORD, role="admin")
    bob = await accounts.register("Bob", PASSWORD, role="user")
    for job in (
        accounts.set_role(ada.id, "user"),
        accounts.set_disabled(ada.id, True),
        accounts.remove(ada.id),
    ):
        await refusal(Conflict, "last_admin", job)
    assert (await accounts.set_role(bob.id, "admin")).role == "admin"
    await accounts.set_disabled(ada.id, True)
    await refusal(Conflict, "last_admin", accounts.remove(bob.id))
    await accounts.remove(ada.id)
    await refusal(NotFound, "no_account", accounts.find(ada.id))
    await refusal(BadRequest, "bad_payload", accounts.set_role(bob.id, "guest"))


async def test_two_changes_at_once_are_both_kept(accounts: Accounts, store: MemoryStore) -> None:
    user = await accounts.register("Ada", PASSWORD)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accounts.set_disabled, user.id, True)
        nursery.start_soon(accounts.set_password, user.id, None)
        nursery.start_soon(accounts.set_role, user.id, "moderator")
    person = await accounts.find(user.id)
    assert person.account.disabled
    assert person.account.password is None
    assert person.user.role == "moderator"


# ── people whom another service sends ─────────────────────────────────────────────────


async def test_whom_a_service_sends_is_the_same_user_each_time(accounts: Accounts) -> None:
    ada = await accounts.identified("oidc|x|1", "Ada")
    assert await accounts.identified("oidc|x|1", "Ada King") == ada
    other = await accounts.identified("oidc|x|2", "Ada")
    assert other.name == "Ada 2"
    assert other.id != ada.id
    assert other.role == "user"
    await refusal(Unauthorized, "wrong_password", accounts.log_in("Ada", "", HERE))


async def test_a_browser_that_asks_twice_at_once_is_one_user(accounts: Accounts) -> None:
    seen: set[str] = set()

    async def come() -> None:
        seen.add((await accounts.identified("header|ada", "ada", adopt=True)).id)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(come)
    assert len(seen) == 1


async def test_a_service_takes_over_no_account_that_somebody_made(accounts: Accounts) -> None:
    mine = await accounts.register("Ada", PASSWORD)
    assert (await accounts.identified("oidc|x|1", "Ada")).id != mine.id
    await refusal(Conflict, "name_taken", accounts.identified("header|ada", "ada", adopt=True))


async def test_the_owners_account_waits_for_whom_the_proxy_names(accounts: Accounts) -> None:
    made = await accounts.register("Ada", None, role="admin")
    await refusal(
        Conflict, "name_taken", accounts.identified("header|\u0410da", "\u0410da", adopt=True)
    )
    assert await accounts.identified("header|ada", "ada", adopt=True) == made
    await refusal(Forbidden, "no_passwords", accounts.rename(made, "Bob"))
    await accounts.register("Bob", PASSWORD, role="admin")
    await accounts.set_disabled(made.id, True)
    await refusal(Forbidden, "disabled", accounts.identified("header|ada", "ada", adopt=True))


# ── tokens and invites ────────────────────────────────────────────────────────────────


async def test_a_token_works_until_it_is_removed(
    accounts: Accounts, tokens: Tokens, store: MemoryStore
) -> None:
    ada = await accounts.register("Ada", PASSWORD)
    secret, token = await tokens.add(ada, "api", "my  bot", None)
    assert secret.startswith(PREFIX)
    assert token.label == "my bot"
    assert await tokens.api(secret) == token
    assert await tokens.api(secret + "x") is None
    assert await tokens.api(token.id) is None
    assert secret.removeprefix(PREFIX) not in repr(vars(store))
    before = await store.accounts_version()
    await refusal(NotFound, "no_token", tokens.remove(ada.id, token.id[:3]))
    await refusal(NotFound, "no_token", tokens.remove("somebody", token.id))
    await tokens.remove(ada.id, token.id[:12])
    assert await tokens.api(secret) is None
    assert await store.accounts_version() > before  # a hub in another process notices


async def test_a_token_ends_by_its_time_and_with_its_account(
    accounts: Accounts, tokens: Tokens, store: MemoryStore
) -> None:
    ada = await accounts.register("Ada", PASSWORD)
    secret, token = await tokens.add(ada, "api", "", 1.0)
    assert await tokens.api(secret) is not None
    await accounts.set_disabled(ada.id, True)
    assert await tokens.api(secret) is None
    await accounts.set_disabled(ada.id, False)
    await store.commit(SaveToken(msgspec.structs.replace(token, expires=1.0)))
    assert await tokens.api(secret) is None


async def test_tokens_are_for_accounts_and_not_without_end(
    accounts: Accounts, tokens: Tokens
) -> None:
    await refusal(Forbidden, "guest", tokens.add(User("g", "Guest"), "api", "", None))
    ada = await accounts.register("Ada", PASSWORD)
    for _ in range(MOST):
        await tokens.add(ada, "api", "", None)
    await refusal(TooMany, "too_many", tokens.add(ada, "api", "", None))
    assert len(await tokens.of(ada.id)) == MOST


async def test_an_invite_makes_one_account(accounts: Accounts, tokens: Tokens) -> None:
    ada = await accounts.register("Ada", PASSWORD)
    secret, invite = await tokens.add(ada, "invite", "", 7)
    assert await tokens.api(secret) is None
    assert await tokens.invite(secret) == invite
    with tokens.redeeming(secret):
        with pytest.raises(Forbidden):
            with tokens.redeeming(secret):
                raise AssertionError("two at once")
    await accounts.register("Bob", PASSWORD, invite=invite)
    await refusal(Forbidden, "bad_invite", tokens.invite(secret))


async def test_an_invite_that_failed_can_be_used_again(accounts: Accounts, tokens: Tokens) -> None:
    ada = await accounts.register("Ada", PASSWORD)
    secret, invite = await tokens.add(ada, "invite", "", 7)
    await refusal(Conflict, "name_taken", accounts.register("Ada", PASSWORD, invite=invite))
    assert await tokens.invite(secret) == invite
    api, _ = await tokens.add(ada, "api", "", None)
    await refusal(Forbidden, "bad_invite", tokens.invite(api))
