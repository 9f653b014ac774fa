"""A real llama.cpp, running a small model of random weights in a child process."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
from attrs import evolve

from llm.llamacpp import LlamaCpp
from llm.local import LocalModel, LocalModelError
from llm.provider import ModelError, Request
from tests.contracts.providers import all_of, error_of
from tests.models import WORDS

pytestmark = pytest.mark.llamacpp

POLLS = 400  # of 10 ms; what is awaited takes a few of them, and a busy machine some more
ASK = Request.of("Where does the bird sleep?")
ENDLESS = evolve(ASK, max_tokens=10**9)


@pytest.fixture
async def model(endless_model: Path) -> AsyncIterator[LocalModel]:
    model = LocalModel(endless_model)
    async with model.running():
        yield model
    await model.aclose()


async def test_streams_words_up_to_the_limit(model: LocalModel) -> None:
    texts, usage = await all_of(model, evolve(ASK, max_tokens=50))
    assert set("".join(texts).split()) <= set(WORDS)
    assert (usage.output_tokens, usage.finish, usage.model) == (50, "length", "endless")
    assert usage.input_tokens is not None
    assert usage.input_tokens > len(ASK.prompt.split())


async def test_ends_by_itself(brief_model: Path) -> None:
    model = LocalModel(brief_model)
    async with model.running():
        texts, usage = await all_of(model, ENDLESS)
    assert usage.finish == "stop"
    assert len("".join(texts).split()) == (usage.output_tokens or 0) - 1  # the end is a token too


async def test_native_and_chat_agree(model: LocalModel) -> None:
    """With no chance in it, both ways of asking give the same words."""
    request = evolve(ASK, temperature=0.0, max_tokens=20)
    native = LlamaCpp(base_url=model.address, key=model.key)
    native._native = True
    try:
        assert "".join((await all_of(native, request))[0]) == "".join(
            (await all_of(model, request))[0]
        )
    finally:
        await native.aclose()


async def test_stops_at_a_stop_text(model: LocalModel) -> None:
    texts, usage = await all_of(model, evolve(ENDLESS, stop=(" the", " b")))
    assert " b" not in "".join(texts)
    assert usage.finish == "stop"


async def test_what_is_too_long_is_said(model: LocalModel) -> None:
    _, error = await error_of(model, Request.of("word " * 20_000))
    assert error.fault == "too_long"


async def busy_slots(model: LocalModel) -> int:
    headers = {"authorization": f"Bearer {model.key}"}
    # Without certificates, which take longer to load than the model takes for a third of its reply.
    async with httpx.AsyncClient(trust_env=False, verify=False, headers=headers) as client:
        slots = (await client.get(f"{model.address}/slots")).json()
    return sum(slot["is_processing"] for slot in slots)


async def test_nobody_else_may_use_it(model: LocalModel) -> None:
    """Any page in a browser here reaches loopback."""
    async with httpx.AsyncClient(trust_env=False, base_url=model.address) as client:
        ask = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
        assert (await client.post("/v1/chat/completions", json=ask)).status_code == 401
        assert (await client.post("/completion", json={"prompt": "hello"})).status_code == 401
        assert (await client.get("/slots")).status_code == 401


async def test_leaving_stops_the_model(model: LocalModel) -> None:
    async with model.stream(ENDLESS) as items:
        async for item in items:
            assert isinstance(item, str)
            break
        assert await busy_slots(model) == 1
    for _ in range(POLLS):
        if await busy_slots(model) == 0:
            return
        await trio.sleep(0.01)
    pytest.fail("the model goes on")


async def test_its_death_in_a_reply_is_an_error_and_so_is_what_follows(model: LocalModel) -> None:
    pid = model.pid
    assert pid is not None
    with pytest.raises(ModelError) as caught:
        async with model.stream(ENDLESS) as items:
            async for item in items:
                assert isinstance(item, str)
                os.kill(pid, signal.SIGKILL)
    assert caught.value.fault in ("cut", "unreachable")
    for _ in range(POLLS):
        if model.pid is None:
            break
        await trio.sleep(0.01)
    _, error = await error_of(model)
    assert error.fault == "unreachable"
    assert "has stopped" in str(error)


async def test_is_gone_when_it_is_left(endless_model: Path) -> None:
    model = LocalModel(endless_model)
    async with model.running():
        pid = model.pid
        assert pid is not None
        assert is_alive(pid)
    assert not is_alive(pid)
    await error_of(model)


def is_alive(pid: int) -> bool:
    """Whether it runs: a process that ended and that nobody has waited for yet does not."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return state.stdout.strip() != "" and not state.stdout.startswith("Z")


PARENT = """
    import sys
    from pathlib import Path
    import trio
    from llm.local import LocalModel

    async def main():
        model = LocalModel(Path(sys.argv[1]))
        async with model.running():
            print(model.pid, flush=True)
            await trio.sleep_forever()

    trio.run(main)
"""


async def has_ended(pid: int) -> bool:
    for _ in range(POLLS):
        if not is_alive(pid):
            return True
        await trio.sleep(0.01)
    return False


async def test_goes_when_its_parent_is_killed(endless_model: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(endless_model)]
    parent = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    try:
        pid = int(await parent.stdout.receive_some())
        assert is_alive(pid)
    finally:
        parent.kill()
        await parent.wait()
        await parent.stdout.aclose()
    ended = await has_ended(pid)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    assert ended


WITHOUT_THREADS = """
    import os, time
    from llm import local_server

    local_server._watch = lambda: None
    local_server._go_with_parent()
    os.write(1, b"ready")
    time.sleep(60)
"""


async def test_goes_with_its_parent_also_while_no_thread_can_run() -> None:
    """While a model is being loaded only the kernel can end the process."""
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_THREADS)]
    child = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    assert await child.stdout.receive_some() == b"ready"
    await child.stdin.aclose()
    with trio.move_on_after(POLLS / 100):
        await child.wait()
    child.kill()
    await child.wait()
    await child.stdout.aclose()
    assert child.returncode == -signal.SIGIO


async def failure(path: Path) -> str:
    with pytest.raises(LocalModelError) as caught:
        async with LocalModel(path).running():
            pass
    return str(caught.value)


async def test_files_that_cannot_be_run_are_told_apart(endless_model: Path, tmp_path: Path) -> None:
    assert "There is no file" in await failure(tmp_path / "none.gguf")
    assert "is a folder" in await failure(tmp_path)
    (tmp_path / "letter.gguf").write_text("Dear model,")
    assert "not a GGUF file" in await failure(tmp_path / "letter.gguf")
    (tmp_path / "empty.gguf").touch()
    assert "not a GGUF file" in await failure(tmp_path / "empty.gguf")
    whole = await trio.Path(endless_model).read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:300_000])
    assert "may be incomplete" in await failure(tmp_path / "cut.gguf")


async def test_a_missing_extra_is_said(
    endless_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm.local.EXTRA", "xllamacpp_that_is_missing")
    assert "pip install 'hubbub[local]'" in await failure(endless_model)


async def test_what_it_prints_is_for_the_log(
    endless_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with LocalModel(endless_model).running():
        pass
    out, err = capfd.readouterr()
    assert out == ""
    assert err
