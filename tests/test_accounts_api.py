"""Who gets in, over real sockets: accounts, invites, tokens, roles, a proxy's word."""

from random import Random
from typing import Any

import pytest
import trio

from hub import attempts as attempts_module
from hub.accounts import Accounts
from hub.passwords import Passwords
from hub.settings import SettingError, Settings
from hub.tokens import Tokens
from hub.web.entrance import access
from hub.web.sessions import Sessions, secret_of
from tests.browsers import PASSWORD, account, browser, cheap_passwords  # noqa: F401
from tests.cheap import CHEAP
from tests.hubs import Refusal, Running, running_hub
from tests.sockets import PATIENCE
from tests.test_api import refused

OPEN_TO_GUESTS = {"auth": "guests", "registration": "open", "passwords": True, "oidc": None}


def accounts_of(running: Running) -> Accounts:
    """The accounts as another process has them: the owner's command."""
    return Accounts(running.hub.store, Passwords(CHEAP), name_chars=40)


# ── the ways in ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "auth", "registration"),
    [
        ({}, "guests", "open"),
        ({"host": "localhost"}, "guests", "open"),
        ({"host": "0.0.0.0"}, "accounts", "closed"),
        ({"host": "192.0.2.1"}, "accounts", "closed"),
        ({"host": "0.0.0.0", "auth": "guests"}, "guests", "open"),
        ({"registration": "off"}, "guests", "closed"),
        ({"auth": "accounts"}, "accounts", "closed"),
        ({"auth": "accounts", "registration": "on"}, "accounts", "open"),
        ({"auth": "invite"}, "invite", "invite"),
        ({"auth": "invite", "registration": "on"}, "invite", "invite"),
        ({"trusted_header": "X-User", "trusted_proxies": "::1"}, "accounts", "closed"),
    ],
)
def test_who_gets_in_by_the_settings(given: dict[str, str], auth: str, registration: str) -> None:
    found = access(Settings(**given))  # type: ignore[arg-type]
    assert (found.auth, found.registration) == (auth, registration)
    assert found.passwords is ("trusted_header" not in given)


@pytest.mark.parametrize(
    "given",
    [
        {"auth": "everybody"},
        {"registration": "perhaps"},
        {"trusted_header": "X-User"},
        {"trusted_header": "X-User", "trusted_proxies": "::1", "auth": "guests"},
    ],
)
def test_settings_that_contradict_themselves_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(SettingError, match=r"--"):
        access(Settings(**given))  # type: ignore[arg-type]


async def test_guests_come_in_and_are_told_how_to_get_an_account() -> None:
    async with running_hub() as running, browser(running) as ada:
        me = await ada.look()
        assert me["user"]["guest"] is True
        assert me["access"] == OPEN_TO_GUESTS


async def test_with_accounts_nobody_comes_in_without() -> None:
    async with running_hub(auth="accounts") as running, browser(running) as ada:
        answer = await ada.get("/api/session")
        assert answer.status_code == 401
        assert answer.json()["code"] == "log_in"
        assert answer.json()["access"] == {
            "auth": "accounts",
            "registration": "closed",
            "passwords": True,
            "oidc": None,
        }
        assert "set-cookie" not in answer.headers
        for method, path in (
            ("GET", "/api/rooms"),
            ("POST", "/api/rooms"),
            ("GET", "/api/rooms/lobby"),
            ("GET", "/api/rooms/lobby/messages"),
            ("GET", "/api/rooms/lobby/export"),
            ("GET", "/api/characters"),
            ("POST", "/api/game/start"),
            ("POST", "/api/game/message"),
            ("GET", "/api/users"),
            ("GET", "/api/tokens"),
            ("POST", "/api/password"),
        ):
            answer = await ada.send(method, path, {} if method == "POST" else None)
            assert (answer.status_code, answer.json()["code"]) == (401, "log_in"), path
        answer = await ada.post("/api/session", name="Ada")
        assert (answer.status_code, answer.json()["code"]) == (401, "log_in")
        answer = await ada.post("/api/users", name="Ada", password=PASSWORD)
        assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")
        for path in ("/", "/healthz", "/readyz"):
            assert (await ada.get(path)).status_code == 200
        for subprotocol in ("dm-rpc", None):
            assert await refused(running, "/ws", subprotocol) == (403, "log_in")


