"""Conversations with a hub, word for word, as JSON in `vectors/`: what goes in, what comes out.

They are the contract for clients in any language. In what is expected, `<any>` is anything,
`<text>` some text, `<uuid>`, `<time>` and `<failure>` text of that form, and `<other>` is
remembered at its first place and must be the same from then on, also in what is said.
`{"$repeat": [text, count]}` stands for a long text. `nested` is a message of so many `[`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hub.wire.tuples import SUBPROTOCOL
from tests.hubs import Socket, running_hub

VECTORS = Path(__file__).parent / "vectors"

FORMS = {
    "<text>": r"(?s).+",
    "<uuid>": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "<time>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "<failure>": r"Failed to \w+ \w+: .+\.",
}

Names = dict[str, object]


def vectors(file: str) -> list[Any]:
    cases = msgspec.json.decode((VECTORS / file).read_bytes())
    return [pytest.param(case["steps"], id=case["name"]) for case in cases]


@pytest.mark.parametrize("steps", vectors("objects.json"))
async def test_objects(steps: list[Any], autojump_clock: object) -> None:
    async with running_hub() as running, running.socket() as ws:
        await converse(Socket(ws), steps)


@pytest.mark.parametrize("steps", vectors("tuples.json"))
async def test_tuples(steps: list[Any], autojump_clock: object) -> None:
    async with running_hub() as running, running.socket("/ws", [SUBPROTOCOL]) as ws:
        await converse(Socket(ws), steps)


@pytest.mark.parametrize("steps", vectors("http.json"))
async def test_http(steps: list[Any], autojump_clock: object) -> None:
    async with running_hub() as running:
        names: Names = {}
        for step in steps:
            method = "GET" if "get" in step else "POST"
            path = step.get("get") or step["post"]
            content = said(step, names) if method == "POST" else None
            response = await running.http.request(method, path, content=content)
            problem = differs(step["hear"], response.json(), names)
            assert not problem, f"{step}: {problem}"
            assert response.status_code == step["status"], step


def test_what_differs_is_found() -> None:
    assert not differs({"a": ["<x>", "<x>"]}, {"a": [1, 1]}, {})
    assert differs({"a": ["<x>", "<x>"]}, {"a": [1, 2]}, {})
    assert differs({"a": 1}, {"a": 1, "b": 2}, {})
    assert differs({"a": 1}, {}, {})
    assert differs([1], [1, 2], {})
    assert differs("<uuid>", "x", {})
    assert differs(True, 1, {})


async def converse(socket: Socket, steps: list[Any]) -> None:
    names: Names = {}
    for step in steps:
        for _ in range(step.get("times", 1)):
            if (content := said(step, names)) is not None:
                await socket.send_text(content)
            if "hear" in step:
                heard = await hear(socket, step["hear"])
                problem = differs(step["hear"], heard, names)
                assert not problem, f"{step}: {problem}; heard: {heard}"
        if "closed" in step:
            assert await socket.closed() == step["closed"]


async def hear(socket: Socket, expected: object) -> object:
    """Return the next frame; events of rooms are passed over where none is expected."""
    while True:
        frame = await socket.receive()
        event = isinstance(frame, list) and frame[2] is None and frame[0] != "error"
        if not event or (isinstance(expected, list) and expected[0] == frame[0]):
            return frame
        if expected == "<any>":
            return frame


def said(step: dict[str, Any], names: Names) -> str | bytes | None:
    """Return what a step says, as it goes over the wire."""
    if "text" in step:
        return str(step["text"])
    if "binary" in step:
        return bytes.fromhex(step["binary"])
    if "nested" in step:
        return "[" * int(step["nested"])
    for key in ("say", "body"):
        if key in step:
            return msgspec.json.encode(filled(step[key], names)).decode()
    return None


def filled(value: Any, names: Names) -> object:
    if isinstance(value, dict):
        if "$repeat" in value:
            text, count = value["$repeat"]
            return str(text) * int(count)
        return {key: filled(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, names) for one in value]
    return names[value] if isinstance(value, str) and value in names else value


def differs(expected: Any, found: Any, names: Names, where: str = "$") -> str:
    """Tell where the two differ, or nothing."""
    return next(_differences(expected, found, names, where), "")


def _differences(expected: Any, found: Any, names: Names, where: str) -> Iterator[str]:
    if isinstance(expected, str) and re.fullmatch(r"<\w+>", expected):
        yield from _unlike(expected, found, names, where)
    elif type(expected) is not type(found):
        yield f"{where} is {found!r}, not {expected!r}"
    elif isinstance(expected, dict):
        for key in expected.keys() ^ found.keys():
            yield f"{where} should {'' if key in expected else 'not '}have {key!r}"
        for key in expected.keys() & found.keys():
            yield from _differences(expected[key], found[key], names, f"{where}.{key}")
    elif isinstance(expected, list):
        if len(expected) != len(found):
            yield f"{where} has {len(found)} members, not {len(expected)}"
        for n, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from _differences(one, other, names, f"{where}[{n}]")
    elif expected != found:
        yield f"{where} is {found!r}, not {expected!r}"


def _unlike(form: str, found: object, names: Names, where: str) -> Iterator[str]:
    if form in FORMS:
        if not (isinstance(found, str) and re.fullmatch(FORMS[form], found)):
            yield f"{where} is {found!r}, not {form}"
    elif form != "<any>" and names.setdefault(form, found) != found:
        yield f"{where} is {found!r}, but {form} was {names[form]!r}"
