"""The owner's commands, as they are typed, and retention."""

import random
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from hub import retention
from hub.hub import Hub
from hub.records import Session
from hub.retention import AGAIN_SECONDS, DAY_SECONDS
from hub.settings import Settings
from hub.store.contract import AddMessage, SaveRoom, SaveSession, StoreError
from hub.store.memory import MemoryStore
from hub.store.opening import open_store
from hub.wire.tuples import TUPLES
from tests.command import HUBBUB, START_SECONDS, surroundings, talking
from tests.hubs import PRESETS, running_hub
from tests.postgres import Server, postgres  # noqa: F401 - a fixture
from tests.scripted import Scripted
from tests.server import running_server
from tests.store.making import message, room

FULL = Path("/dev/full")


def hubbub(
    *words: str | Path, folder: Path, status: int = 0, **env: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [HUBBUB, *words],
        cwd=folder,
        env=surroundings(**env),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    if status == 2:
        assert done.stdout == ""
        assert done.stderr.startswith("hubbub: ")
        assert done.stderr.count("\n") == 1
    return done


async def say(port: int, text: str) -> str:
    async with talking(port) as client:
        await client.call("join_room", room="lobby")
        id: str = (await client.prompt("lobby", text))["id"]
        await client.event("message_end")
        return id


async def heard(port: int) -> list[str]:
    async with talking(port) as client:
        joined = await client.call("join_room", room="lobby")
        return [one["text"] for one in joined["messages"] if one["author"]["kind"] == "human"]


def filled(folder: Path, lines: int = 3) -> Path:
    """Make a data folder with a room `den` in it."""

    async def fill() -> None:
        async with open_store(folder / "data" / "hubbub.db") as store:
            messages = [message(f"line {n} {'x' * 100}") for n in range(lines)]
            await store.commit(SaveRoom(room(invite="sesame")), *map(AddMessage, messages))
            await store.commit(AddMessage(message("whispered", private=True), to="ann"))

    trio.run(fill)
    return folder / "data"


# ── backup and restore ───────────────────────────────────────────────────────────────────


async def test_a_backup_of_a_hub_that_runs_is_served_elsewhere(tmp_path: Path) -> None:
    copy, elsewhere = tmp_path / "copy.db", tmp_path / "new" / "data"
    with running_server() as server:
        await say(server.port, "before the backup")
        done = hubbub("backup", copy, "--data", server.data, folder=tmp_path)
        assert done.stdout.startswith(f"{copy} is a copy of {server.data}/hubbub.db, ")
        await say(server.port, "after it")
        refused = hubbub("restore", copy, "--data", server.data, folder=tmp_path, status=2)
        assert "Another Hubbub is using" in refused.stderr
        assert await heard(server.port) == ["before the backup", "after it"]
    done = hubbub("restore", copy, folder=tmp_path, HUBBUB_DATA=str(elsewhere))
    assert done.stdout == f"{copy} was restored to {elsewhere}/hubbub.db.\n"
    with running_server(data=elsewhere) as server:
        assert await heard(server.port) == ["before the backup"]


def test_what_a_backup_replaces_is_kept(tmp_path: Path) -> None:
    data = filled(tmp_path)
    hubbub("backup", "copy.db", folder=tmp_path)
    said = hubbub("restore", "copy.db", folder=tmp_path).stdout
    assert said.endswith("What was there before is now data/hubbub.db.replaced.\n")
    assert (data / "hubbub.db.replaced").is_file()


def test_what_the_commands_write_is_for_its_owner_only(tmp_path: Path) -> None:
    filled(tmp_path)
    hubbub("backup", "copy.db", folder=tmp_path)
    hubbub("restore", "copy.db", "--data", "other", folder=tmp_path)
    for path, mode in (("copy.db", 0o600), ("other", 0o700), ("other/hubbub.db", 0o600)):
        assert (tmp_path / path).stat().st_mode & 0o777 == mode


def test_backups_that_are_refused(tmp_path: Path) -> None:
    none = hubbub("backup", "copy.db", folder=tmp_path, status=2)
    assert none.stderr == "hubbub: There is no database at data/hubbub.db.\n"
    filled(tmp_path)
    (tmp_path / "copy.db").write_text("precious")
    taken = hubbub("backup", "copy.db", folder=tmp_path, status=2)
    assert taken.stderr == "hubbub: copy.db exists already; nothing was written.\n"
    away = hubbub("backup", "away/copy.db", folder=tmp_path, status=2)
    assert away.stderr == "hubbub: There is no folder away to write copy.db to.\n"
    useless = hubbub("restore", "copy.db", folder=tmp_path, status=2)
    assert "not a Hubbub database" in useless.stderr
    url = "postgresql://ann:secret@localhost/hub"
    pg = hubbub("backup", "pg.db", "--database", url, folder=tmp_path, status=2)
    assert "pg_dump" in pg.stderr
    wrong = hubbub("check", folder=tmp_path, status=2, HUBBUB_DATABASE="mysql://x")
    assert "cannot use a mysql:// database" in wrong.stderr


# ── check ────────────────────────────────────────────────────────────────────────────────


def test_a_whole_database_and_a_damaged_one(tmp_path: Path) -> None:
    data = filled(tmp_path, lines=500)
    said = hubbub("check", folder=tmp_path).stdout
    assert said == "Nothing is wrong with data/hubbub.db.\n"
    whole = (data / "hubbub.db").read_bytes()
    for damaged in (whole[:20_000] + bytes(20_000) + whole[40_000:], b"no database " * 100):
        (data / "hubbub.db").write_bytes(damaged)
        found = hubbub("check", folder=tmp_path, status=1)
        assert "damaged" in found.stdout
        assert found.stderr == ""


def test_nothing_to_check(tmp_path: Path) -> None:
    said = hubbub("check", folder=tmp_path, status=2).stderr
    assert said == "hubbub: There is no database at data/hubbub.db.\n"
    assert list(tmp_path.iterdir()) == []


# ── export ───────────────────────────────────────────────────────────────────────────────


def test_a_room_is_written_out_without_whispers(tmp_path: Path) -> None:
    filled(tmp_path, lines=501)
    markdown = hubbub("export", "den", folder=tmp_path).stdout
    assert markdown.startswith("# den\n")
    assert markdown.count("\nline ") == 501
    jsonl = hubbub("export", "den", "--format", "jsonl", folder=tmp_path).stdout
    texts = [msgspec.json.decode(line)["text"] for line in jsonl.splitlines()]
    assert [text.split()[1] for text in texts] == [str(n) for n in range(501)]
    whole = hubbub("export", "den", "--format", "json", folder=tmp_path).stdout
    assert len(msgspec.json.decode(whole)["messages"]) == 501
    assert "whispered" not in markdown + jsonl + whole
    assert "sesame" not in markdown + jsonl + whole


@pytest.mark.postgresql
async def test_check_and_export_on_postgresql(postgres: Server, tmp_path: Path) -> None:  # noqa: F811
    where = postgres.new_database()
    async with open_store(where) as store:
        await store.commit(SaveRoom(room()), AddMessage(message("aloud")))
        await store.commit(AddMessage(message("whispered", private=True), to="ann"))
        said = hubbub("check", folder=tmp_path, HUBBUB_DATABASE=where).stdout
        assert said == "Nothing is wrong with the database.\n"
        said = hubbub("export", "den", "--database", where, folder=tmp_path).stdout
        assert "\naloud\n" in said
        assert "whispered" not in said
    nobody = hubbub("export", "attic", "--database", where, folder=tmp_path, status=2).stderr
    assert nobody == "hubbub: There is no room attic.\n"


def test_the_command_and_the_page_write_the_same(tmp_path: Path) -> None:
    with running_server() as server, httpx.Client(base_url=server.url) as client:
        trio.run(say, server.port, "Is it the same?")
        client.get("api/session")
        for kind in ("json", "jsonl", "md"):
            by_page = client.get(f"api/rooms/lobby/export?format={kind}").text
            args = ("export", "lobby", "--format", kind, "--data", server.data)
            assert hubbub(*args, folder=tmp_path).stdout == by_page
            assert "Is it the same?" in by_page


def test_exports_that_are_refused(tmp_path: Path) -> None:
    filled(tmp_path, lines=2000)
    said = hubbub("export", "attic", folder=tmp_path, status=2).stderr
    assert said == "hubbub: There is no room attic.\n"
    command = f"{HUBBUB} export den | head -1"
    piped = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=tmp_path,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert piped.returncode == 2
    assert piped.stdout == "# den\n"
    assert piped.stderr == "hubbub: The export can't be written: Broken pipe.\n"


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_an_export_to_a_full_disk(tmp_path: Path) -> None:
    filled(tmp_path)
    with FULL.open("w") as full:
        done = subprocess.run(
            [HUBBUB, "export", "den"],
            cwd=tmp_path,
            env=surroundings(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "hubbub: The export can't be written: No space left on device.\n"


# ── retention ────────────────────────────────────────────────────────────────────────────


def ago(days: float) -> str:
    at = datetime.now(UTC) - timedelta(days=days)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def kept(store: MemoryStore) -> list[str]:
    return [one.text for one in await store.transcript("den", viewer=None)]


def asleep(store: MemoryStore, days: float) -> Hub:
    """A hub that does not run: its heartbeat would need a day's beats for each day."""
    settings = Settings(retention_days=days)
    return Hub(settings, store, Scripted(), presets=PRESETS, chance=random.Random(1))


async def test_old_messages_go_at_the_start_and_every_day(autojump_clock: object) -> None:
    store = MemoryStore()
    old, young = message("old", at=ago(31)), message("young", at=ago(29))
    await store.commit(SaveRoom(room()), AddMessage(old), AddMessage(young))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(retention.forget, asleep(store, 30.0))
        await trio.sleep(1)
        assert await kept(store) == ["young"]
        await store.commit(AddMessage(message("older still", at=ago(40))))
        await trio.sleep(DAY_SECONDS - 10)
        assert await kept(store) == ["young", "older still"]
        await trio.sleep(20)
        assert await kept(store) == ["young"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("days", "left"), [(1.0, []), (Settings().retention_days, ["old"])])
async def test_a_hub_forgets_if_it_was_asked_to(
    days: float, left: list[str], autojump_clock: object
) -> None:
    store = MemoryStore()
    await store.commit(SaveRoom(room()), AddMessage(message("old", at=ago(4000))))
    async with running_hub(store=store, retention_days=days):
        await trio.sleep(1)
        assert await kept(store) == left


async def test_what_expired_goes_too(autojump_clock: object) -> None:
    store = MemoryStore()
    sessions = [Session("over", "ann", time.time() - 1), Session("open", "ann", time.time() + 60)]
    await store.commit(*map(SaveSession, sessions))
    async with running_hub(store=store):
        await trio.sleep(1)
        assert await store.session("over") is None
        assert await store.session("open") == sessions[1]


async def test_a_live_room_forgets_what_it_holds_in_memory(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_hub(retention_days=1.0) as running, running.connect() as ada:
        await ada.call("join_room", room="lobby")
        aloud = await ada.prompt("lobby", "remember me")
        await ada.event("turn", state="done")
        whisper = await ada.prompt("lobby", "remember me too", reply="me")
        await ada.event("turn", state="done")
        before = (await ada.call("join_room", room="lobby"))["epoch"]
        # The clock of dates can't be turned; the line that is drawn can.
        monkeypatch.setattr(retention, "_before", lambda _days: ago(-1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(retention.forget, running.hub)
            gone = [await ada.event("message_removed") for _ in range(4)]
            nursery.cancel_scope.cancel()
        assert {aloud["id"], whisper["id"]} < {one["id"] for one in gone}
        assert [one.get("inbox", False) for one in gone].count(True) == 2
        room, log = running.hub.live[0], running.hub.live[0].log
        frames, _ = log.after(log.dropped, TUPLES)
        inbox = running.hub.people.inbox(ada.user["id"])
        frames += inbox.after(inbox.dropped, TUPLES)[0]
        assert b"remember me" not in frames
        assert await room.transcript.newest(ada.user["id"], 50) == []
        async with running.connect() as late:
            since = {"epoch": before, "offset": 0}
            snapshot = await late.call("join_room", room="lobby", since=since)
            assert (snapshot["recovered"], snapshot["messages"]) == (False, [])
        # And it goes on as before.
        assert (await ada.prompt("lobby", "and now"))["text"] == "and now"
        await ada.event("message_end", status="done")


async def test_a_store_that_fails_is_asked_again(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    await store.commit(SaveRoom(room()), AddMessage(message("old", at=ago(2))))
    store.fail_reads = StoreError("The disk is full.")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(retention.forget, asleep(store, 1.0))
        await trio.sleep(1)
        assert "could not be removed: The disk is full." in caplog.text
        store.fail_reads = None
        await trio.sleep(AGAIN_SECONDS)
        assert await kept(store) == []
        nursery.cancel_scope.cancel()
