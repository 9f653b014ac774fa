from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from hub.records import Answer, Character
from hub.turns import MAX_SELF_TALK, Agenda, Turn, TurnError, Waiting, addressed, mentioned, named

THARIN, LYRA, FINN = (
    Character(id=name[0].lower(), name=name) for name in ("Tharin", "Lyra", "Finn")
)
CAST = [THARIN, LYRA, FINN]


def agenda(seed: int = 1) -> Agenda:
    return Agenda(Random(seed))


def ask(text: str, answer: Answer, cast: list[Character] = CAST, **more: object) -> tuple[str, ...]:
    one = agenda()
    one.say(Waiting("1", text, **more))  # type: ignore[arg-type]
    turn = one.next(cast, answer)
    return turn.speakers if turn else ()


def state(one: Agenda) -> str:
    return one.state


def play(one: Agenda, text: str = "") -> list[str]:
    said = []
    while speaker := one.speaker:
        said.append(speaker)
        one.replied(text)
    return said


def test_all_answer_in_the_order_of_the_cast() -> None:
    assert ask("Hi", "all") == ("t", "l", "f")


@pytest.mark.parametrize(
    ("text", "speakers"),
    [
        ("hello", ()),
        ("Lyra?", ()),
        ("@lyra, look", ("l",)),
        ("(@FINN) and @Tharin!", ("f", "t")),
        ("@Lyra @lyra", ("l",)),
        ("mail@lyra", ()),
        ("@Lyral", ()),
        ('@"Lyra" go', ("l",)),
    ],
)
def test_mention_lets_those_answer_who_are_named(text: str, speakers: tuple[str, ...]) -> None:
    assert ask(text, "mention") == speakers


def test_the_longest_name_is_meant() -> None:
    cast = [Character(id="a", name="Ann"), Character(id="am", name="Ann Marie")]
    assert mentioned("@Ann Marie!", cast) == ["am"]
    assert mentioned('@"Ann Marie" and @Ann', cast) == ["am", "a"]
    assert mentioned("@Ann Mari", cast) == ["a"]
    assert named("ann marie, you there?", cast) == ["am"]


def test_the_last_word_of_a_name_is_enough_where_only_one_can_be_meant() -> None:
    cast = [
        Character(id="v", name="Inspector Vane"),
        Character(id="a", name="Lady Ash"),
        Character(id="b", name="Lord Ash"),
    ]
    assert named("Vane, was it Lady Ash?", cast) == ["v", "a"]
    assert mentioned("@vane", cast) == ["v"]
    assert addressed(["Vane"], cast) == ("v",)
    assert named("Ash? Inspector?", cast) == []


def test_names_may_hold_anything() -> None:
    cast = [Character(id="1", name="C-3PO (x*)"), Character(id="2", name="Zoë")]
    assert mentioned("@C-3PO (x*) @zoË", cast) == ["1", "2"]
    assert named("", [Character(id="3", name=" ")]) == []


def test_natural_lets_the_named_answer_with_or_without_an_at() -> None:
    assert ask("what do you think, Finn? And @lyra?", "natural") == ("f", "l")


@pytest.mark.parametrize("seed", range(20))
def test_natural_always_finds_somebody(seed: int) -> None:
    quiet = [Character(id=str(n), name=f"N{n}", talkativeness=0.0) for n in range(3)]
    one = agenda(seed)
    one.say(Waiting("1", "hm"))
    turn = one.next(quiet, "natural")
    assert turn is not None
    assert len(turn.speakers) == 1


def alone_in_a_row(cast: list[Character], rounds: int = 300) -> Counter[str]:
    """How long each one's longest row of answering alone was."""
    one, longest, row, last = agenda(7), Counter[str](), 0, None
    for n in range(rounds):
        one.say(Waiting(str(n), "hm"))
        turn = one.next(cast, "natural")
        assert turn is not None
        alone = turn.speakers[0] if len(turn.speakers) == 1 else None
        row = row + 1 if alone == last else 1
        last = alone
        if alone:
            longest[alone] = max(longest[alone], row)
        play(one)
    return longest


