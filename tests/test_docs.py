"""The documentation tells of what there is, and of nothing else.

`python -m tests.test_docs` renews the tables in it that are made from the sources.
"""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from starlette.routing import Route

from hub import commands, errors, events, records, settings
from hub.showing import UNTOLD
from hub.web.routes import Api
from hub.web.sockets import PATHS
from tests.server import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])

SETTINGS = re.compile(r"(<!-- settings: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
MODULES = re.compile(r"(<!-- modules: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)


def read(name: str) -> str:
    return (DOCS / name).read_text()


def section(text: str, title: str) -> str:
    """The part of a page from a title to the next of the same or a higher rank."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"there is no section {title!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def made(name: str, part: re.Pattern[str]) -> str:
    """The part of a page that is made from the sources."""
    found = part.search(read(name))
    assert found
    return found[2]


# ── settings ─────────────────────────────────────────────────────────────────────────────


def settings_table() -> str:
    rows = ["| option | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for spec in attrs.fields(settings.Settings):
        value = f"{spec.default:g}" if isinstance(spec.default, float) else str(spec.default)
        default = f"`{value}`" if value else "-"
        about = spec.metadata["about"].replace("|", "\\|")
        option, variable = settings.option(spec.name), settings.variable(spec.name)
        rows.append(f"| `{option}` | `{variable}` | {default} | {about} |")
    return "\n".join(rows) + "\n"


def test_all_settings_are_in_the_table() -> None:
    assert made("settings.md", SETTINGS) == settings_table(), "run: python -m tests.test_docs"


def known_variables() -> set[str]:
    """The settings, and what `llm/`, which does not know them, says of further variables."""
    ours = {settings.variable(spec.name) for spec in attrs.fields(settings.Settings)}
    texts = (path.read_text() for path in (ROOT / "llm").rglob("*.py"))
    return ours | set(re.findall(r"\bHUBBUB_[A-Z_]+\b", "\n".join(texts)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_setting_is_named_that_does_not_exist(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"\bHUBBUB_[A-Z][A-Z_]*[A-Z]\b", text))
    assert named <= known_variables() | {"HUBBUB_X_Y"}
    options = {settings.option(spec.name) for spec in attrs.fields(settings.Settings)} | {"--help"}
    for given in re.findall(r"hubbub serve((?: +--?[\w-]+(?:[ =][^\s`-][^\s`]*)?)+)", text):
        assert set(re.findall(r"(--[\w-]+)", given)) <= options, given


def test_the_variables_of_models_are_named() -> None:
    used = set(re.findall(r'environ\.get\("([A-Z_]+)"', (ROOT / "hub/cli.py").read_text()))
    assert {"OPENAI_API_KEY", "LLAMACPP_URL"} <= used
    for variable in used:
        assert f"`{variable}`" in read("settings.md"), variable
        assert variable in read("models.md"), variable


# ── protocol ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", commands.BY_METHOD)
def test_each_method_and_its_payload_are_told(method: str) -> None:
    (row,) = re.findall(
        rf"^\| `{method}` \|.*$", section(read("protocol.md"), "Methods"), re.MULTILINE
    )
    for name in commands.BY_METHOD[method].__struct_encode_fields__:
        assert re.search(rf"\b{name}\b", row), f"{method} takes {name}"


@pytest.mark.parametrize("event", events.NAMES.items(), ids=lambda event: str(event[1]))
def test_each_event_and_its_payload_are_told(event: tuple[type[events.Event], str]) -> None:
    kind, name = event
    (row,) = re.findall(rf"^\| `{name}`.*$", section(read("protocol.md"), "Events"), re.MULTILINE)
    for member in set(kind.__struct_encode_fields__) - {"whole"}:
        assert re.search(rf"\b{member}\b", row), f"{name} has {member}"


def test_no_method_or_event_is_told_that_does_not_exist() -> None:
    for title, names in (
        ("Methods", set(commands.BY_METHOD)),
        ("Events", {*events.NAMES.values()}),
    ):
        rows = re.findall(r"^\| `(\w+)`", section(read("protocol.md"), title), re.MULTILINE)
        assert set(rows) == names
        assert len(rows) == len(names)


# Fields that never leave the server.
STAYS = {(records.Character, "card"), *((records.Room, name) for name in UNTOLD)}


@pytest.mark.parametrize(
    "record",
    [
        *(records.Message, records.Room, records.Member, records.User, records.Usage),
        *(records.Character, commands.NewCharacter),
    ],
    ids=lambda record: record.__name__,
)
def test_each_field_of_what_travels_is_told(record: Any) -> None:
    things = section(read("protocol.md"), "Things")
    for name in record.__struct_encode_fields__:
        if (record, name) not in STAYS:
            assert re.search(rf"`{name}`", things), f"{record.__name__} has {name}"


def test_each_close_code_is_told() -> None:
    table = section(read("protocol.md"), "Close codes")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == {
        *errors.Close
    }


def raised_codes() -> set[str]:
    """Codes of errors, as they stand in the sources."""
    found = set()
    for path in (ROOT / "hub").rglob("*.py"):
        text = path.read_text()
        found |= set(re.findall(r'\bcode="([a-z_]+)"', text))
        found |= set(re.findall(r'^    code = "([a-z_]+)"', text, re.MULTILINE))
        found |= set(re.findall(r'BadCall\([^)]*"([a-z]+_[a-z]+)"', text))
        found |= set(re.findall(r'(?:because|error)\(\s*\d{3}, "([a-z_]+)"', text))
        found |= set(re.findall(r'\d{3}: \("([a-z_]+)"', text))
    return found


def test_each_error_is_told() -> None:
    told = dict(
        re.findall(
            r"^\| `(\w+)` \| ([\d, -]+) \|", section(read("protocol.md"), "Errors"), re.MULTILINE
        )
    )
    assert {"csrf", "too_long", "bad_frame", "overloaded"} <= raised_codes()
    assert set(told) == raised_codes()
    for kind in errors.HubError.__subclasses__():
        assert str(kind.status) in told[kind.code]


def routes() -> list[Route]:
    nothing: Any = None  # the hub and the like: none of them is asked for anything
    app = Api(nothing, nothing, nothing).app()
    return [route for route in app.routes if isinstance(route, Route)]


@pytest.mark.parametrize("route", routes(), ids=lambda route: str(route.path))
def test_each_route_is_told(route: Route) -> None:
    table = section(read("protocol.md"), "HTTP")
    for method in (route.methods or set()) - {"HEAD"}:
        assert re.search(rf"^\| `{method} {re.escape(route.path)}", table, re.MULTILINE), method


def test_no_route_is_told_that_does_not_exist() -> None:
    known = {(method, route.path) for route in routes() for method in route.methods or ()}
    known |= {("GET", path) for path in PATHS}
    rows = re.findall(
        r"^\| `([A-Z]+) (/[^`?\s]*)", section(read("protocol.md"), "HTTP"), re.MULTILINE
    )
    assert rows
    assert set(rows) <= known


def test_each_message_of_games_is_told() -> None:
    source = (ROOT / "hub/object_conversation.py").read_text()
    types = set(re.findall(r'case "(\w+)":', source)) | set(re.findall(r'frame\("(\w+)"', source))
    types |= set(re.findall(r'frame\("(\w+)"', (ROOT / "hub/wire/objects.py").read_text()))
    assert {"start_game", "character_responses", "token"} <= types
    for type in types:
        assert re.search(rf"\b{type}\b", read("game-protocol.md")), type


# ── the pages themselves ─────────────────────────────────────────────────────────────────


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.is_relative_to(ROOT), target
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:hub|llm|public|tests|docs)/[\w./-]*\w(?:/|\.\w+))(?:::\w+)?`", page.read_text()
    )
    for name in named:
        assert (ROOT / name).exists(), name


def test_every_page_is_in_the_index() -> None:
    index = read("README.md")
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_tests_that_are_named_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", read("architecture.md"))
    assert len(named) >= 7  # one at least for each invariant
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), test


def module_tables() -> str:
    """What lives where, by the first line of each module."""
    parts = []
    for folder in ("hub", "hub/web", "hub/wire", "hub/store", "llm"):
        rows = [f"| `{folder}/` | |", "| --- | --- |"]
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.name != "__init__.py":
                line = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
                rows.append(f"| `{path.name}` | {line.replace('|', '/')} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def test_every_module_has_its_line() -> None:
    assert made("architecture.md", MODULES) == module_tables(), "run: python -m tests.test_docs"


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(one for extra in project["project"]["optional-dependencies"].values() for one in extra),
        *(one for group in project["dependency-groups"].values() for one in group),
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[\[<>=~! ]", one)[0] for one in wanted if isinstance(one, str)}
    told = set(re.findall(r"^\| `([\w-]+)` \|", read("dependencies.md"), re.MULTILINE))
    assert told == names


def test_the_readme_tells_how_to_begin() -> None:
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"\bmake ([a-z]+)", text):
        assert target in targets
    assert "make run" in text
    assert "make test" in text
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LLAMACPP_URL"):
        assert variable in text


if __name__ == "__main__":
    for name, part, fresh in (
        ("settings.md", SETTINGS, settings_table()),
        ("architecture.md", MODULES, module_tables()),
    ):
        head, begin, _, end, tail = part.split(read(name))
        (DOCS / name).write_text(head + begin + fresh + end + tail)