async def test_an_account_logs_in_and_has_all() -> None:
    async with running_hub(auth="accounts") as running, browser(running) as ada:
        id = await account(running, "Ada")
        me = await ada.log_in("ada")
        assert me["user"] == {"id": id, "name": "Ada", "guest": False, "role": "user"}
        assert (await ada.look())["user"] == me["user"]
        assert (await ada.get("/api/rooms")).status_code == 200
        body = {"gmPrompt": "A cave", "characters": []}
        assert (await ada.post("/api/game/start", **body)).json()["code"] == "no_characters"
        async with ada.socket() as socket:
            assert socket.user["id"] == id
            await socket.call("join_room", room="lobby")
            assert (await socket.prompt("lobby", "hello"))["author"]["name"] == "Ada"
        ada.me = {}
        answer = await ada.post("/api/rooms", title="x")
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
        answer = await ada.post("/api/game/start", **body)
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf")


async def test_guests_of_yesterday_must_register_and_keep_their_rooms() -> None:
    async with running_hub(auth="accounts", registration="on") as running:
        async with browser(running) as ada:
            sessions = Sessions(running.hub, secret_of(running.hub.settings.data), 1, Random(1))
            guest = await sessions.begin("Quiet Owl")
            ada.http.cookies.set("hubbub_session", sessions.cookie(guest.session))
            assert (await ada.get("/api/session")).json()["code"] == "log_in"
            assert (await ada.get("/api/rooms")).json()["code"] == "log_in"
            me = await ada.register("Ada")
            assert me["user"]["id"] == guest.user.id


@pytest.mark.parametrize(
    ("name", "password"), [("Ada", "wrong password"), ("Nobody", PASSWORD), ("Bob", "")]
)
async def test_a_wrong_name_or_password_is_told_the_same(name: str, password: str) -> None:
    async with running_hub(auth="accounts") as running, browser(running) as ada:
        await account(running, "Ada")
        answer = await ada.post("/api/session", name=name, password=password)
        assert answer.status_code == 401
        assert answer.json() == {
            "error": "This name and password don't belong together.",
            "code": "wrong_password",
        }


async def test_guessing_is_answered_with_429_and_a_time_that_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(attempts_module, "monotonic", lambda: now)
    async with running_hub(auth="accounts") as running, browser(running) as mallory:
        await account(running, "Ada")
        waits: list[int] = []
        while len(waits) < 4:
            answer = await mallory.post("/api/session", name="Ada", password="guess")
            if answer.status_code == 429:
                assert answer.json()["code"] == "too_many_attempts"
                waits.append(int(answer.headers["retry-after"]))
                now += waits[-1]
        assert waits == [1, 2, 4, 8]
        assert (await mallory.post("/api/session", name="Ada", password=PASSWORD)).is_success


async def test_no_guest_takes_a_name_that_looks_like_an_accounts() -> None:
    async with running_hub() as running, browser(running) as ada, browser(running) as mallory:
        await ada.register("Ada")
        for name in ("Ada", "\u0410da", "A D A"):
            answer = await mallory.post("/api/session", name=name)
            assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
            answer = await mallory.post("/api/users", name=name, password=PASSWORD)
            assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
        answer = await ada.post("/api/session", name="Countess")
        assert answer.json()["user"]["name"] == "Countess"
        assert (await mallory.post("/api/session", name="Ada")).status_code == 200
        answer = await ada.post("/api/users", name="Second", password=PASSWORD)
        assert (answer.status_code, answer.json()["code"]) == (409, "has_account")


# ── invitations ───────────────────────────────────────────────────────────────────────


async def test_an_invitation_makes_one_account() -> None:
    async with running_hub(auth="invite") as running, browser(running) as ada:
        await account(running, "Ada", "moderator")
        await ada.log_in("Ada")
        made = (await ada.post("/api/invites", label="for Bob", days=1)).json()
        assert made["token"]["kind"] == "invite"
        async with browser(running) as bob, browser(running) as eve:
            answer = await bob.post("/api/users", name="Bob", password=PASSWORD, invite="wrong")
            assert (answer.status_code, answer.json()["code"]) == (403, "bad_invite")
            answer = await bob.post(
                "/api/users", name="Ada", password=PASSWORD, invite=made["invite"]
            )
            assert answer.status_code == 409  # and the invitation is still good
            me = await bob.register("Bob", invite=made["invite"])
            assert me["user"]["role"] == "user"
            assert (await bob.get("/api/rooms")).status_code == 200
            answer = await eve.post(
                "/api/users", name="Eve", password=PASSWORD, invite=made["invite"]
            )
            assert (answer.status_code, answer.json()["code"]) == (403, "bad_invite")
            answer = await bob.post("/api/invites")
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


