"""The command `hubbub`.

Exit status: 0 after a signal, 2 for what is wrong with the start, 1 where `models` found one
that does not answer.

The owner's commands have theirs from `hub.owner` and `hub.people_commands`.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs
import trio

from hub import __version__, app, owner, people_commands
from hub.errors import HubError
from hub.logs import log_to_stderr
from hub.presets import PresetError
from hub.settings import SettingError, Settings, environment, option, read, variable
from hub.store.contract import StoreError
from hub.web.entrance import access, auth_of
from hub.web.listener import ListenError
from llm.choose import ModelSettings
from llm.plan import Plan, open_plan, plan
from llm.provider import SetupError, Timeouts
from llm.transport import Kind
from llm.trial import shown, told, try_model

logger = logging.getLogger("hub")

FAILED = 1
WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return WRONG
    try:
        if given.command in owner.COMMANDS:
            return owner.run(given)
        if given.command in people_commands.COMMANDS:
            return people_commands.run(given)
        return _try_models(given) if given.command == "models" else _serve(given)
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(f"hubbub: {sentence}", file=sys.stderr)
        return WRONG


# Their text is a sentence for whoever gave the command.
_EXPLAINED = (SettingError, PresetError, SetupError, StoreError, ListenError, HubError)


def _sentence(error: Exception) -> str | None:
    """Put what is wrong with the start into words; None if it is a fault of the program."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, _EXPLAINED):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}."
    return None


def _serve(given: argparse.Namespace) -> int:
    settings, models = _planned(given)
    access(settings)  # what contradicts itself is told before anything is opened
    trio.run(app.run, settings, models, lambda url: _announce(url, settings, models))
    return 0


def _try_models(given: argparse.Namespace) -> int:
    _, models = _planned(given)
    print(shown(models.models), flush=True)

    async def ask_each() -> int:
        failed = 0
        async with open_plan(models):
            for model in models.models:
                trial = await try_model(model)
                print(told(trial), flush=True)
                failed += bool(trial.trouble)
        return FAILED if failed else 0

    return trio.run(ask_each)


def _planned(given: argparse.Namespace) -> tuple[Settings, Plan]:
    environ = environment(Path.cwd())
    values = {name: value for name, value in vars(given).items() if value is not None}
    settings = read(values, environ)
    _log_to_stderr(settings.log_level)
    asked = model_settings(settings, environ)
    models = plan(asked, environ, Path.cwd(), fallback=settings.fallback)
    for warning in models.warnings:
        logger.warning("%s", warning)
    return settings, models


def _announce(url: str, settings: Settings, models: Plan) -> None:
    provider = models.first.provider
    model = (
        "a demo that makes its answers up; see docs/models.md"
        if provider.demo
        else (f"{provider.model} ({provider.name})")
    )
    where = "PostgreSQL" if settings.database.startswith("postgres") else settings.data.resolve()
    who = {
        "guests": "",
        "accounts": " - log in with an account; to make one: hubbub user add NAME",
        "invite": " - by invitation: hubbub user add NAME, then hubbub invite",
    }[auth_of(settings)]
    print(f"Hubbub serves {url} - model: {model} - data: {where}{who}", flush=True)


def model_settings(settings: Settings, environ: Mapping[str, str]) -> ModelSettings:
    """Gather what decides which model answers."""
    return ModelSettings(
        llm=settings.llm,
        model_file=Path(settings.model) if settings.model else None,
        openai_api_key=environ.get("OPENAI_API_KEY", ""),
        openai_base_url=environ.get("OPENAI_BASE_URL", ""),
        openai_model=environ.get("OPENAI_MODEL", ""),
        anthropic_api_key=environ.get("ANTHROPIC_API_KEY", ""),
        anthropic_base_url=environ.get("ANTHROPIC_BASE_URL", ""),
        anthropic_model=environ.get("ANTHROPIC_MODEL", ""),
        llamacpp_url=environ.get("LLAMACPP_URL", ""),
        demo_rate=settings.demo_rate,
        timeouts=Timeouts(first=settings.first_timeout, between=settings.between_timeout),
        transport=cast("Kind", settings.http_transport),  # checked where the models are planned
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hubbub", description="People and AI characters talk together in shared rooms."
    )
    parser.add_argument("--version", action="version", version=f"hubbub {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve the chat",
        description="Serve the chat. Each option is also an environment variable, "
        "HUBBUB_ and its name in capitals; .env in the working directory is read.",
    )
    _add_settings(serve)
    _add_settings(commands.add_parser("models", help="list the models, and ask each one something"))
    owner.add_to(commands)
    people_commands.add_to(commands)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    for spec in attrs.fields(Settings):
        about = spec.metadata["about"].replace("%", "%%")
        default = f" [{spec.default}]" if str(spec.default) else ""
        parser.add_argument(
            option(spec.name), metavar="X", help=f"{about}{default} ({variable(spec.name)})"
        )


def _log_to_stderr(level: str) -> None:
    levels = {"debug", "info", "warning", "error"}
    if level.lower() not in levels:
        raise SettingError(
            f"--log-level must be one of {', '.join(sorted(levels))}, not “{level}”."
        )
    log_to_stderr(level)
    # These tell of every request and every frame.
    for noisy in ("httpx", "httpcore", "trio-websocket"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