@pytest.mark.parametrize(("loud", "quiet"), [(1.0, 0.01), (0.9, 0.0), (0.0, 0.0), (0.6, 0.5)])
def test_the_same_one_never_answers_alone_for_ever(loud: float, quiet: float) -> None:
    cast = [
        Character(id="a", name="A", talkativeness=loud),
        Character(id="b", name="B", talkativeness=quiet),
    ]
    longest = alone_in_a_row(cast)
    if quiet == 0.0 and loud > 0:
        assert longest["a"] > 2  # the other one speaks when named, as it was told
    else:
        assert max(longest.values()) <= 2


def test_talkativeness_counts() -> None:
    cast = [
        Character(id="a", name="A", talkativeness=0.9),
        Character(id="b", name="B", talkativeness=0.2),
    ]
    one, spoke = agenda(3), Counter[str]()
    for n in range(400):
        one.say(Waiting(str(n), "hm"))
        one.next(cast, "natural")
        spoke.update(play(one))
    assert 330 < spoke["a"] < 400
    assert 60 < spoke["b"] < 200


def test_the_same_seed_gives_the_same_turns() -> None:
    def turns(seed: int) -> list[list[str]]:
        one, found = agenda(seed), []
        for n in range(20):
            one.say(Waiting(str(n), "hm"))
            one.next(CAST, "natural")
            found.append(play(one))
        return found

    assert turns(5) == turns(5)
    assert turns(5) != turns(6)


def test_muted_ones_speak_only_when_made_to() -> None:
    cast = [THARIN, Character(id="m", name="Mute", muted=True)]
    for mode in ("all", "mention", "natural"):
        assert "m" not in ask("@Mute Mute", mode, cast)
    assert ask("hi", "all", cast, to=addressed(["Mute"], cast)) == ("m",)
    one = agenda()
    one.speak("m")
    assert one.next(cast, "all") == Turn(("m",))


def test_a_room_of_muted_ones_is_silent() -> None:
    cast = [Character(id="m", name="Mute", muted=True)]
    one = agenda()
    one.say(Waiting("1", "hi"))
    one.talk(3)
    assert one.next(cast, "natural") is None
    assert state(one) == "idle"


def test_to_overrides_the_mode() -> None:
    assert ask("@Tharin", "all", to=addressed(["finn", '@"Lyra"', "FINN"], CAST)) == ("f", "l")


def test_a_name_that_is_not_here_tells_who_is() -> None:
    with pytest.raises(
        TurnError, match=r"There is no “Gandalf” here\. Here are: Tharin, Lyra, Finn\."
    ):
        addressed(["Lyra", "Gandalf"], CAST)
    with pytest.raises(TurnError, match="no characters"):
        addressed(["Lyra"], [])


def test_what_is_said_during_a_turn_is_answered_together_by_the_next() -> None:
    one = agenda()
    assert state(one) == "idle"
    one.say(Waiting("1", "go"))
    assert state(one) == "queued"
    first = one.next(CAST, "all")
    assert first is not None
    assert [prompt.id for prompt in first.prompts] == ["1"]
    assert state(one) == "running"
    assert one.speaker == "t"
    one.say(Waiting("2", "wait"))
    one.say(Waiting("3", "stop there", to=("l",)))
    assert one.next(CAST, "all") is None
    one.replied("I go")
    assert one.speaker == "l"
    assert play(one) == ["l", "f"]
    assert state(one) == "queued"
    second = one.next(CAST, "all")
    assert second is not None
    assert [prompt.id for prompt in second.prompts] == ["2", "3"]
    assert second.speakers == ("l", "t", "f")
    play(one)
    assert one.next(CAST, "all") is None
    assert state(one) == "idle"


