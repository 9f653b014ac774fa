"""From settings to a gateway."""

from pathlib import Path

import pytest

from llm.budget import Budget
from llm.choose import ModelSettings
from llm.plan import open_plan, plan
from llm.provider import SetupError
from tests.llm.scripted import ask, hear

TOML = """
[[model]]
name = "small"
provider = "local"
file = "brief.gguf"
context = 4096

[[model]]
name = "pretend"
provider = "demo"

[budget.user]
tokens = 1000
"""


def names(folder: Path, asked: ModelSettings | None = None, fallback: str = "") -> list[str]:
    return [m.name for m in plan(asked or ModelSettings(), {}, folder, fallback=fallback).models]


def test_without_a_file_there_is_the_one_that_is_configured(tmp_path: Path) -> None:
    assert names(tmp_path) == ["demo"]
    assert names(tmp_path, fallback="demo") == ["demo"]
    server = ModelSettings(llamacpp_url="http://127.0.0.1:1")
    assert names(tmp_path, server) == ["llama.cpp"]
    assert names(tmp_path, server, fallback="demo") == ["llama.cpp", "demo"]


def test_the_file_lists_the_models_unless_one_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "hubbub.toml").write_text(TOML)
    assert names(tmp_path) == ["small", "pretend"]
    assert names(tmp_path, ModelSettings(llm="demo")) == ["demo"]
    found = plan(ModelSettings(), {}, tmp_path)
    assert found.first.name == "small"
    assert found.settings.budgets.user == Budget(tokens=1000)


def test_warnings_and_slips_are_passed_on(tmp_path: Path) -> None:
    asked = ModelSettings(openai_api_key="your-key-here")
    assert len(plan(asked, {}, tmp_path).warnings) == 1
    with pytest.raises(SetupError, match="HUBBUB_FALLBACK must be demo or empty"):
        names(tmp_path, fallback="openai")
    (tmp_path / "hubbub.toml").write_text("[[model]]")
    with pytest.raises(SetupError, match=r"hubbub\.toml: model 1 needs a name"):
        names(tmp_path)


@pytest.mark.llamacpp
async def test_local_models_of_the_file_are_run(tmp_path: Path, brief_model: Path) -> None:
    (tmp_path / "hubbub.toml").write_text(TOML)
    (tmp_path / "brief.gguf").symlink_to(brief_model)
    async with open_plan(plan(ModelSettings(demo_rate=1000), {}, tmp_path)) as gateway:
        small = await hear(gateway, ask())
        assert small.answering is not None
        assert (small.answered_by, small.answering.demo) == ("small", False)
        assert small.text
        pretend = await hear(gateway, ask(model="pretend"))
        assert pretend.answering is not None
        assert pretend.answering.demo


@pytest.mark.llamacpp
async def test_when_the_local_model_dies_the_demo_takes_over_and_says_so(
    tmp_path: Path, brief_model: Path
) -> None:
    import os
    import signal

    asked = ModelSettings(model_file=brief_model, demo_rate=1000)
    found = plan(asked, {}, tmp_path, fallback="demo")
    async with open_plan(found) as gateway:
        assert (await hear(gateway, ask("1"))).answered_by == "brief"
        pid = found.first.provider.pid  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGKILL)
        heard = await hear(gateway, ask("2"))
        assert heard.answering is not None
        assert (heard.answered_by, heard.answering.demo) == ("demo", True)
