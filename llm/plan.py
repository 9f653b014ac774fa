"""From settings to a gateway: which models there are, and having them ready to answer."""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import get_args

from attrs import evolve, field, frozen

from llm.budget import Ledger
from llm.cache import Cache
from llm.call import Model
from llm.catalogue import FILE, Builder, Catalogue, build, only, read_catalogue, with_fallback
from llm.choose import ModelSettings, choose
from llm.demo import Demo
from llm.gateway import Gateway, GatewaySettings, open_gateway
from llm.local import LocalModel
from llm.provider import SetupError
from llm.transport import Kind


@frozen
class Plan:
    """The models of a hub, and what its owner should be told. Nothing is started yet."""

    models: tuple[Model, ...]
    settings: GatewaySettings = field(factory=GatewaySettings)
    warnings: tuple[str, ...] = ()

    @property
    def first(self) -> Model:
        """The one that answers if nobody picks another."""
        return self.models[0]


def plan(
    asked: ModelSettings,
    environ: Mapping[str, str],
    folder: Path,
    *,
    fallback: str = "",
    chance: random.Random | None = None,
) -> Plan:
    """Say which models there are.

    A model that is asked for by name (`--llm`, `--model`) is the only one; else those of
    `hubbub.toml`; without that file, the one that is configured.

    Args:
        asked: how the one model is chosen.
        environ: where the file's keys are.
        folder: where the file is, and the files of models that it names.
        fallback: `HUBBUB_FALLBACK`: `demo`, or empty for none.
        chance: for the demo's choices.

    Raises:
        SetupError: something is missing or wrong; the text says what.

    """
    if fallback not in ("", "demo"):
        raise SetupError(f"HUBBUB_FALLBACK must be demo or empty, not “{fallback}”.")
    if asked.transport not in get_args(Kind):
        raise SetupError(f"HUBBUB_HTTP_TRANSPORT must be fast or stock, not “{asked.transport}”.")
    named = asked.llm.strip() or asked.model_file is not None
    catalogue = None if named else read_catalogue(folder / FILE)
    if catalogue is None:
        choice = choose(asked, chance=chance)
        found = Plan(tuple(only(choice.provider)), warnings=choice.warnings)
    else:
        builder = Builder(environ, folder, asked.timeouts, asked.demo_rate, chance, asked.transport)
        found = _of_catalogue(catalogue, builder)
    if fallback:
        demo = Demo(rate=asked.demo_rate, chance=chance)
        found = evolve(found, models=tuple(with_fallback(list(found.models), demo)))
    return found


def _of_catalogue(catalogue: Catalogue, builder: Builder) -> Plan:
    models = tuple(build(entry, builder) for entry in catalogue.entries)
    return Plan(models, GatewaySettings(budgets=catalogue.budgets, cache=catalogue.cache))


@asynccontextmanager
async def open_plan(
    plan: Plan,
    *,
    ledger: Ledger | None = None,
    cache: Cache | None = None,
    chance: random.Random | None = None,
) -> AsyncIterator[Gateway]:
    """Have the models ready to answer; see `open_gateway` for the rest.

    Raises:
        SetupError: a local model cannot be run.

    """
    async with AsyncExitStack() as stack:
        for model in plan.models:
            if isinstance(model.provider, LocalModel):
                await stack.enter_async_context(model.provider.running())
        gateway = open_gateway(
            plan.models, plan.settings, ledger=ledger, cache=cache, chance=chance
        )
        yield await stack.enter_async_context(gateway)
