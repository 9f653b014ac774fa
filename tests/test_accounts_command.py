"""`hubbub user`, `token` and `invite`, as they are typed, beside a hub that runs."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from tests.command import HUBBUB, START_SECONDS, surroundings
from tests.server import Server, running_server

PASSWORD = "correct horse"
PATIENCE = 20.0


def hubbub(
    *words: str, folder: Path, given: str = "", status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Type a command; `given` is what it reads."""
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
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    if status == 2:
        assert done.stdout == ""
        assert done.stderr.startswith("hubbub: ")
        assert done.stderr.count("\n") == 1
    return done


def test_the_life_of_an_account(tmp_path: Path) -> None:
    def run(*words: str, given: str = "", status: int = 0) -> str:
        done = hubbub(*words, folder=tmp_path, given=given, status=status)
        return done.stdout + done.stderr

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
def test_what_is_typed_wrongly_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [HUBBUB, *words],
        cwd=tmp_path,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "usage: hubbub" in done.stderr


async def until(what: Callable[[], bool]) -> None:
    """Look again and again, each time after what the hub's own look takes."""
    with trio.fail_after(PATIENCE):
        while not what():  # noqa: ASYNC110 - it is another process that is waited for
            await trio.sleep(0.1)


def code(http: httpx.Client) -> str | None:
    """What the hub says to a browser: the code of a refusal, or None."""
    found: str | None = http.get("/api/rooms").json().get("code")
    return found


@pytest.mark.parametrize("auth", ["accounts"])
async def test_a_hub_that_runs_notices(auth: str) -> None:
    with running_server(env={"HUBBUB_AUTH": auth}) as server, browser(server) as http:
        folder = server.data

        def run(*words: str, given: str = "") -> str:
            return hubbub(*words, folder=folder, given=given).stdout

        assert code(http) == "log_in"
        run("user", "add", "Ada", given=PASSWORD)
        run("user", "add", "Bob", given=PASSWORD)
        answer = http.post("/api/session", json={"name": "Bob", "password": PASSWORD})
        assert answer.json()["user"]["role"] == "user"
        assert code(http) is None
        assert http.get("/api/users").status_code == 403
        run("user", "role", "Bob", "admin")
        await until(lambda: http.get("/api/users").status_code == 200)
        run("user", "disable", "Bob")
        await until(lambda: code(http) == "log_in")
        token = run("token", "add", "Ada").strip()
        bearer = {"authorization": f"Bearer {token}"}
        assert http.get("/api/rooms", headers=bearer).status_code == 200
        run("token", "remove", run("token", "list").split()[0])
        await until(lambda: http.get("/api/rooms", headers=bearer).status_code == 401)
        # After a restart all is as it was.
        server.restart()
        answer = http.post("/api/session", json={"name": "Ada", "password": PASSWORD})
        assert answer.json()["user"]["role"] == "admin"
        assert PASSWORD not in server.log


def browser(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=PATIENCE)
