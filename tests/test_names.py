# ruff: noqa: RUF001
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import BadRequest
from hub.names import clean, key


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("  Ada \u00a0 Lovelace ", "Ada Lovelace"),
        ("Ａｄａ ﬁ", "Ada fi"),
        ("Ada\u202eevil\u2066\u200b\ufeff", "Adaevil"),
        ("A\U000e0041da", "Ada"),  # a tag character
        ("A\u034fd\u3164a\u2800", "Ada"),
        ("\n Ada\t", "Ada"),
        ("Zoë 👩\u200d👩\u200d👧 李", "Zoë 👩\u200d👩\u200d👧 李"),
        ("محمد", "محمد"),
    ],
)
def test_names_are_made_presentable(given: str, shown: str) -> None:
    assert clean(given, 40, "name") == shown


@pytest.mark.parametrize(
    "control", ["\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\n", "\r\n", "\t"]
)
def test_control_characters_are_refused(control: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        clean(f"Ada{control}Lovelace", 40, "name")
    assert refusal.value.code == "control_characters"


@pytest.mark.parametrize("nothing", ["", " ", "\u200b", "\u202e\u200d", "\u3164", "\u2800\u115f"])
def test_what_shows_nothing_is_empty(nothing: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        clean(nothing, 40, "name")
    assert refusal.value.code == "empty"


@pytest.mark.parametrize(
    "other",
    [
        "PayPal", "paypal", "pay pal", "pаypаl", "РауРаl", "ραyραl", "paypa1", "PAYPAI", "paypaı",
        "ｐａｙｐａｌ", "𝓹𝓪𝔂𝓹𝓪𝓵",
        "pay\u200dpal", "pay\u200bpal", "pay\u202epal", "páypạl", "paypa|",
        "pay\u3164pal", "paypal\ufe0f", "p\u034faypal",
    ],
)  # fmt: skip
def test_look_alikes_have_one_key(other: str) -> None:
    assert key(other) == key("paypal")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Steve", "steνe"),
        ("Nick", "Νick"),
        ("modern", "modem"),
        ("Wow", "VVow"),
        ("Admin", "Аdmіn"),
        ("O'Neill", "0’Neill"),
        ("Jean-Luc", "Jean–Luc"),
        ("Straße", "STRASSE"),
        ("Нина", "НИНА"),
        ("Νίκος", "ΝΙΚΟΣ"),
        ("Mike", "Міке"),
    ],
)
def test_more_look_alikes(one: str, other: str) -> None:
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada", "Adam"),
        ("Ann", "Anna"),
        ("Fox 10", "Fox 11"),
        ("Иван", "Ирина"),
        ("李雷", "李雪"),
        ("कमल", "कमला"),
        ("Ben", "Dan"),
    ],
)
def test_other_names_have_other_keys(one: str, other: str) -> None:
    assert key(one) != key(other)


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_a_key_is_stable_and_never_empty(text: str) -> None:
    try:
        name = clean(text, 400, "name")
    except BadRequest:
        return
    assert clean(name, 400, "name") == name
    assert key(name)
    assert not any(character.isspace() for character in key(name))


@given(st.text(st.characters(max_codepoint=127, categories=["L", "N", "P", "Zs"])))
def test_case_does_not_count(name: str) -> None:
    assert key(name) == key(name.upper()) == key(name.lower())
