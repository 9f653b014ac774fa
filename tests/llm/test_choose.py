import random
from pathlib import Path

import pytest

from llm.anthropic import Anthropic
from llm.choose import ModelSettings, choose, opened
from llm.demo import Demo
from llm.function import FunctionModel
from llm.llamacpp import LlamaCpp
from llm.local import LocalModel
from llm.openai import OpenAI
from llm.provider import Provider, SetupError

KEYS = {"openai_api_key": "sk-1", "anthropic_api_key": "sk-ant-2", "llamacpp_url": "http://[::1]:1"}
HERE = "tests.llm.test_function:speak"


@pytest.mark.parametrize(
    ("settings", "kind", "model"),
    [
        ({}, Demo, "demo"),
        (KEYS, OpenAI, "gpt-4o-mini"),
        (KEYS | {"openai_model": "o3 "}, OpenAI, "o3"),
        ({"openai_base_url": "http://localhost:11434/v1"}, OpenAI, "gpt-4o-mini"),
        ({"openai_base_url": "https://api.openai.com/v1"}, Demo, "demo"),
        (KEYS | {"openai_api_key": " "}, Anthropic, "claude-haiku-4-5"),
        (KEYS | {"openai_api_key": "", "anthropic_api_key": ""}, LlamaCpp, "llama.cpp"),
        (KEYS | {"llm": "demo"}, Demo, "demo"),
        (KEYS | {"llm": "anthropic"}, Anthropic, "claude-haiku-4-5"),
        (KEYS | {"llm": "llamacpp"}, LlamaCpp, "llama.cpp"),
        (KEYS | {"llm": HERE}, FunctionModel, HERE),
        (KEYS | {"model_file": Path("/x/tiny.gguf")}, LocalModel, "tiny"),
    ],
)
def test_who_answers(settings: dict[str, str], kind: type[Provider], model: str) -> None:
    choice = choose(ModelSettings(**settings))  # type: ignore[arg-type]  # of the right types
    assert type(choice.provider) is kind
    assert choice.provider.model == model
    assert choice.warnings == ()


@pytest.mark.parametrize(
    "value",
    [
        "your-openai-api-key-here",
        "your_key",
        "sk-your-key-here",
        "<your key>",
        "sk-...",
        "xxxx",
        "sk-xxxxxxxx",
        "${OPENAI_API_KEY}",
        "CHANGE_ME",
    ],
)
def test_a_placeholder_counts_as_not_set(value: str) -> None:
    choice = choose(ModelSettings(openai_api_key=value))
    assert isinstance(choice.provider, Demo)
    [warning] = choice.warnings
    assert "OPENAI_API_KEY" in warning


@pytest.mark.parametrize("value", ["sk-proj-yourAbc123", "ollama", "lm-studio", "x", "there"])
def test_what_only_looks_a_little_like_one_is_a_key(value: str) -> None:
    choice = choose(ModelSettings(openai_api_key=value))
    assert isinstance(choice.provider, OpenAI)
    assert choice.warnings == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ModelSettings(llm="openai"), "OPENAI_API_KEY, which is not set"),
        (ModelSettings(llm="openai", openai_api_key="your-key-here"), "OPENAI_API_KEY"),
        (ModelSettings(llm="anthropic"), "ANTHROPIC_API_KEY"),
        (ModelSettings(llm="llamacpp"), "LLAMACPP_URL"),
        (ModelSettings(llm="chatgpt"), "unknown: use one of openai, anthropic"),
        (ModelSettings(llm="nowhere:answer"), "No module named"),
        (ModelSettings(llamacpp_url="localhost:8081"), "is not the address"),
        (ModelSettings(openai_api_key="sk-1\nsk-2"), "copied whole"),
        (ModelSettings(openai_api_key="schlüssel"), "copied whole"),
        (ModelSettings(demo_rate=0), "above 0"),
        (ModelSettings(llm="demo", model_file=Path("x")), "does not go with"),
    ],
)
def test_what_cannot_be_is_said(settings: ModelSettings, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        choose(settings)


def test_keys_are_not_shown() -> None:
    assert "sk-1" not in repr(ModelSettings(openai_api_key="sk-1"))


async def test_is_open_for_as_long_as_it_is_used() -> None:
    choice = choose(ModelSettings(), chance=random.Random(1))
    async with opened(choice) as provider:
        assert provider is choice.provider


async def test_a_file_that_is_missing_is_told_on_opening(tmp_path: Path) -> None:
    choice = choose(ModelSettings(model_file=tmp_path / "none.gguf"))
    with pytest.raises(SetupError):
        async with opened(choice):
            pass
