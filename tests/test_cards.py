import base64
import json
import struct
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import png
from hub.cards import MAX_FILE, MAX_JSON, CardError, Spec, export_json, export_png, import_card
from hub.persona import greetings, persona
from hub.png import Chunk, read_chunks, text_chunk, write_chunks
from hub.records import Character, Trigger
from llm.persona import Lore

V2: dict[str, Any] = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        "name": "Mira",
        "description": "{{char}} keeps a lighthouse.",
        "personality": "Dry.",
        "scenario": "A storm.",
        "first_mes": "Come in, {{user}}.",
        "mes_example": "<START>\n{{char}}: Mm.",
        "creator_notes": "Best at night.",
        "system_prompt": "Be brief. {{original}}",
        "post_history_instructions": "Mind the sea.",
        "alternate_greetings": ["Who's there?", "{{user}}! {{CHAR}} knew it."],
        "tags": ["sea"],
        "creator": "somebody",
        "character_version": "7",
        "extensions": {"talkativeness": "0.8", "other/tool": {"deep": [1, None, "é"]}},
        "character_book": {
            "name": "Book",
            "scan_depth": 3,
            "token_budget": 100,
            "extensions": {"x": 1},
            "entries": [
                {
                    "keys": ["lamp", "light*"],
                    "content": "The lamp is cracked.",
                    "extensions": {},
                    "enabled": True,
                    "insertion_order": 5,
                    "priority": 9,
                    "selective": True,
                    "secondary_keys": ["oil"],
                },
                {"keys": ["x"], "content": "off", "enabled": False, "insertion_order": 1},
                {"keys": [], "content": "It storms.", "constant": True, "insertion_order": 2},
                {"keys": ["a+"], "content": "regex", "use_regex": True},
                {"keys": "wrong", "content": 7},
                "no entry",
            ],
        },
        "of_the_future": {"kept": True},
    },
    "outside": "kept too",
}
V3: dict[str, Any] = {
    "spec": "chara_card_v3",
    "spec_version": "3.0",
    "data": {
        **V2["data"],
        "nickname": "Mi",
        "group_only_greetings": ["Oh, several of you."],
        "assets": [{"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"}],
        "character_book": {
            "entries": [
                {
                    "keys": ["n"],
                    "content": "@@depth 4\n@@@role user\nNever mind.",
                    "use_regex": False,
                },
                {"keys": [], "content": "@@activate\nAlways."},
                {"keys": ["n"], "content": "@@dont_activate\nNever."},
            ],
            "extensions": {},
        },
    },
}


def as_bytes(card: object) -> bytes:
    return json.dumps(card).encode()