# ── roles and who is locked out ───────────────────────────────────────────────────────


async def test_only_an_admin_looks_after_accounts() -> None:
    async with running_hub(auth="accounts") as running:
        async with browser(running) as root, browser(running) as ada:
            await account(running, "Root", "admin")
            id = await account(running, "Ada", "moderator")
            await root.log_in("Root")
            await ada.log_in("Ada")
            users = (await root.get("/api/users")).json()["users"]
            assert [one["name"] for one in users] == ["Ada", "Root"]
            assert set(users[0]) == {"id", "name", "role", "disabled", "password", "at"}
            assert users[0]["password"] is True
            for method, path in (("GET", "/api/users"), ("PATCH", f"/api/users/{id}")):
                answer = await ada.send(
                    method, path, {"role": "admin"} if "/" in path[5:] else None
                )
                assert answer.status_code == 403
            missing = await root.send("PATCH", "/api/users/nobody", {"role": "user"})
            assert (missing.status_code, missing.json()["code"]) == (404, "no_account")
            me = root.me["user"]["id"]
            last = await root.send("PATCH", f"/api/users/{me}", {"role": "user"})
            assert (last.status_code, last.json()["code"]) == (409, "last_admin")
            bad = await root.send("PATCH", f"/api/users/{id}", {"role": "emperor"})
            assert (bad.status_code, bad.json()["code"]) == (400, "bad_payload")


async def test_a_demotion_counts_from_the_next_message_on() -> None:
    async with running_hub(auth="accounts") as running:
        async with browser(running) as root, browser(running) as ada, browser(running) as bob:
            await account(running, "Root", "admin")
            id = await account(running, "Ada", "moderator")
            await account(running, "Bob")
            await root.log_in("Root")
            await ada.log_in("Ada")
            await bob.log_in("Bob")
            room = (await bob.post("/api/rooms", title="Bob's", visibility="public")).json()["room"]
            async with ada.socket() as socket:
                await socket.call("join_room", room=room["id"])
                changed = await socket.call("update_room", room=room["id"], title="Mine")
                assert changed["room"]["title"] == "Mine"
                answer = await root.send("PATCH", f"/api/users/{id}", {"role": "user"})
                assert answer.json()["user"]["role"] == "user"
                with pytest.raises(Refusal) as refusal:
                    await socket.call("update_room", room=room["id"], title="Mine again")
                assert refusal.value.code == "forbidden"
                answer = await ada.send("PATCH", f"/api/rooms/{room['id']}", {"title": "x"})
                assert answer.status_code == 403


async def test_who_is_locked_out_is_out_at_once() -> None:
    async with running_hub(auth="accounts") as running:
        async with browser(running) as root, browser(running) as ada:
            await account(running, "Root", "admin")
            id = await account(running, "Ada")
            await root.log_in("Root")
            await ada.log_in("Ada")
            secret = (await ada.post("/api/tokens", label="bot")).json()["secret"]
            bearer = [(b"authorization", f"Bearer {secret}".encode())]
            async with ada.socket() as socket, running.connect(headers=bearer) as bot:
                answer = await root.send("PATCH", f"/api/users/{id}", {"disabled": True})
                assert answer.json()["user"]["disabled"] is True
                assert await socket.closed() == 1008
                assert await bot.closed() == 1008
            assert (await ada.get("/api/rooms")).json()["code"] == "log_in"
            answer = await ada.post("/api/session", name="Ada", password=PASSWORD)
            assert (answer.status_code, answer.json()["code"]) == (403, "disabled")
            await root.send("PATCH", f"/api/users/{id}", {"disabled": False})
            assert (await ada.log_in("Ada"))["user"]["id"] == id


async def test_what_another_process_changes_is_noticed() -> None:
    async with running_hub(auth="accounts") as running, browser(running) as ada:
        id = await account(running, "Ada")
        await account(running, "Root", "admin")
        await ada.log_in("Ada")
        owner = accounts_of(running)
        async with ada.socket() as socket:
            await owner.set_role(id, "moderator")
            with trio.fail_after(PATIENCE):
                while running.hub.people.users()[0].role != "moderator":
                    await socket.call("ping")
        async with ada.socket() as socket:
            await owner.set_password(id, "another horse")
            assert await socket.closed() == 1008
        await ada.log_in("Ada", "another horse")
        async with ada.socket() as socket:
            await owner.remove(id)
            assert await socket.closed() == 1008
        assert (await ada.get("/api/session")).status_code == 401


