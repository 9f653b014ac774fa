import shutil
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from hub.persona import persona
from hub.presets import ASSISTANT, MAX_CAST, PresetError, load
from hub.turns import mentioned
from llm.character import Line, Scene, assemble
from llm.persona import tokens

PARTY = ("tharin", "lyra", "finn")


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_three_of_the_seed_are_there() -> None:
    found = load().characters
    three = [
        (found[one].name, found[one].klass, found[one].emoji) for one in ("tharin", "lyra", "finn")
    ]
    assert three == [("Tharin", "Fighter", "⚔️"), ("Lyra", "Wizard", "🔮"), ("Finn", "Rogue", "🗡️")]
    for one, fact in {"tharin": "guard", "lyra": "scholar", "finn": "stealing"}.items():
        assert fact in found[one].backstory


def test_there_are_casts_for_several_uses() -> None:
    presets = load()
    casts = {frozenset(scenario.cast) for scenario in presets.scenarios.values()}
    assert sum(set(PARTY) == set(one.cast) for one in presets.scenarios.values()) >= 3
    groups: list[set[str]] = []
    for cast in casts:
        touching = [group for group in groups if group & cast]
        groups = [group for group in groups if not group & cast]
        groups.append(set(cast).union(*touching))
    assert len(groups) >= 5  # casts that have nobody in common
    assert all(presets.cast(one) for one in presets.scenarios)


def test_every_preset_makes_a_prompt_that_leaves_room_to_talk() -> None:
    presets = load()
    for scenario in presets.scenarios.values():
        cast = presets.cast(scenario.id)
        for who in cast:
            scene = Scene(
                scenario=scenario.text,
                cast=tuple(other.name for other in cast if other is not who),
                lines=(Line("Ada", "Hello!"),),
            )
            prompt = assemble(persona(who), scene)
            assert tokens(prompt.messages[0].content) < 1_000
            assert len(prompt.stop) == len(cast) - 1


def test_every_preset_can_be_mentioned() -> None:
    for who in load().characters.values():
        assert mentioned(f"@{who.name}, hello", [who]) == [who.id]


def test_the_assistant_is_a_plain_helper() -> None:
    who = load().characters[ASSISTANT]
    assert (who.name, who.emoji) == ("Assistant", "✨")
    assert persona(who).plain


def test_presets_go_over_the_wire_as_clients_know_them() -> None:
    lyra = msgspec.to_builtins(load().characters["lyra"])
    assert {"id", "name", "emoji", "class", "personality", "backstory"} <= set(lyra)
    scenario = msgspec.to_builtins(load().scenarios["drowned-bell"])
    assert set(scenario) == {"id", "title", "text", "cast", "answer"}


