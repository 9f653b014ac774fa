"""hubbub.toml, and `hubbub models`."""

from pathlib import Path

import pytest

from llm.anthropic import Anthropic
from llm.budget import Budget, Budgets
from llm.cache import CacheSettings
from llm.call import Price
from llm.catalogue import Builder, build, only, parse, read_catalogue, with_fallback
from llm.demo import Demo
from llm.gate import Limits
from llm.llamacpp import LlamaCpp
from llm.openai import OpenAI
from llm.provider import SetupError
from llm.trial import PATIENCE, shown, told, try_model
from tests.llm.scripted import FOREVER, Scripted, error, model

WHOLE = """
[[model]]
name = "fast"
provider = "openai"
base_url = "https://api.example/v1"
key_env = "EXAMPLE_KEY"
model = "small-2"
context = 128000
limits = { calls = 8, calls_per_minute = 500, tokens_per_minute = 200000 }
price = { input = 0.15, output = 1 }

[[model]]
name = "home"
provider = "llamacpp"
base_url = "http://127.0.0.1:8081"
stands_in = false

[budget.user]
tokens = 1000
[budget.hub]
money = 2

[cache]
use = "exact"
megabytes = 1
hours = 2
"""


def test_all_of_it_is_read() -> None:
    catalogue = parse(WHOLE)
    fast, home = catalogue.entries
    assert (fast.name, fast.provider, fast.model, fast.context) == (
        "fast",
        "openai",
        "small-2",
        128000,
    )
    assert fast.limits == Limits(8, 500, 200000)
    assert fast.price == Price(0.15, 1.0)
    assert (home.stands_in, home.limits) == (False, Limits(4))
    assert catalogue.budgets == Budgets(user=Budget(tokens=1000), hub=Budget(money=2.0))
    assert catalogue.cache == CacheSettings("exact", 1 << 20, 7200.0)