def test_a_batch_is_answered_by_all_that_its_prompts_name() -> None:
    one = agenda()
    one.say(Waiting("1", "@Finn?"))
    one.say(Waiting("2", "never mind"))
    one.say(Waiting("3", "@Tharin!"))
    turn = one.next(CAST, "mention")
    assert turn is not None
    assert turn.speakers == ("f", "t")


def test_a_whisper_is_never_answered_with_what_all_see() -> None:
    one = agenda()
    one.say(Waiting("1", "go"))
    one.say(Waiting("2", "psst", whisper="ada"))
    one.say(Waiting("3", "on"))
    one.say(Waiting("4", "psst", whisper="bob"))
    one.say(Waiting("5", "and", whisper="ada"))
    seen = []
    while turn := one.next(CAST, "all"):
        seen.append((turn.whisper, [prompt.id for prompt in turn.prompts]))
        play(one)
    assert seen == [(None, ["1", "3"]), ("ada", ["2", "5"]), ("bob", ["4"])]


def test_prompts_of_game_clients_have_turns_of_their_own() -> None:
    one = agenda()
    for n, apart in enumerate([False, False, True, True, False]):
        one.say(Waiting(str(n), "go", apart=apart))
    seen = []
    while turn := one.next(CAST, "all"):
        seen.append([prompt.id for prompt in turn.prompts])
        play(one)
    assert seen == [["0", "1"], ["2"], ["3"], ["4"]]


def test_stop_clears_the_rest_and_keeps_what_people_wrote() -> None:
    one = agenda()
    one.say(Waiting("1", "go"))
    one.talk(5)
    one.next(CAST, "all")
    one.say(Waiting("2", "and?"))
    one.stop()
    assert one.speaker is None
    one.replied("late")  # the reply that was under way ends after the stop
    turn = one.next(CAST, "all")
    assert turn is not None
    assert [prompt.id for prompt in turn.prompts] == ["2"]
    assert play(one) == ["t", "l", "f"]
    assert state(one) == "idle"


def test_characters_talk_among_themselves_for_n_turns() -> None:
    one = agenda()
    one.talk(6)
    said: list[str] = []
    while turn := one.next(CAST, "mention"):
        assert turn.prompts == ()
        said += play(one, "hm")
    assert len(said) == 6
    assert all(a != b for a, b in pairwise(said))
    assert state(one) == "idle"


def test_in_self_talk_the_one_who_is_named_goes_on() -> None:
    one = agenda()
    one.talk(3)
    first = one.next([THARIN], "all")
    assert first == Turn(("t",))
    one.replied("Finn, what do you say? Lyra?")
    assert one.next(CAST, "all") == Turn(("f",))
    one.replied("I, Finn, say that Lyra should go.")
    assert one.next(CAST, "all") == Turn(("l",))


def test_people_come_before_self_talk() -> None:
    one = agenda()
    one.talk(2)
    one.speak("f")
    one.say(Waiting("1", "@Lyra?"))
    spoken = []
    while one.next(CAST, "mention"):
        spoken.append(play(one))
    assert spoken[:2] == [["l"], ["f"]]
    assert len(spoken) == 4


def test_nobody_talks_to_themselves() -> None:
    one = agenda()
    one.say(Waiting("1", "hi"))
    one.talk(5)
    one.next([LYRA], "all")
    play(one)
    assert one.next([LYRA], "all") is None
    assert state(one) == "idle"


def test_stop_ends_self_talk_that_waits() -> None:
    one = agenda()
    one.talk(5)
    assert state(one) == "queued"
    one.stop()
    assert state(one) == "idle"
    assert one.next(CAST, "all") is None


@pytest.mark.parametrize("turns", [-1, MAX_SELF_TALK + 1])
def test_self_talk_has_its_limits(turns: int) -> None:
    with pytest.raises(TurnError, match="1 to 20 turns"):
        agenda().talk(turns)


def test_who_left_the_cast_does_not_speak() -> None:
    one = agenda()
    one.say(Waiting("1", "hi", to=("l",)))
    one.speak("f")
    assert one.next([THARIN], "all") is None
    assert state(one) == "idle"