def test_a_folder_of_ones_own_adds_and_replaces(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        [characters.lyra]
        name = "Lyra the Second"
        triggers = [{ when = "hello", then = "Bow." }]

        [characters.zed]
        name = "Zed"
        class = "Bard"
        talkativeness = 1

        [scenarios.duet]
        title = "Duet"
        text = "They sing."
        cast = ["zed", "lyra", "finn"]
        answer = "mention"
        """,
    )
    presets = load([tmp_path])
    assert presets.characters["lyra"].backstory == ""
    assert presets.characters["lyra"].triggers[0].then == "Bow."
    assert presets.characters["zed"].klass == "Bard"
    assert [who.name for who in presets.cast("duet")] == ["Zed", "Lyra the Second", "Finn"]
    assert "drowned-bell" in presets.scenarios


WRONG = {
    "no toml": ('[characters.a]\nname = "A', 2, "not valid TOML"),
    "no toml at the end": ("[characters.a", 1, "not valid TOML"),
    "unknown table": ("\n[people.a]\nname = 'A'", 2, "not “people”"),
    "key outside": ("name = 'A'", 1, "not “name”"),
    "unknown key": ("[characters.a]\nname = 'A'\nclas = 'B'", 3, "“clas” is not known here"),
    "no name": ("# hi\n\n[characters.a]\nclass = 'B'", 3, "has no “name”"),
    "empty name": ("[characters.a]\nclass = 'B'\nname = ' '", 3, "should not be empty"),
    "bad name": ("[characters.a]\nname = 'A: B'", 2, "plain name on one line"),
    "number": ("[characters.a]\nname = 7", 2, "“name” should be text"),
    "too long": (f"[characters.a]\nname = 'A'\nclass = '{'x' * 101}'", 3, "at most 100 characters"),
    "share": ("[characters.a]\nname = 'A'\ntalkativeness = 2", 3, "a number from 0 to 1"),
    "share is true": ("[characters.a]\nname = 'A'\ntalkativeness = true", 3, "from 0 to 1"),
    "triggers": ("[characters.a]\nname = 'A'\ntriggers = ['x']", 3, "should be a list of {"),
    "no triggers": ("[characters.a]\nname = 'A'\ntriggers = 3", 3, "should be a list of {"),
    "trigger": (
        "[characters.a]\nname = 'A'\ntriggers = [\n{when = '', then = 'b'}]",
        3,
        "should not be empty",
    ),
    "id": ("[characters.'a b']\nname = 'A'", 1, "“a b” is no id"),
    "not a table": ("[characters]\na = 3", 1, "[characters.a] should be a table"),
    "no title": ("[scenarios.a]\ntext = 'x'\ncast = ['lyra']", 1, "has no “title”"),
    "answer": (
        "[scenarios.a]\ntitle = 'T'\ntext = 'x'\ncast = ['lyra']\nanswer = 'some'",
        5,
        "“answer” should be",
    ),
    "stranger": (
        "[scenarios.a]\ntitle = 'T'\ntext = 'x'\ncast = ['gandalf']",
        4,
        "no character with the id “gandalf”",
    ),
    "nobody": ("[scenarios.a]\ntitle = 'T'\ntext = 'x'\ncast = []", 4, "1 to 8 characters, not 0"),
    "twice": ("[scenarios.a]\ntitle = 'T'\ntext = 'x'\ncast = ['lyra', 'lyra']", 4, "once"),
    "cast": ("[scenarios.a]\ntitle = 'T'\ntext = 'x'\ncast = 'lyra'", 4, "list of ids"),
    "second": (
        "[characters.b]\nname = 'B'\n\n[characters.\"c\"]\nname = 'C'\nemoji = 1",
        6,
        "“emoji” should be text",
    ),
}


@pytest.mark.parametrize(("text", "line", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, text: str, line: int, sentence: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PresetError) as caught:
        load([tmp_path])
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_cast_has_a_limit(tmp_path: Path) -> None:
    cast = [f"c{n}" for n in range(MAX_CAST + 1)]
    people = "".join(f"[characters.{one}]\nname = '{one}'\n" for one in cast)
    write(tmp_path, f"{people}[scenarios.a]\ntitle = 'T'\ntext = 'x'\ncast = {cast}")
    with pytest.raises(PresetError, match="1 to 8 characters, not 9"):
        load([tmp_path])


def test_an_id_comes_once_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "[characters.a]\nname = 'A'", "one.toml")
    path = write(tmp_path, "\n[characters.a]\nname = 'A'", "two.toml")
    with pytest.raises(PresetError) as caught:
        load([tmp_path])
    assert str(caught.value) == f"{path}:2: “a” is in one.toml already."


def test_a_replaced_character_may_not_be_missed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    write(one, "[scenarios.a]\ntitle = 'T'\ntext = 'x'\ncast = ['later']")
    write(two, "[characters.later]\nname = 'L'")
    assert load([one, two]).cast("a")[0].name == "L"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="no such folder"):
        load([tmp_path / "none"])
    path = tmp_path / "x.toml"
    path.write_bytes(b"[characters.a]\nname = '\xff'")
    with pytest.raises(PresetError, match=r"x\.toml:2: this is not UTF-8"):
        load([tmp_path])
    path.write_bytes(b"#" * 1_100_000)
    with pytest.raises(PresetError, match="bigger than 1024 KiB"):
        load([tmp_path])
    path.write_bytes(b"a = " + b"[" * 50_000)
    with pytest.raises(PresetError, match=r"nested too deeply|not valid TOML"):
        load([tmp_path])
    path.unlink()
    path.mkdir()
    with pytest.raises(PresetError, match="can't be read"):
        load([tmp_path])


def test_our_own_files_can_serve_as_a_start(tmp_path: Path) -> None:
    for path in Path(str(files("hub"))).joinpath("presets").glob("*.toml"):
        shutil.copy(path, tmp_path)
    assert load([tmp_path]) == load()
