"""`hubbub.toml`: the models of a hub, in the order in which they stand in for each other.

[[model]]
name = "fast"                      # what people pick
provider = "openai"                # openai, anthropic, llamacpp, local, demo or module:function
base_url = "https://api.example/v1"
key_env = "EXAMPLE_KEY"            # the environment variable that holds the key
model = "small-2"                  # the provider's own name for it
file = "tiny.gguf"                 # only for `local`
context = 128000
stands_in = true
limits = { calls = 8, calls_per_minute = 500, tokens_per_minute = 200000 }
price = { input = 0.15, output = 0.6 }      # for a million tokens, any one currency

[budget.user]                      # also .room and .hub
tokens = 100000                    # a day
money = 1.5

[cache]
use = "exact"                      # off, exact (only temperature 0) or always
megabytes = 32
hours = 24
"""

import random
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast, get_args

from attrs import evolve, field, frozen

from llm import anthropic, openai
from llm.anthropic import Anthropic
from llm.budget import Budget, Budgets
from llm.cache import CacheSettings, CacheUse
from llm.call import Model, Price
from llm.choose import KEY, PLACEHOLDER
from llm.demo import DEFAULT_RATE, Demo
from llm.function import MAX_THREADS, FunctionModel
from llm.gate import Limits
from llm.llamacpp import LlamaCpp
from llm.local import LocalModel
from llm.local_server import MOST_SLOTS, SLOTS
from llm.openai import OpenAI
from llm.provider import Provider, SetupError, Timeouts
from llm.tables import Table
from llm.transport import Kind

FILE = "hubbub.toml"
PROVIDERS = ("openai", "anthropic", "llamacpp", "local", "demo")
MOST_BYTES = 1 << 20  # of the file; a hundred models take twenty thousand
MOST_NAME = 60  # characters: it stands in a menu

# Calls at once where the owner says nothing. A llama.cpp answers four at once by default,
# and has its own queue for more, which would know nothing of askers.
CALLS = {"llamacpp": SLOTS, "local": SLOTS, "function": MAX_THREADS}


@frozen
class Entry:
    """A `[[model]]` as it is written."""

    name: str
    provider: str
    base_url: str = ""
    key_env: str = ""
    model: str = ""
    file: str = ""
    context: int | None = None
    stands_in: bool = True
    limits: Limits = field(factory=Limits)
    price: Price | None = None


@frozen
class Catalogue:
    """All that the file says."""

    entries: tuple[Entry, ...]
    budgets: Budgets = field(factory=Budgets)
    cache: CacheSettings = field(factory=CacheSettings)


@frozen
class Builder:
    """What building a provider takes beside its entry.

    Attributes:
        environ: holds the keys.
        folder: where files of models are looked for.
        timeouts: for all providers.
        transport: what carries the requests of those over HTTP.
        demo_rate: tokens a second.
        chance: for the demo's choices.

    """

    environ: Mapping[str, str]
    folder: Path = Path()
    timeouts: Timeouts = field(factory=Timeouts)
    demo_rate: float = DEFAULT_RATE
    chance: random.Random | None = None
    transport: Kind = "fast"