ONE = '[[model]]\nname = "a"\nprovider = "demo"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "It lists no [[model]]."),
        ("model = 3", "the file: model must be a list of tables."),
        ("model = [3]", "the file: model must be a list of tables."),
        ('[[model]]\nprovider = "demo"', "model 1 needs a name."),
        ('[[model]]\nname = 5\nprovider = "demo"', "model 1: name must be text in quotes."),
        (
            '[[model]]\nname = "a"',
            (
                "model “a”: provider must be one of openai, anthropic, llamacpp, local, demo, "
                "or module:function."
            ),
        ),
        (ONE + ONE, "Two models are called “a”."),
        (ONE + "context = true", "model “a”: context must be a whole number."),
        (ONE + "context = 0", "model “a”: context must be a whole number above 0."),
        (ONE + "limits = 3", "model “a”: limits must be a table."),
        (
            ONE + "limits = { calls = 1.5 }",
            "model “a”, limits: calls must be a whole number.",
        ),
        (
            ONE + "limits = { cals = 1 }",
            (
                "model “a”, limits: “cals” is unknown. "
                "Known are calls, calls_per_minute, tokens_per_minute."
            ),
        ),
        (ONE + "price = { input = 1 }", "model “a”, price needs input and output."),
        (
            ONE + "price = { input = -1, output = 1 }",
            "model “a”, price: input must be a number, 0 or more.",
        ),
        (
            ONE + "[budget.rooms]\ntokens = 3",
            "the file, budget: “rooms” is unknown. Known are hub, user, room.",
        ),
        (ONE + '[cache]\nuse = "on"', "the file, cache: use must be off, exact or always."),
        (ONE + "[llm]", "the file: “llm” is unknown. Known are model, budget, cache."),
    ],
)
def test_slips_are_told_in_words(text: str, says: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse(text)
    assert str(caught.value) == says


def test_the_file_may_be_missing_or_spoilt(tmp_path: Path) -> None:
    path = tmp_path / "hubbub.toml"
    assert read_catalogue(path) is None
    for spoilt in (b"[[model", b"\xff", b"#" * (1 << 21)):
        path.write_bytes(spoilt)
        with pytest.raises(SetupError, match=r"hubbub\.toml is "):
            read_catalogue(path)
    path.write_text("x = 1")
    with pytest.raises(SetupError, match=r"hubbub\.toml: the file: “x” is unknown"):
        read_catalogue(path)
    path.write_text(ONE)
    assert read_catalogue(path) == parse(ONE)
    with pytest.raises(SetupError, match="cannot be read"):
        read_catalogue(tmp_path)


async def test_providers_are_built() -> None:
    fast, home = parse(WHOLE).entries
    built = build(fast, Builder({"EXAMPLE_KEY": "k"}))
    assert isinstance(built.provider, OpenAI)
    assert (built.name, built.provider.model, built.price) == ("fast", "small-2", Price(0.15, 1))
    assert isinstance(build(home, Builder({})).provider, LlamaCpp)
    claude = '[[model]]\nname = "c"\nprovider = "anthropic"\nkey_env = "K"'
    assert isinstance(build(parse(claude).entries[0], Builder({"K": "k"})).provider, Anthropic)
    assert build(parse(ONE).entries[0], Builder({})).provider.demo


@pytest.mark.parametrize(
    ("text", "environ", "says"),
    [
        ('provider = "openai"', {}, "openai needs a key: name its variable by key_env."),
        ('provider = "openai"\nkey_env = "K"', {}, "the environment variable K holds no key."),
        (
            'provider = "openai"\nkey_env = "K"',
            {"K": "your-key-here"},
            "the environment variable K holds no key.",
        ),
        (
            'provider = "anthropic"\nkey_env = "K"',
            {"K": "a b"},
            "K holds characters that no key has.",
        ),
        ('provider = "local"', {}, "file is missing: the GGUF file to run."),
        (
            'provider = "local"\nfile = "x.gguf"\nlimits = { calls = 65 }',
            {},
            "a file is run for at most 64 calls at once.",
        ),
    ],
)
def test_what_cannot_be_built_is_told(text: str, environ: dict[str, str], says: str) -> None:
    [entry] = parse(f'[[model]]\nname = "a"\n{text}').entries
    with pytest.raises(SetupError) as caught:
        build(entry, Builder(environ))
    assert str(caught.value) == f"The model “a”: {says}"


def test_without_a_file_there_is_the_one_that_was_chosen() -> None:
    llama = LlamaCpp(base_url="http://127.0.0.1:1")
    [one] = only(llama)
    assert (one.name, one.by_name, one.limits.calls) == (llama.model, True, 4)
    assert [m.name for m in only(llama, fallback=Demo())] == [llama.model, "demo"]
    assert len(with_fallback(only(Demo()), Demo())) == 1


async def test_models_are_tried(autojump_clock: object) -> None:
    good = await try_model(model(Scripted((1.0, "Hel", 1.0, "lo.\n"), name="good")))
    assert told(good) == "good: ok, first text after 1.00 s, 2.00 s in all: Hello."
    bad = await try_model(model(Scripted((error("key"),), name="bad")))
    assert told(bad) == "bad: FAILED. It is key."
    slow = await try_model(model(Scripted((FOREVER,), name="slow")))
    assert told(slow) == f"slow: FAILED. It did not answer within {PATIENCE:g} s."
    assert told(await try_model(model(Scripted((), name="e")))).endswith("It said nothing.")


def test_models_are_shown() -> None:
    lines = shown([build(e, Builder({"EXAMPLE_KEY": "k"})) for e in parse(WHOLE).entries])
    head, fast, home = lines.split("\n")
    assert head.split() == ["name", "provider", "model", "at", "once", "context", "price", "in/out"]
    assert fast.split() == ["fast", "openai", "small-2", "8", "128000", "0.15/1"]
    assert home.split()[-3:] == ["4", "-", "-"]
