"""Sessions: whose cookie opens what, since when, and until when."""

import time

import msgspec
import pytest

from hub.records import Session
from hub.store.contract import SaveSession
from tests.browsers import PASSWORD, account, browser, cheap_passwords  # noqa: F401
from tests.hubs import Running, running_hub

DAY = 86_400.0


async def session_of(running: Running, cookie: str) -> Session:
    session = await running.hub.store.session(cookie.rpartition(".")[0])
    assert session is not None
    return session


async def test_logging_in_makes_a_new_session_and_ends_the_old_one() -> None:
    # Session fixation: whoever planted the first cookie must not be in afterwards.
    async with running_hub() as running, browser(running) as ada, browser(running) as mallory:
        await account(running, "Ada")
        await mallory.look()
        planted = mallory.cookie
        ada.http.cookies.set("hubbub_session", planted)
        ada.me = {"csrf": mallory.me["csrf"]}
        async with mallory.socket() as his:
            me = await ada.log_in("Ada")
            assert await his.closed() == 1008
        new = [one.value for one in ada.http.cookies.jar if one.value != planted]
        assert len(new) == 1
        assert me["csrf"] != mallory.me["csrf"]
        assert (await mallory.look())["user"]["name"] != "Ada"


async def test_registering_makes_a_new_session_for_the_same_user() -> None:
    async with running_hub() as running, browser(running) as ada:
        guest = (await ada.look())["user"]
        old, csrf = ada.cookie, ada.me["csrf"]
        room = (await ada.post("/api/rooms", title="Mine")).json()["room"]["id"]
        async with ada.socket() as socket:
            me = (await ada.register("Ada"))["user"]
            assert await socket.closed() == 1008
        assert me == {"id": guest["id"], "name": "Ada", "guest": False, "role": "user"}
        assert ada.cookie != old
        assert (await ada.get(f"/api/rooms/{room}")).json()["room"]["owner"] == me["id"]
        async with browser(running) as mallory:
            mallory.http.cookies.set("hubbub_session", old)
            assert (await mallory.look())["user"]["id"] != me["id"]
            assert mallory.me["csrf"] != csrf


async def test_a_cookie_is_nobodys_after_logging_out() -> None:
    async with running_hub() as running, browser(running) as ada:
        await ada.register("Ada")
        cookie, csrf = ada.cookie, ada.me["csrf"]
        async with ada.socket() as socket:
            assert (await ada.send("DELETE", "/api/session")).status_code == 204
            assert await socket.closed() == 1008
        async with browser(running) as thief:
            thief.http.cookies.set("hubbub_session", cookie)
            thief.me = {"csrf": csrf}
            answer = await thief.get("/api/rooms")
            assert (answer.status_code, answer.json()["code"]) == (401, "no_session")
            assert (await thief.look())["user"]["guest"]


async def test_logging_out_ends_one_session_of_several() -> None:
    async with running_hub() as running, browser(running) as desk, browser(running) as phone:
        await desk.register("Ada")
        await phone.log_in("Ada")
        async with phone.socket() as socket:
            await desk.send("DELETE", "/api/session")
            assert (await socket.call("ping"))["time"]
        assert (await phone.look())["user"]["name"] == "Ada"


async def test_a_session_that_expires_closes_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    shift = 0.0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    async with running_hub(session_days=10) as running, browser(running) as ada:
        await ada.register("Ada")
        async with ada.socket() as socket:
            shift = 10 * DAY - 60
            assert (await socket.call("ping"))["time"]
            shift = 10 * DAY + 60
            assert await socket.closed() == 1008
        assert (await ada.get("/api/rooms")).status_code == 401


async def test_a_session_that_is_used_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shift = 0.0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    async with running_hub(session_days=10) as running, browser(running) as ada:
        await ada.register("Ada")
        first = await session_of(running, ada.cookie)
        assert "set-cookie" not in (await ada.get("/api/session")).headers
        shift = 6 * DAY
        answer = await ada.get("/api/session")
        assert "max-age=864000" in answer.headers["set-cookie"].lower()
        renewed = await session_of(running, ada.cookie)
        assert renewed.id == first.id
        assert renewed.expires > first.expires + 5 * DAY
        shift = 15 * DAY
        assert (await ada.look())["user"]["name"] == "Ada"


async def test_a_session_ended_behind_the_hubs_back_closes_its_sockets() -> None:
    # As where it ended while its socket was still being opened.
    async with running_hub() as running, browser(running) as ada:
        await ada.register("Ada")
        session = await session_of(running, ada.cookie)
        async with ada.socket() as socket:
            expired = msgspec.structs.replace(session, expires=1.0)
            await running.hub.store.commit(SaveSession(expired))
            assert await socket.closed() == 1008


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_cookie_is_kept_from_scripts_other_sites_and_open_lines(scheme: str) -> None:
    async with running_hub(trusted_proxies="127.0.0.1") as running:
        async with browser(running, **{"x-forwarded-proto": scheme}) as ada:
            answer = await ada.post("/api/users", name="Ada", password=PASSWORD)
            cookie = answer.headers["set-cookie"].lower()
            for part in ("httponly", "samesite=lax", "path=/", "max-age="):
                assert part in cookie
            assert ("secure" in cookie) == (scheme == "https")


async def test_a_password_changed_ends_the_other_sessions() -> None:
    async with running_hub() as running, browser(running) as desk, browser(running) as phone:
        await desk.register("Ada")
        await phone.log_in("Ada")
        async with phone.socket() as there, desk.socket() as here:
            answer = await desk.post("/api/password", old="wrong password", new="another horse")
            assert (answer.status_code, answer.json()["code"]) == (401, "wrong_password")
            assert (await there.call("ping"))["time"]
            answer = await desk.post("/api/password", old=PASSWORD, new="another horse")
            assert answer.status_code == 204
            assert await there.closed() == 1008
            assert (await here.call("ping"))["time"]
        assert (await phone.get("/api/rooms")).status_code == 401
        assert (await desk.get("/api/rooms")).status_code == 200
        answer = await phone.post("/api/session", name="Ada", password=PASSWORD)
        assert answer.status_code == 401


async def test_a_made_up_cookie_opens_nothing() -> None:
    async with running_hub(auth="accounts") as running, browser(running) as ada:
        await account(running, "Ada")
        await ada.log_in("Ada")
        id, _, signature = ada.cookie.rpartition(".")
        for made_up in (id, f"{id}.", f"x{id}.{signature}", "token|x", "", "é", "a" * 3000):
            headers = {b"cookie": f"hubbub_session={made_up}".encode()}
            answer = await running.http.get("/api/rooms", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "log_in"), made_up
