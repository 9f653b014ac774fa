"""`hubbub user`, `token` and `invite`, as they are typed, beside a hub that runs."""

import io
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from hub.cli import main
from hub.wire.tuples import SUBPROTOCOL
from tests.cheap import CHEAP
from tests.command import HUBBUB, START_SECONDS, refused, started, surroundings
from tests.server import Server, running_server
from tests.sockets import open_socket

PASSWORD = "correct horse"
PATIENCE = 20.0


def hubbub(*words: str, folder: Path, given: str = "") -> str:
    """Type a command; `given` is what it reads. Returns what it printed."""
    done = subprocess.run(
        [HUBBUB, *words],
        cwd=folder,
        env=surroundings(HUBBUB_DATA=str(folder)),
        input=given,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done
    assert PASSWORD not in done.stdout + done.stderr
    return done.stdout


def test_the_life_of_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process: each start of one of its own costs a second.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBBUB_DATA", str(tmp_path))
    monkeypatch.setattr("hub.passwords.PARAMETERS", CHEAP)
    monkeypatch.setattr("os.umask", lambda _mask: 0)  # it would be that of all later tests

    def run(*words: str, given: str = "", status: int = 0) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        assert main(words) == status, words
        said = capsys.readouterr()
        if status:
            assert said.out == ""
            assert said.err.startswith("hubbub: ")
            assert said.err.count("\n") == 1
        assert PASSWORD not in said.out + said.err
        return said.out + said.err

    assert "Make an account first" in run("invite", status=2)
    assert "admin" in run("user", "add", "Ada", given=PASSWORD + "\n")
    assert "role: user" in run("user", "add", "Bob", "--no-password")
    assert "taken" in run("user", "add", "\u0410da", given=PASSWORD, status=2)
    assert "at least 8" in run("user", "add", "Eve", given="short\n", status=2)
    listed = run("user", "list").splitlines()
    assert [line.split()[:2] for line in listed] == [["Ada", "admin"], ["Bob", "user"]]
    assert "no password" in listed[1]
    assert "last admin" in run("user", "role", "ada", "user", status=2)
    run("user", "role", "bob", "moderator")
    run("user", "disable", "bob")
    assert "disabled" in run("user", "list")
    run("user", "enable", "bob")
    run("user", "password", "bob", given="another horse")
    assert "no password" not in run("user", "list")
    secret = run("token", "add", "ada", "--label", "my bot", "--days", "3").strip()
    assert secret.startswith("hub_")
    assert run("invite").startswith("/#register=hub_")
    tokens = run("token", "list").splitlines()
    assert len(tokens) == 2
    assert "my bot" in tokens[0]
    assert secret not in "".join(tokens)
    run("token", "remove", tokens[0].split()[0])
    assert len(run("token", "list", "ada").splitlines()) == 1
    assert "no such token" in run("token", "remove", "12345678", status=2)
    run("user", "remove", "bob")
    assert "no account of this name" in run("user", "remove", "bob", status=2)
    assert [line.split()[0] for line in run("user", "list").splitlines()] == ["Ada"]


@pytest.mark.parametrize(
    "words", [("user",), ("user", "fly"), ("user", "role", "ada", "guest"), ("token", "add")]
)
def test_what_is_typed_wrongly_is_told(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: hubbub" in capsys.readouterr().err


async def until(what: Callable[[], bool]) -> None:
    """Look again and again, each time after what the hub's own look takes."""
    with trio.fail_after(PATIENCE):
        while not what():  # noqa: ASYNC110 - it is another process that is waited for
            await trio.sleep(0.1)


def code(http: httpx.Client) -> str | None:
    """What the hub says to a browser: the code of a refusal, or None."""
    found: str | None = http.get("/api/rooms").json().get("code")
    return found


async def test_a_hub_that_runs_notices() -> None:
    with running_server(env={"HUBBUB_AUTH": "accounts"}) as server, browser(server) as http:

        def run(*words: str, given: str = "") -> str:
            return hubbub(*words, folder=server.data, given=given)

        assert code(http) == "log_in"
        run("user", "add", "Ada", given=PASSWORD)
        run("user", "add", "Bob", "--role", "admin", given=PASSWORD)
        answer = http.post("/api/session", json={"name": "Bob", "password": PASSWORD})
        assert answer.json()["user"]["role"] == "admin"
        assert http.get("/api/users").status_code == 200
        run("user", "role", "Bob", "user")
        await until(lambda: http.get("/api/users").status_code == 403)
        async with socket(server, http, answer.json()["csrf"]) as ws:
            run("user", "disable", "Bob")
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionClosed) as closed:
                while True:
                    await ws.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1008
        assert code(http) == "log_in"
        # After a restart all is as it was.
        server.restart()
        answer = http.post("/api/session", json={"name": "Ada", "password": PASSWORD})
        assert answer.json()["user"]["role"] == "admin"
        assert PASSWORD not in server.log


@asynccontextmanager
async def socket(
    server: Server, http: httpx.Client, csrf: str
) -> AsyncIterator[WebSocketConnection]:
    """Open a socket with the cookie of a browser."""
    cookie = f"hubbub_session={http.cookies['hubbub_session']}".encode()
    path, headers = f"/ws?csrf={csrf}", [(b"cookie", cookie)]
    async with open_socket(server.port, path, [SUBPROTOCOL], headers) as ws:
        yield ws


@pytest.mark.parametrize(
    ("auth", "hint"),
    [
        ("accounts", "to make one: hubbub user add NAME"),
        ("invite", "then hubbub invite"),
        ("guests", None),
    ],
)
async def test_the_start_line_tells_how_to_make_the_first_account(
    auth: str, hint: str | None, tmp_path: Path
) -> None:
    async with started("--port", "0", folder=tmp_path, HUBBUB_AUTH=auth) as hubbub:
        assert (hint in hubbub.line) if hint else ("hubbub user" not in hubbub.line)
        assert hubbub.line.count("\n") <= 1


def test_settings_that_contradict_themselves_are_told_at_the_start(tmp_path: Path) -> None:
    assert "must be one of" in refused("--auth", "nobody", folder=tmp_path)
    assert "--trusted-proxies" in refused("--trusted-header", "X-User", folder=tmp_path)
    issuer = refused("--oidc-issuer", "http://evil.example", folder=tmp_path)
    assert "must be an https:// address" in issuer


def browser(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=PATIENCE)