# ── programs ──────────────────────────────────────────────────────────────────────────


async def test_a_program_comes_with_a_token_and_no_csrf() -> None:
    async with running_hub(auth="accounts") as running, browser(running) as ada:
        id = await account(running, "Ada")
        await ada.log_in("Ada")
        made = (await ada.post("/api/tokens", label="my bot")).json()
        assert made["token"]["label"] == "my bot"
        bearer = {"authorization": f"Bearer {made['secret']}"}
        http = running.http
        assert (await http.get("/api/session", headers=bearer)).json()["user"]["id"] == id
        answer = await http.post("/api/rooms", json={"title": "By a bot"}, headers=bearer)
        assert answer.json()["room"]["owner"] == id
        raw = [(b"authorization", bearer["authorization"].encode())]
        async with running.connect(headers=raw) as bot, running.connect_objects(headers=raw) as old:
            assert bot.user["id"] == id
            assert old.greeting["type"] == "connection"
            await bot.call("join_room", room=answer.json()["room"]["id"])
            assert [one["id"] for one in (await ada.get("/api/tokens")).json()["tokens"]] == [
                made["token"]["id"]
            ]
            gone = await ada.send("DELETE", f"/api/tokens/{made['token']['id']}")
            assert gone.status_code == 204
            assert await bot.closed() == 1008
            assert await old.closed() == 1008
        answer = await http.get("/api/session", headers=bearer)
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_token")
        assert await refused(running, "/ws", "dm-rpc", **bearer) == (401, "bad_token")


async def test_a_token_that_leaked_makes_no_more_tokens_and_changes_no_password() -> None:
    async with running_hub() as running, browser(running) as ada:
        me = await ada.register("Ada")
        tokens = Tokens(running.hub.store, accounts_of(running))
        user = await running.hub.store.user(me["user"]["id"])
        assert user is not None
        secret, token = await tokens.add(user, "api", "", None)
        bearer = {"authorization": f"Bearer {secret}"}
        for method, path, body in (
            ("POST", "/api/tokens", {}),
            ("DELETE", f"/api/tokens/{token.id}", None),
            ("POST", "/api/invites", {}),
            ("POST", "/api/password", {"old": PASSWORD, "new": "another horse"}),
        ):
            answer = await running.http.request(method, path, json=body, headers=bearer)
            assert (answer.status_code, answer.json()["code"]) == (403, "no_tokens"), path


async def test_a_guest_has_no_tokens() -> None:
    async with running_hub() as running, browser(running) as ada:
        await ada.look()
        answer = await ada.post("/api/tokens")
        assert (answer.status_code, answer.json()["code"]) == (403, "guest")


# ── other sites ───────────────────────────────────────────────────────────────────────

