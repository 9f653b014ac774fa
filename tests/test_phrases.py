import pytest

from llm.phrases import MAX_PATTERN, Heard


def matches(pattern: str, text: str, *, case_sensitive: bool = False) -> bool:
    return Heard(text).has(pattern, case_sensitive=case_sensitive)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("dragon", "The Dragon!"),
        ("Dragon", "a dragon's egg"),
        ("dragon*", "Dragonflies here"),
        ("*berry", "a blueberry pie"),
        ("st*ng", "it is strong"),
        ("red dragon", "the RED \n dragon"),
        ("open * door", "Open the door, please"),
        ("red* dragon", "the reddish dragon"),
        ("c++", "I write C++ daily"),
        ("?!", "what?!"),
        ("straße", "In der Straße"),
        ("龍", "あの龍は強い"),
        ("*", "anything"),
        ("a_b", "call a_b()"),
    ],
)
def test_found(pattern: str, text: str) -> None:
    assert matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("dragon", "a dragonfly"),
        ("dragon", "snapdragon"),
        ("red dragon", "red and dragon"),
        ("st*ng", "st and ng"),
        ("open * door", "open the old door"),
        ("*berry", "berryless"),
        ("a.c", "abc"),
        ("(a+)+$", "aaaa"),
        ("", "anything"),
        ("   ", "anything"),
        ("*", "   "),
        ("x" * (MAX_PATTERN + 1), "x" * (MAX_PATTERN + 1)),
    ],
)
def test_not_found(pattern: str, text: str) -> None:
    assert not matches(pattern, text)


def test_case_counts_where_it_is_asked_for() -> None:
    assert not matches("US", "tell us", case_sensitive=True)
    assert matches("US", "the US", case_sensitive=True)


def test_one_of_several_is_enough() -> None:
    assert Heard("Good morning!").has_any(["hello", " good morning "])
    assert not Heard("Good morning!").has_any([])


@pytest.mark.timeout(20)  # with backtracking it would take longer than anybody lives
@pytest.mark.parametrize(
    "pattern", ["a*a*a*a*a*a*a*a*a*a*a*a*b", "*a*a*a*a*a*a*a*b", "a * * * * b"]
)
def test_no_pattern_takes_for_ever(pattern: str) -> None:
    assert not matches(pattern, "a" * 20_000)
    assert not matches(pattern, "a " * 10_000)
