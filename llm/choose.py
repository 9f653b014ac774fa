"""Which model answers: what is asked for, else what is configured, else the demo."""

import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from llm import anthropic, demo, openai
from llm.function import FunctionModel
from llm.llamacpp import LlamaCpp
from llm.local import LocalModel
from llm.provider import Provider, SetupError, Timeouts
from llm.transport import Kind

NAMES = ("openai", "anthropic", "llamacpp", "demo")

# What example files have in the place of a key: your-openai-key-here, <key>, sk-..., changeme.
PLACEHOLDER = re.compile(
    r"your[-_ ].*|.*[-_ ]here|<.*>|\[.*\]|\$?\{.*\}|change[-_ ]?me|(sk-)?(\.{3}|…|x{3,})",
    re.IGNORECASE,
)
KEY = re.compile(r"[\x21-\x7e]+")  # what fits into a header; anything else is a slip in copying


@frozen
class ModelSettings:
    """The settings by which the model is chosen; each is the environment's of that name.

    Attributes:
        llm: `HUBBUB_LLM`: one of `NAMES`, `module:function`, or empty.
        model_file: `HUBBUB_MODEL`: a GGUF file to run, or None.
        demo_rate: `HUBBUB_DEMO_RATE`: tokens a second.
        timeouts: for all providers.
        transport: `HUBBUB_HTTP_TRANSPORT`: what carries requests.

    """

    llm: str = ""
    model_file: Path | None = None
    openai_api_key: str = field(default="", repr=False)
    openai_base_url: str = ""
    openai_model: str = ""
    anthropic_api_key: str = field(default="", repr=False)
    anthropic_base_url: str = ""
    anthropic_model: str = ""
    llamacpp_url: str = ""
    demo_rate: float = demo.DEFAULT_RATE
    timeouts: Timeouts = field(factory=Timeouts)
    transport: Kind = "fast"


@frozen
class Choice:
    """The provider that answers, and what its owner should be told."""

    provider: Provider
    warnings: tuple[str, ...] = ()


def choose(settings: ModelSettings, *, chance: random.Random | None = None) -> Choice:
    """Build the provider that the settings ask for. Nothing is sent or started.

    Args:
        settings: as the owner gave them.
        chance: for the demo's choices.

    Raises:
        SetupError: what was asked for cannot be; its text says what is missing.

    """
    cleaned, warnings = _cleaned(settings)
    asked = cleaned.llm or _configured(cleaned)
    if cleaned.model_file is not None and cleaned.llm in ("", "llamacpp"):
        model = LocalModel(
            cleaned.model_file, timeouts=cleaned.timeouts, transport=cleaned.transport
        )
        return Choice(model, warnings)
    if cleaned.model_file is not None:
        raise SetupError(f"--model runs a file by llama.cpp; it does not go with --llm {asked}.")
    return Choice(_built(asked, cleaned, chance), warnings)


@asynccontextmanager
async def opened(choice: Choice) -> AsyncIterator[Provider]:
    """Have the chosen provider ready to answer; give back what it holds at the end.

    Raises:
        SetupError: a local model cannot be run.

    """
    provider = choice.provider
    try:
        if isinstance(provider, LocalModel):
            async with provider.running():
                yield provider
        else:
            yield provider
    finally:
        await provider.aclose()


def _cleaned(settings: ModelSettings) -> tuple[ModelSettings, tuple[str, ...]]:
    """Take white space and placeholders out, with a warning for each of the latter."""
    changes: dict[str, Any] = {}
    warnings = []
    for name in ("openai_api_key", "anthropic_api_key", "llamacpp_url"):
        value = getattr(settings, name).strip()
        if PLACEHOLDER.fullmatch(value):
            warnings.append(f"{name.upper()} holds only a placeholder; it counts as not set.")
            value = ""
        changes[name] = value
    names = ("llm", "openai_base_url", "openai_model", "anthropic_base_url", "anthropic_model")
    changes |= {name: getattr(settings, name).strip() for name in names}
    return evolve(settings, **changes), tuple(warnings)


def _configured(settings: ModelSettings) -> str:
    if settings.openai_api_key or not _is_official(settings.openai_base_url):
        return "openai"
    if settings.anthropic_api_key:
        return "anthropic"
    return "llamacpp" if settings.llamacpp_url else "demo"


def _built(asked: str, settings: ModelSettings, chance: random.Random | None) -> Provider:
    if ":" in asked:
        return FunctionModel.load(asked, timeouts=settings.timeouts)
    match asked:
        case "openai":
            return _openai(settings)
        case "anthropic":
            return _anthropic(settings)
        case "llamacpp":
            return _llamacpp(settings)
        case "demo":
            return demo.Demo(rate=settings.demo_rate, chance=chance)
    known = ", ".join(NAMES)
    raise SetupError(f"--llm {asked!r} is unknown: use one of {known}, or module:function.")


def _openai(settings: ModelSettings) -> openai.OpenAI:
    base_url = settings.openai_base_url or openai.OFFICIAL
    if _is_official(base_url):
        _require("OPENAI_API_KEY", settings.openai_api_key, "openai")
    return openai.OpenAI(
        key=_key("OPENAI_API_KEY", settings.openai_api_key),
        base_url=base_url,
        model=settings.openai_model or openai.DEFAULT_MODEL,
        timeouts=settings.timeouts,
        transport=settings.transport,
    )


def _anthropic(settings: ModelSettings) -> anthropic.Anthropic:
    _require("ANTHROPIC_API_KEY", settings.anthropic_api_key, "anthropic")
    return anthropic.Anthropic(
        key=_key("ANTHROPIC_API_KEY", settings.anthropic_api_key),
        base_url=settings.anthropic_base_url or anthropic.OFFICIAL,
        model=settings.anthropic_model or anthropic.DEFAULT_MODEL,
        timeouts=settings.timeouts,
        transport=settings.transport,
    )


def _llamacpp(settings: ModelSettings) -> LlamaCpp:
    _require("LLAMACPP_URL", settings.llamacpp_url, "llamacpp")
    return LlamaCpp(
        base_url=settings.llamacpp_url, timeouts=settings.timeouts, transport=settings.transport
    )


def _is_official(base_url: str) -> bool:
    """Whether it is OpenAI's own, which is the one that always needs a key."""
    return base_url.rstrip("/") in ("", openai.OFFICIAL)


def _require(name: str, value: str, provider: str) -> None:
    if not value:
        raise SetupError(f"The model provider {provider} needs {name}, which is not set.")


def _key(name: str, value: str) -> str:
    if value and not KEY.fullmatch(value):
        raise SetupError(f"{name} holds characters that no key has; was it copied whole?")
    return value