CHANGES: list[tuple[str, str, Any]] = [
    ("POST", "/api/session", {"name": "Ada", "password": PASSWORD}),
    ("DELETE", "/api/session", None),
    ("POST", "/api/users", {"name": "Eve", "password": PASSWORD}),
    ("PATCH", "/api/users/x", {"role": "admin"}),
    ("POST", "/api/password", {"old": PASSWORD, "new": "another horse"}),
    ("POST", "/api/tokens", {}),
    ("DELETE", "/api/tokens/x", None),
    ("POST", "/api/invites", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_another_site_changes_nothing(method: str, path: str, body: Any) -> None:
    async with running_hub(registration="on") as running, browser(running) as ada:
        await ada.register("Ada")
        answer = await ada.send(method, path, body, origin="https://evil.example")
        assert (answer.status_code, answer.json()["code"]) == (403, "origin")
        for token in ("", "wrong"):
            answer = await ada.send(method, path, body, **{"x-csrf-token": token})
            assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
        answer = await ada.send(method, path, body, host="evil.example")
        assert (answer.status_code, answer.json()["code"]) == (403, "host")
        if body is not None:
            sent = await ada.send(method, path, body, **{"content-type": "text/plain"})
            assert sent.json()["code"] in {"content_type", "forbidden"}
        assert (await ada.look())["user"]["name"] == "Ada"


# ── a proxy's word ────────────────────────────────────────────────────────────────────

PROXY: dict[str, Any] = {"trusted_header": "X-Remote-User", "trusted_proxies": "127.0.0.1"}


async def test_whom_the_proxy_names_is_in() -> None:
    async with running_hub(**PROXY) as running:
        async with browser(running, **{"x-remote-user": "Zo\u00eb"}) as zoe:
            me = await zoe.look()
            assert me["user"]["name"] == "Zo\u00eb"
            assert me["user"]["guest"] is False
            assert me["access"]["passwords"] is False
            assert (await zoe.look())["user"] == me["user"]
            answer = await zoe.post("/api/rooms", title="Mine")
            assert answer.json()["room"]["owner"] == me["user"]["id"]
            zoe.me = {}
            answer = await zoe.post("/api/rooms", title="Mine")  # the proxy vouches for other
            assert answer.json()["code"] == "csrf"  # sites' requests as well
            for path in ("/api/session", "/api/users"):
                answer = await zoe.post(path, name="Zo", password=PASSWORD)
                assert answer.status_code == 403


async def test_a_cookie_is_of_no_use_without_the_proxy_or_with_another_name() -> None:
    async with running_hub(**PROXY) as running:
        async with browser(running, **{"x-remote-user": "ada"}) as ada:
            await ada.look()
            cookie, csrf = ada.cookie, ada.me["csrf"]
            sent = {"cookie": f"hubbub_session={cookie}", "x-csrf-token": csrf}
            for more in ({}, {"x-remote-user": "bob"}, {"x-remote-user": ""}):
                answer = await running.http.get("/api/rooms", headers=sent | more)
                assert (answer.status_code, answer.json()["code"]) == (401, "log_in"), more
            twice = [*sent.items(), ("x-remote-user", "ada"), ("x-remote-user", "ada")]
            assert (await running.http.get("/api/rooms", headers=twice)).status_code == 401
            answer = await running.http.get("/api/rooms", headers=sent | {"x-remote-user": "ada"})
            assert answer.status_code == 200
            assert await refused(running, f"/ws?csrf={csrf}", "dm-rpc", **sent) == (403, "log_in")
            named = [(b"cookie", sent["cookie"].encode()), (b"x-remote-user", b"ada")]
            async with running.connect(path=f"/ws?csrf={csrf}", headers=named) as socket:
                assert socket.user["name"] == "ada"


async def test_the_header_counts_from_a_trusted_proxy_only() -> None:
    settings: dict[str, Any] = {
        "trusted_header": "X-Remote-User",
        "trusted_proxies": "192.0.2.1",
    }
    async with running_hub(**settings) as running:
        async with browser(running, **{"x-remote-user": "ada"}) as ada:
            assert (await ada.get("/api/session")).status_code == 401
    async with running_hub() as running:
        async with browser(running, **{"x-remote-user": "ada"}) as ada:
            assert (await ada.look())["user"]["guest"] is True


# ── what another process changes ──────────────────────────────────────────────────────


async def test_a_role_that_was_taken_does_not_come_back_with_a_room() -> None:
    async with running_hub(auth="accounts") as running, browser(running) as ada:
        await account(running, "Root", "admin")
        id = await account(running, "Ada", "admin")
        await ada.log_in("Ada")
        async with ada.socket() as socket:
            await accounts_of(running).set_role(id, "user")
            await socket.call("create_room", title="Mine")
        user = await running.hub.store.user(id)
        assert user is not None
        assert user.role == "user"


# ── the log ───────────────────────────────────────────────────────────────────────────


async def test_the_log_tells_who_and_where_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "hub")
    async with running_hub() as running, browser(running) as ada:
        me = await ada.register("Ada")
        await ada.log_in("Ada")
        secret = (await ada.post("/api/tokens", label="bot")).json()["secret"]
        await ada.post("/api/session", name="hunter22 in the wrong field", password="sesame sesame")
        await ada.post("/api/password", old=PASSWORD, new="another horse")
    told = [one.getMessage() for one in caplog.records if one.name == "hub.security"]
    assert any(me["user"]["id"] in one and "127.0.0.1" in one for one in told)
    assert any("wrong password" in one and "127.0.0.1" in one for one in told)
    everything = "\n".join(one.getMessage() for one in caplog.records)
    for hidden in (PASSWORD, "another horse", "sesame", "hunter22", secret, ada.cookie):
        assert hidden not in everything
