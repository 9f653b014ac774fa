"""The command itself, in a process of its own: how it starts, what it says, how it ends."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from hub import __version__
from tests.command import HUBBUB, descendants, launched, lives, refused, started
from tests.models import brief_model, endless_model, llamacpp
from tests.server import ROOT
from tests.sockets import PATIENCE

__all__ = ["brief_model", "endless_model", "llamacpp"]  # fixtures

# So slow that a reply is under way for as long as a test likes.
SLOWLY = {"HUBBUB_DEMO_RATE": "5"}


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Look again and again until something holds of other processes."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - no event of ours tells it
            await trio.sleep(0.02)


async def get(port: int, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
        return await http.get(f"http://127.0.0.1:{port}{path}", headers=headers)


# ── starting ─────────────────────────────────────────────────────────────────────────────


async def test_one_line_when_connections_are_accepted(tmp_path: Path) -> None:
    async with started("--port", "0", folder=tmp_path) as hubbub:
        assert hubbub.line.startswith(f"Hubbub serves http://localhost:{hubbub.port} ")
        assert hubbub.line.count("\n") == 1
        assert "demo" in hubbub.line
        assert str(tmp_path / "data") in hubbub.line
        assert (await get(hubbub.port, "/healthz")).json()["version"] == __version__
        assert await hubbub.end(signal.SIGTERM) == 0
        assert await hubbub.rest() == ""
        assert "Traceback" not in hubbub.log


def test_version_and_help() -> None:
    def said(*options: str) -> str:
        done = subprocess.run([HUBBUB, *options], capture_output=True, text=True, check=True)
        return done.stdout

    assert said("--version") == f"hubbub {__version__}\n"
    assert "serve" in said("--help")
    assert "HUBBUB_DATA" in said("serve", "--help")


async def test_env_file_is_read_and_the_real_environment_wins(tmp_path: Path) -> None:
    env_file = "HUBBUB_PORT=0\nHUBBUB_DATA=here\nOPENAI_BASE_URL='http://localhost:1/v1'\n"
    (tmp_path / ".env").write_text(env_file + "OPENAI_MODEL=from-the-file\n")
    async with started(folder=tmp_path, OPENAI_MODEL="from-outside") as hubbub:
        assert "from-outside (openai)" in hubbub.line
        assert str(tmp_path / "here") in hubbub.line
    async with started("--data", "there", folder=tmp_path, HUBBUB_LLM="demo") as hubbub:
        assert "demo" in hubbub.line
        assert str(tmp_path / "there") in hubbub.line


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_port_is_honoured_and_ours_wins(tmp_path: Path) -> None:
    ours, theirs = free_port(), free_port()
    async with started(folder=tmp_path, PORT=str(theirs)) as hubbub:
        assert hubbub.port == theirs
        assert await hubbub.end(signal.SIGTERM) == 0
    async with started(folder=tmp_path, PORT=str(theirs), HUBBUB_PORT=str(ours)) as hubbub:
        assert hubbub.port == ours


async def test_a_placeholder_is_no_key(tmp_path: Path) -> None:
    async with started(
        "--port", "0", folder=tmp_path, OPENAI_API_KEY="your-openai-key-here"
    ) as hubbub:
        assert "demo" in hubbub.line
        assert "OPENAI_API_KEY holds only a placeholder" in hubbub.log


async def test_a_function_of_ones_own_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "parrot.py").write_text(
        "async def answer(request):\n    yield 'You said: ' + request.prompt\n"
    )
    async with (
        started("--port", "0", "--llm", "parrot:answer", folder=tmp_path) as hubbub,
        hubbub.connect() as alice,
    ):
        answer = await alice.call("llm_chat_prompt", prompt="polly")
        assert answer == {"text": "You said: polly", "status": "done"}


async def test_what_is_kept_is_for_its_owner_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with started("--port", "0", folder=tmp_path) as hubbub:
        first = (data / "secret").read_text()
        assert len(first) == 64
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert stat.S_IMODE((data / "secret").stat().st_mode) == 0o600
        assert await hubbub.end(signal.SIGTERM) == 0
    async with started("--port", "0", folder=tmp_path) as hubbub:
        assert (data / "secret").read_text() == first
        assert await hubbub.end(signal.SIGTERM) == 0
    # A power cut may leave a file empty; with an empty secret anybody could sign.
    (data / "secret").write_text("")
    async with started("--port", "0", folder=tmp_path):
        assert len((data / "secret").read_text()) == 64
        assert (data / "secret").read_text() != first


# ── not starting ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "x"], "--port must be a whole number, not “x”."),
        (["--port", "70000"], "--port must be from 0 to 65535, not 70000."),
        (["--temperature", "nan"], "--temperature must be from 0 to 2, not nan."),
        (["--max-tokens", "1.5"], "--max-tokens must be a whole number, not “1.5”."),
        (["--log-level", "loud"], "--log-level must be one of"),
        (["--llm", "oracle"], "--llm 'oracle' is unknown"),
        (["--llm", "openai"], "needs OPENAI_API_KEY, which is not set"),
        (["--llm", "nowhere:answer"], "No module named 'nowhere'"),
        (["--llm", "json:answer"], "The module 'json' has no function 'answer'."),
        (["--host", "203.0.113.7"], "This machine has no address 203.0.113.7"),
        (["--database", "mysql://x"], "Hubbub cannot use a mysql:// database"),
        (["--presets", "nowhere"], "nowhere: there is no such folder of presets."),
        (["--data", "/proc/nowhere"], "The data folder /proc/nowhere can't be made"),
        (["--nonsense", "1"], "unrecognized arguments: --nonsense 1"),
    ],
)
def test_what_is_wrong_with_the_start(options: list[str], sentence: str, tmp_path: Path) -> None:
    # Where the port is not what is tested, none has to be free.
    port = [] if "--port" in options else ["--port", "0"]
    said = refused(*port, *options, folder=tmp_path)
    assert sentence in said
    if "--nonsense" not in options:
        assert said.startswith("hubbub: ")
        assert said.count("\n") == 1


def test_a_wrong_variable_is_called_by_its_name(tmp_path: Path) -> None:
    assert "HUBBUB_GRACE must be a number" in refused(folder=tmp_path, HUBBUB_GRACE="long")
    assert "PORT must be a whole number" in refused(folder=tmp_path, PORT="http")


def test_a_file_where_the_data_should_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    said = refused("--port", "0", folder=tmp_path)
    assert said == "hubbub: The data folder data can't be made: a file is in its way.\n"


def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    command: list[str | Path] = [HUBBUB]
    if os.geteuid() == 0:  # who may write everywhere, unless that is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", HUBBUB]
    said = refused("--port", "0", folder=tmp_path, command=command)
    assert said == "hubbub: data/hubbub.lock cannot be written: Permission denied.\n"
    said = refused("--port", "0", "--data", "data/more", folder=tmp_path, command=command)
    assert said == "hubbub: The data folder data/more can't be made: Permission denied.\n"


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "hubbub.db").write_text("something else entirely, " * 50)
    said = refused("--port", "0", folder=tmp_path)
    assert said == "hubbub: This file is not a Hubbub database, or it is damaged.\n"


def test_an_env_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"HUBBUB_PORT=\xff\n")
    assert ".env must be text in UTF-8." in refused(folder=tmp_path)


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with started("--port", "0", folder=tmp_path) as hubbub:
        said = refused("--port", str(hubbub.port), "--data", "other", folder=tmp_path)
        assert "Something else already listens at port" in said


async def test_a_data_folder_that_is_in_use(tmp_path: Path) -> None:
    async with started("--port", "0", folder=tmp_path):
        said = refused("--port", "0", folder=tmp_path)
        assert said.startswith("hubbub: ")
        assert "hubbub.db" in said


# ── ending ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_while_a_reply_runs(how: signal.Signals, tmp_path: Path) -> None:
    async with (
        started("--port", "0", folder=tmp_path, **SLOWLY) as hubbub,
        hubbub.connect() as alice,
    ):
        await alice.call("join_room", room="lobby")
        await alice.prompt("lobby", "Tell me a long story.")
        begun = await alice.event("message_start")
        await alice.event("token")
        hubbub.process.send_signal(how)
        ended = await alice.event("message_end")
        assert (ended["id"], ended["status"]) == (begun["message"]["id"], "interrupted")
        assert await alice.closed() == 1001
        assert await hubbub.end(signal.SIGCONT) == 0  # it is ending already
        assert "Traceback" not in hubbub.log


def is_model(process: int) -> bool:
    """Whether this child is our llama.cpp; Python itself starts short-lived ones."""
    told = subprocess.run(
        ["ps", "-o", "command=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return "local_server" in told.stdout


@pytest.mark.llamacpp
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_while_it_starts(
    how: signal.Signals, llamacpp: None, tmp_path: Path
) -> None:
    # A model that takes its time: its process has not come to loading when the signal does.
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif 'llm.local_server' in sys.orig_argv:\n    time.sleep(600)\n"
    )
    options = ("--port", "0", "--model", "model.gguf")
    async with launched(*options, folder=tmp_path, PYTHONPATH=str(tmp_path)) as (process, errors):
        await until(lambda: any(map(is_model, descendants(process.pid))))
        children = descendants(process.pid)
        process.send_signal(how)
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0, errors.read_text()
        await until(lambda: not any(map(lives, children)))
        assert "Traceback" not in errors.read_text()


async def test_what_was_said_survives_a_kill(tmp_path: Path) -> None:
    async with (
        started("--port", "0", folder=tmp_path, **SLOWLY) as hubbub,
        hubbub.connect() as alice,
    ):
        await alice.call("join_room", room="lobby")
        said = await alice.prompt("lobby", "Remember this.")
        begun = await alice.event("message_start")
        await alice.event("token")
        assert await hubbub.end(signal.SIGKILL) == -signal.SIGKILL
    async with started("--port", "0", folder=tmp_path) as hubbub, hubbub.connect() as bob:
        joined = await bob.call("join_room", room="lobby")
        prompt, reply = joined["messages"]
        assert (prompt["id"], prompt["text"]) == (said["id"], "Remember this.")
        assert reply["id"] == begun["message"]["id"]
        assert reply["status"] == "interrupted"
        assert reply["demo"] is True
        assert joined["replies"] == []


async def test_the_module_is_the_command_too(tmp_path: Path) -> None:
    async with started(
        "--port", "0", folder=tmp_path, command=(sys.executable, "-m", "hub"), PYTHONPATH=str(ROOT)
    ) as hubbub:
        assert await hubbub.end(signal.SIGINT) == 0


# ── a model file ─────────────────────────────────────────────────────────────────────────


@pytest.mark.llamacpp
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_model_file_answers_and_goes_when_we_go(
    how: signal.Signals, brief_model: Path, tmp_path: Path
) -> None:
    async with started("--port", "0", "--model", str(brief_model), folder=tmp_path) as hubbub:
        assert "brief (llamacpp)" in hubbub.line
        async with hubbub.connect() as alice:
            answer = await alice.call("llm_chat_prompt", prompt="hello")
            assert answer["status"] == "done"
            assert answer["text"].strip()
            assert "demo" not in answer
        children = descendants(hubbub.process.pid)
        assert children
        assert await hubbub.end(how) == (0 if how == signal.SIGTERM else -how)
        await until(lambda: not any(map(lives, children)))


@pytest.mark.llamacpp
async def test_ending_in_the_middle_of_a_real_reply(endless_model: Path, tmp_path: Path) -> None:
    async with (
        started("--port", "0", "--model", str(endless_model), folder=tmp_path) as hubbub,
        hubbub.connect() as alice,
    ):
        await alice.call("join_room", room="lobby")
        await alice.prompt("lobby", "Never end.")
        await alice.event("token")
        hubbub.process.send_signal(signal.SIGTERM)
        assert await alice.closed() == 1001
        assert await hubbub.end(signal.SIGCONT) == 0


@pytest.mark.llamacpp
def test_model_files_that_are_none(llamacpp: None, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    (tmp_path / "half.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(20))
    cases = {
        "nowhere.gguf": "There is no file nowhere.gguf.",
        ".": ". is a folder, not a model file.",
        "text.gguf": "text.gguf is not a GGUF file",
        "half.gguf": "llama.cpp cannot load half.gguf; it may be incomplete.",
    }
    for file, sentence in cases.items():
        said = refused("--port", "0", "--model", file, folder=tmp_path)
        assert said.splitlines()[-1].startswith(f"hubbub: {sentence}")