def read_catalogue(path: Path) -> Catalogue | None:
    """Read the file; None if there is none.

    Raises:
        SetupError: it cannot be read, or something in it is wrong; the text says what.

    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > MOST_BYTES:
        raise SetupError(f"{path} is larger than a megabyte; it cannot be a list of models.")
    try:
        return parse(data.decode())
    except UnicodeDecodeError:
        raise SetupError(f"{path} is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"{path} is not TOML: {error}.") from None
    except SetupError as error:
        raise SetupError(f"{path}: {error}") from None


def parse(text: str) -> Catalogue:
    """Make sense of the file's text.

    Raises:
        SetupError: something in it is wrong.
        tomllib.TOMLDecodeError: it is not TOML.

    """
    top = Table("the file", tomllib.loads(text))
    entries = tuple(_entry(table, n) for n, table in enumerate(top.tables("model"), 1))
    catalogue = Catalogue(entries, _budgets(top), _cache(top))
    top.end()
    names = [entry.name for entry in entries]
    if not names:
        raise SetupError("It lists no [[model]].")
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise SetupError(f"Two models are called “{doubled}”.")
    return catalogue


def build(entry: Entry, builder: Builder) -> Model:
    """Make the model of an entry. Nothing is sent or started.

    Raises:
        SetupError: its key is missing, or its address is none.

    """
    try:
        provider = _provider(entry, builder)
    except SetupError as error:
        raise SetupError(f"The model “{entry.name}”: {error}") from error
    return Model(
        entry.name, provider, entry.limits, entry.price, entry.context, stands_in=entry.stands_in
    )


def only(provider: Provider, *, fallback: Provider | None = None) -> list[Model]:
    """List the one model that was chosen without a file, and what stands in for it, if anything.

    Args:
        provider: the chosen one.
        fallback: the demo, where the owner wants it to answer if the model cannot.

    """
    limits = Limits(calls=CALLS.get(provider.name, Limits().calls))
    models = [Model(provider.model, provider, limits, by_name=True)]
    return models if fallback is None else with_fallback(models, fallback)


def with_fallback(models: list[Model], fallback: Provider) -> list[Model]:
    """Put the demo at the end of the list, unless it is there already."""
    if any(model.provider.demo for model in models):
        return models
    return [*models, Model(fallback.model, fallback, offered=False)]


# ── reading ──────────────────────────────────────────────────────────────────────────────


def _entry(values: dict[str, Any], number: int) -> Entry:
    name = values.get("name")
    table = Table(f"model “{name}”" if isinstance(name, str) else f"model {number}", values)
    entry = Entry(
        name=table.get("name", str, "").strip(),
        provider=table.get("provider", str, "").strip(),
        base_url=table.get("base_url", str, "").strip(),
        key_env=table.get("key_env", str, "").strip(),
        model=table.get("model", str, "").strip(),
        file=table.get("file", str, "").strip(),
        context=table.count("context"),
        stands_in=table.get("stands_in", bool, True),
        price=_price(table) if table.has("price") else None,
        limits=_limits(table),
    )
    table.end()
    if not entry.name:
        raise SetupError(f"{table.where} needs a name.")
    if len(entry.name) > MOST_NAME or not entry.name.isprintable():
        raise SetupError(f"A model's name is one line of at most {MOST_NAME} characters.")
    if entry.provider not in PROVIDERS and ":" not in entry.provider:
        known = ", ".join(PROVIDERS)
        raise SetupError(f"{table.where}: provider must be one of {known}, or module:function.")
    calls = entry.limits.calls if "limits" in values and "calls" in values["limits"] else None
    kind = "function" if ":" in entry.provider else entry.provider
    default = CALLS.get(kind, Limits().calls)
    return evolve(entry, limits=evolve(entry.limits, calls=calls or default))


def _limits(outer: Table) -> Limits:
    table = outer.table("limits")
    limits = Limits(
        calls=table.count("calls") or Limits().calls,
        calls_per_minute=table.count("calls_per_minute"),
        tokens_per_minute=table.count("tokens_per_minute"),
    )
    table.end()
    return limits


def _price(outer: Table) -> Price:
    table = outer.table("price")
    price_in, price_out = table.amount("input"), table.amount("output")
    table.end()
    if price_in is None or price_out is None:
        raise SetupError(f"{table.where} needs input and output.")
    return Price(price_in, price_out)


def _budgets(top: Table) -> Budgets:
    outer = top.table("budget")
    budgets = {}
    for scope in ("hub", "user", "room"):
        table = outer.table(scope)
        budgets[scope] = Budget(table.count("tokens"), table.amount("money"))
        table.end()
    outer.end()
    return Budgets(**budgets)


def _cache(top: Table) -> CacheSettings:
    table = top.table("cache")
    default = CacheSettings()
    use = table.get("use", str, default.use)
    if use not in get_args(CacheUse):
        raise SetupError(f"{table.where}: use must be off, exact or always.")
    megabytes, hours = table.amount("megabytes"), table.amount("hours")
    table.end()
    return CacheSettings(
        use=cast("CacheUse", use),
        most_bytes=default.most_bytes if megabytes is None else int(megabytes * 2**20),
        most_age=default.most_age if hours is None else hours * 3600,
    )


# ── building ─────────────────────────────────────────────────────────────────────────────


class _OverHttp(TypedDict):
    timeouts: Timeouts
    transport: Kind


def _provider(entry: Entry, builder: Builder) -> Provider:
    if ":" in entry.provider:
        return FunctionModel.load(entry.provider, timeouts=builder.timeouts)
    key = _key(entry, builder.environ)
    over_http: _OverHttp = {"timeouts": builder.timeouts, "transport": builder.transport}
    match entry.provider:
        case "openai":
            base_url = entry.base_url or openai.OFFICIAL
            _require_key(entry, key, base_url == openai.OFFICIAL)
            model = entry.model or openai.DEFAULT_MODEL
            return OpenAI(key=key, base_url=base_url, model=model, **over_http)
        case "anthropic":
            base_url = entry.base_url or anthropic.OFFICIAL
            _require_key(entry, key, base_url == anthropic.OFFICIAL)
            model = entry.model or anthropic.DEFAULT_MODEL
            return Anthropic(key=key, base_url=base_url, model=model, **over_http)
        case "llamacpp":
            return LlamaCpp(base_url=entry.base_url, key=key, model=entry.model, **over_http)
        case "local":
            if not entry.file:
                raise SetupError("file is missing: the GGUF file to run.")
            if entry.limits.calls > MOST_SLOTS:
                raise SetupError(f"a file is run for at most {MOST_SLOTS} calls at once.")
            return LocalModel(builder.folder / entry.file, slots=entry.limits.calls, **over_http)
        case _:
            return Demo(rate=builder.demo_rate, chance=builder.chance)


def _key(entry: Entry, environ: Mapping[str, str]) -> str:
    if not entry.key_env:
        return ""
    key = environ.get(entry.key_env, "").strip()
    if not key or PLACEHOLDER.fullmatch(key):
        raise SetupError(f"the environment variable {entry.key_env} holds no key.")
    if not KEY.fullmatch(key):
        raise SetupError(f"{entry.key_env} holds characters that no key has.")
    return key


def _require_key(entry: Entry, key: str, official: bool) -> None:
    if official and not key:
        raise SetupError(f"{entry.provider} needs a key: name its variable by key_env.")