def picture(*extra: Chunk) -> bytes:
    """A picture made by hand, so that reader and writer don't just agree with each other."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 0)),
        chunk(b"tEXt", b"Comment\0made by hand"),
        *(chunk(one.type, one.data) for one in extra),
        chunk(b"IDAT", zlib.compress(b"\0\x10\x20")),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def embedded(keyword: str, card: object) -> Chunk:
    return Chunk(b"tEXt", keyword.encode() + b"\0" + base64.b64encode(as_bytes(card)))


def test_a_v2_card_becomes_a_character() -> None:
    found = import_card(as_bytes(V2))
    who = found.character
    assert (who.id, who.name, who.personality) == ("mira", "Mira", "Dry.")
    assert who.backstory == "{{char}} keeps a lighthouse."
    assert who.greeting == "Come in, {{user}}."
    assert who.talkativeness == 0.8
    assert who.card == V2
    assert found.scenario == "A storm."
    assert found.notes == "Best at night."
    assert found.image is None
    assert found.warnings == (
        "Entries of its lorebook with regular expressions are not used here.",
    )


def test_its_card_adds_to_how_a_character_is_played() -> None:
    how = persona(import_card(as_bytes(V2)).character)
    assert how.system == "Be brief. {{original}}"
    assert how.closing == "Mind the sea."
    assert how.examples == "<START>\n{{char}}: Mm."
    assert how.lore.scan == 3
    assert how.lore.budget == 100
    assert how.lore.entries == (
        Lore(("lamp", "light*"), "The lamp is cracked.", also=("oil",), order=5, priority=9),
        Lore((), "It storms.", always=True, order=2, priority=2),
    )
    assert not how.plain


def test_greetings_are_swipes_with_names_put_in() -> None:
    who = import_card(as_bytes(V2)).character
    assert greetings(who, user="Ada") == ("Come in, Ada.", "Who's there?", "Ada! Mira knew it.")
    group = import_card(as_bytes(V3)).character
    assert greetings(group, user="Ada", group=True)[-2:] == (
        "Ada! Mi knew it.",
        "Oh, several of you.",
    )


def test_a_v3_nickname_stands_for_char() -> None:
    how = persona(import_card(as_bytes(V3)).character)
    assert how.name == "Mira"
    assert how.backstory == "Mi keeps a lighthouse."
    assert [entry.content for entry in how.lore.entries] == ["Never mind.", "Always."]
    assert how.lore.entries[1].always


def test_a_v1_card_is_read_and_becomes_v2() -> None:
    card = {"name": "Old", "description": "D", "personality": "", "first_mes": "Hi", "avatar": "x"}
    who = import_card(as_bytes(card)).character
    assert (who.name, who.backstory, who.greeting) == ("Old", "D", "Hi")
    again = json.loads(export_json(who, "v2"))
    assert again["spec"] == "chara_card_v2"
    assert set(again) == {"spec", "spec_version", "data"}
    assert again["data"]["avatar"] == "x"
    assert again["data"]["system_prompt"] == ""


@pytest.mark.parametrize(("card", "spec"), [(V2, "v2"), (V3, "v3")])
def test_a_card_comes_back_as_it_came(card: dict[str, Any], spec: Spec) -> None:
    who = import_card(as_bytes(card)).character
    assert json.loads(export_json(who, spec)) == card
    assert import_card(export_png(who, spec, picture())).character.card == card


def test_unknown_fields_survive_a_change_of_version() -> None:
    who = import_card(as_bytes(V3)).character
    second = json.loads(export_json(who, "v2"))
    assert second["data"]["extensions"]["other/tool"] == {"deep": [1, None, "é"]}
    assert second["data"]["of_the_future"] == {"kept": True}
    assert second["data"]["character_book"]["entries"][0]["content"] == "Never mind."
    third = json.loads(export_json(import_card(as_bytes(second)).character, "v3"))
    assert third["spec"] == "chara_card_v3"
    assert third["data"]["nickname"] == "Mi"


def test_what_only_we_know_comes_back() -> None:
    who = Character(
        id="zed",
        name="Zed",
        klass="Bard",
        emoji="🎻",
        personality="P",
        backstory="B",
        instructions="Sing.",
        triggers=[Trigger("wine", "Hiccup.")],
        greeting="Hey",
        talkativeness=0.25,
        model="m",
    )
    specs: tuple[Spec, ...] = ("v2", "v3")
    for spec in specs:
        again = import_card(export_json(who, spec)).character
        assert again.card is not None
        assert {**vars_of(again), "card": None} == vars_of(who)


def vars_of(who: Character) -> dict[str, object]:
    return {name: getattr(who, name) for name in who.__struct_fields__}


def test_a_change_of_the_character_wins_over_its_card() -> None:
    who = import_card(as_bytes(V2)).character
    renamed = Character(id="m", name="Nora", personality="Loud.", talkativeness=0.1, card=who.card)
    data = json.loads(export_json(renamed, "v2"))["data"]
    assert (data["name"], data["personality"], data["description"]) == ("Nora", "Loud.", "")
    assert data["extensions"]["talkativeness"] == "0.1"
    assert who.card == V2  # the card that is kept is not written to


def test_a_png_byte_by_byte() -> None:
    who = Character(id="a", name="A")
    data = export_png(who, "v2", picture())
    card = base64.b64encode(export_compact(who))
    chunk = b"tEXt" + b"chara\0" + card
    expected = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    plain = picture()
    assert data == plain[:-12] + expected + plain[-12:]


def export_compact(who: Character) -> bytes:
    return json.dumps(
        json.loads(export_json(who, "v2")), separators=(",", ":"), ensure_ascii=False
    ).encode()


def test_a_v3_png_has_both_cards_and_says_so_in_the_older_one() -> None:
    data = export_png(import_card(as_bytes(V3)).character, "v3")
    texts = [chunk for chunk in read_chunks(data) if chunk.type == b"tEXt"]
    cards = {
        keyword: json.loads(base64.b64decode(value))
        for keyword, _, value in (chunk.data.partition(b"\0") for chunk in texts)
    }
    assert list(cards) == [b"ccv3", b"chara"]
    assert cards[b"ccv3"]["data"]["creator_notes"] == "Best at night."
    assert "version 3" in cards[b"chara"]["data"]["creator_notes"]
    assert cards[b"chara"]["spec"] == "chara_card_v2"


def test_our_own_picture_is_one() -> None:
    header, pixels, _card, end = read_chunks(export_png(Character(id="a", name="A"), "v2"))
    assert struct.unpack(">IIBB", header.data[:10]) == (256, 256, 8, 2)
    assert len(zlib.decompress(pixels.data)) == 256 * (1 + 256 * 3)
    assert end == Chunk(b"IEND", b"")


def test_ccv3_is_preferred_wherever_it_stands() -> None:
    data = picture(embedded("chara", V2), embedded("ccv3", V3))
    found = import_card(data)
    assert found.character.card == V3
    assert found.image == picture()  # pixels and other texts kept, both cards gone
    other = picture(embedded("Chara", V2))
    assert import_card(other).character.card == V2


def test_packed_and_international_texts_are_read() -> None:
    raw = base64.b64encode(as_bytes(V2))
    packed = Chunk(b"zTXt", b"chara\0\0" + zlib.compress(raw))
    plain = Chunk(b"iTXt", b"chara\0\0\0en\0\0" + raw)
    both = Chunk(b"iTXt", b"ccv3\0\1\0\0\0" + zlib.compress(raw))
    for chunk in (packed, plain, both):
        assert import_card(picture(chunk)).character.name == "Mira"


def broken(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(b"A" * 1_000_000) for _ in range(size)) + packer.flush()


NAMED = {"name": "N", "description": ""}
BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello", "no character card: a card is a PNG"),
    "array": (b"[1]", "no character card"),
    "zip": (b"PK\x03\x04", "CHARX"),
    "jpeg": (b"\xff\xd8\xff", "no PNG"),
    "json cut": (as_bytes(V2)[:-3], "not valid JSON"),
    "not utf-8": (b'{"name": "\xff"}', "not valid JSON"),
    "half a surrogate": (b'{"name": "\\ud800", "description": ""}', "not valid JSON"),
    "no card": (b'{"a": 1}', "but no character card"),
    "empty object": (b"{}", "but no character card"),
    "no name": (as_bytes({"name": " ", "description": "x"}), "no name"),
    "name is a number": (as_bytes({"name": 7, "description": "x"}), "“name” should be text, not a"),
    "text is a list": (
        as_bytes({**NAMED, "first_mes": []}),
        "“first_mes” should be text, not a li",
    ),
    "greetings": (as_bytes({**NAMED, "alternate_greetings": {}}), "a list of texts, not an object"),
    "a greeting": (as_bytes({**NAMED, "alternate_greetings": [True]}), "not a yes or no"),
    "extensions": (as_bytes({**NAMED, "extensions": "x"}), "“extensions” should be an object"),
    "book": (as_bytes({**NAMED, "character_book": [1]}), "“character_book” should be an object"),
    "entries": (
        as_bytes({**NAMED, "character_book": {"entries": 3}}),
        "“entries” should be a list",
    ),
    "long text": (as_bytes({**NAMED, "personality": "x" * 60_000}), "longer than 50000 characters"),
    "other spec": (as_bytes({"spec": "x", "data": NAMED}), "kind that is not known"),
    "data is text": (as_bytes({"spec": "chara_card_v2", "data": "x"}), "but no character card"),
    "nested": (b'{"name":' + b"[" * 100 + b"]" * 100 + b"}", "nested too deeply"),
    "nested more": (b'{"name":' + b"[" * 100_000, "nested too deeply"),
    "many": (as_bytes({**NAMED, "extensions": {"x": [0] * 60_000}}), "too many parts"),
    "big json": (b"{" + b" " * MAX_JSON + b"}", "bigger than 1024 KiB"),
    "big file": (b"{" * (MAX_FILE + 1), "bigger than 4 MiB"),
    "picture only": (picture(), "no character card in this picture"),
    "cut": (picture(embedded("chara", V2))[:-20], "cut short"),
    "no end": (picture()[:-12], "cut short"),
    "signature only": (picture()[:8], "cut short"),
    "checksum": (broken(picture(embedded("chara", V2)), 90), "checksum"),
    "lying length": (
        picture()[:8] + b"\x7f\xff\xff\xff" + picture()[12:],
        "length in it isn't true",
    ),
    "longest length": (picture()[:8] + b"\xff\xff\xff\xff" + picture()[12:], "isn't true"),
    "bad signature": (b"\x89PNG\n\n\n\n" + picture()[8:], "not a PNG"),
    "no header": (picture()[:8] + picture()[-12:], "does not begin as one"),
    "not base64": (picture(Chunk(b"tEXt", b"chara\0{}!")), "not in base64"),
    "not json inside": (picture(Chunk(b"tEXt", b"chara\0aGk=")), "not valid JSON"),
    "bomb": (picture(Chunk(b"zTXt", b"chara\0\0" + bomb(300))), "longer than"),
    "bomb in iTXt": (picture(Chunk(b"iTXt", b"ccv3\0\1\0\0\0" + bomb(300))), "longer than"),
    "packed badly": (picture(Chunk(b"zTXt", b"chara\0\0nonsense")), "packed text"),
    "packed and cut": (
        picture(Chunk(b"zTXt", b"chara\0\0" + zlib.compress(bytes(range(256)) * 9)[:-9])),
        "packed text in this PNG picture is cut short",
    ),
}


@pytest.mark.parametrize(("data", "sentence"), BAD.values(), ids=BAD)
def test_what_is_no_card_gets_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(CardError) as caught:
        import_card(data)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


@given(st.data())
def test_no_damage_gets_anything_but_a_card_or_a_sentence(data: st.DataObject) -> None:
    card = data.draw(st.sampled_from([as_bytes(V3), picture(embedded("ccv3", V3))]))
    damaged = bytearray(card)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    with suppress(CardError):
        who = import_card(bytes(damaged)).character
        persona(who)
        greetings(who, user="Ada", group=True)
        assert import_card(export_png(who, "v3")).character.name == who.name


WORDS = st.text("ab{} \n\0é", max_size=5)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | WORDS
JSONS = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = [*V3["data"], "hubbub", "entries"]


@given(
    st.dictionaries(st.sampled_from(FIELDS), JSONS),
    st.sampled_from(["chara_card_v2", "chara_card_v3"]),
)
def test_no_wrong_type_gets_anything_but_a_card_or_a_sentence(
    fields: dict[str, Any], spec: str
) -> None:
    card = {"spec": spec, "data": {**V3["data"], **fields}}
    try:
        who = import_card(as_bytes(card)).character
    except CardError:
        return
    persona(who)
    greetings(who, user="Ada", group=True)
    assert import_card(export_json(who, "v2")).character.name == who.name


def test_a_bomb_is_not_unpacked() -> None:
    import tracemalloc

    data = picture(Chunk(b"zTXt", b"chara\0\0" + bomb(300)))
    tracemalloc.start()
    with pytest.raises(CardError):
        import_card(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


def test_missing_and_null_fields_are_empty() -> None:
    card = {"spec": "chara_card_v3", "data": {"name": "N", "description": None, "tags": None}}
    who = import_card(as_bytes(card)).character
    assert (who.backstory, who.greeting) == ("", "")
    data = json.loads(export_json(who, "v3"))["data"]
    assert data["tags"] == data["group_only_greetings"] == []
    assert data["description"] == ""


def test_a_newer_version_is_read_with_a_warning() -> None:
    found = import_card(as_bytes({**V3, "spec_version": "3.5"}))
    assert "newer version" in found.warnings[0]
    assert import_card(as_bytes({**V3, "spec_version": "odd"})).warnings == ()


def test_a_byte_order_mark_is_no_fault() -> None:
    assert import_card(b"\xef\xbb\xbf" + as_bytes(V2)).character.name == "Mira"


def test_what_is_wrong_in_our_own_extension_is_left_out() -> None:
    own = {"triggers": [{"when": 1}], "emoji": "x" * 99}
    card = {**NAMED, "extensions": {"hubbub": own, "talkativeness": "loud"}}
    who = import_card(as_bytes(card)).character
    assert who.triggers == []
    assert who.talkativeness == 0.5
    assert len(who.emoji or "") == 16


def test_export_into_what_is_no_png() -> None:
    with pytest.raises(CardError, match="not a PNG"):
        export_png(Character(id="a", name="A"), "v2", b"GIF89a")


def test_chunks_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "MAX_CHUNKS", 50)
    head, *rest = read_chunks(picture())
    many = write_chunks([head, *[text_chunk("a", b"b")] * 50, *rest])
    with pytest.raises(CardError, match="too many parts"):
        import_card(many)
