"""Markdown to HTML: a strict list of what may be there, whatever comes in."""

import re
from html.parser import HTMLParser

import pytest
from attrs import define, field

from hub import markup
from hub.markup import LONGEST, render, render_apart
from tests.e2e.hostile import TEXTS

TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ATTRIBUTES = {
    "a": {"href", "title", "rel", "target"},
    "code": {"class"},
    "ol": {"start"},
    "td": {"align"},
    "th": {"align"},
}
REL = "noopener noreferrer nofollow"


@define
class Seen(HTMLParser):
    """All tags of a text with their attributes."""

    tags: list[tuple[str, dict[str, str | None]]] = field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("!--", {}))

    def handle_decl(self, decl: str) -> None:
        self.tags.append(("!", {}))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    seen = Seen()
    seen.feed(html)
    seen.close()
    return seen.tags


def check(html: str) -> None:
    """Fail if anything is there that may not be."""
    for tag, attributes in tags(html):
        assert tag in TAGS, html
        assert set(attributes) <= ATTRIBUTES.get(tag, set()), html
        if tag == "a":
            assert attributes["rel"] == REL, html
            assert attributes["target"] == "_blank", html
            check_address(attributes.get("href"))
        if tag == "code" and "class" in attributes:
            assert re.fullmatch(r"language-\w+", str(attributes["class"])), html


def check_address(href: str | None) -> None:
    bare = re.sub(r"[\x00-\x20]", "", href or "")
    scheme = re.match(r"([a-z][a-z0-9+.-]*):", bare, re.IGNORECASE)
    assert scheme is None or scheme[1].lower() in {"http", "https", "mailto"}, href


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_texts_come_out_harmless(text: str) -> None:
    check(render(text))
    check(render(f"- > {text}\n\n| {text} |\n|-|\n| {text} |"))


def test_a_link_leads_away_without_a_trace() -> None:
    ((_, paragraph), (tag, attributes)) = tags(render('[x](https://a.example/?b&c "t")'))
    assert (tag, paragraph) == ("a", {})
    assert attributes == {
        "href": "https://a.example/?b&c", "title": "t", "rel": REL, "target": "_blank",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["![x](https://a.example/x.png)", "![x](/x.png)", "![x][r]\n\n[r]: //a.example/x.png"]
)
def test_no_picture_is_fetched(text: str) -> None:
    assert [tag for tag, _ in tags(render(text))] == ["p"]


def test_what_markdown_is_for_is_kept() -> None:
    text = "# a\n\n1. *b*\n2. ~~c~~\n\n```py\nd < e\n```\n\n| f |\n|:-:|\n| g |\n\n> h\n\n- **i**\n"
    html = render(text)
    check(html)
    assert {"h1", "ol", "li", "em", "s", "pre", "table", "th", "td", "blockquote", "ul"} <= {
        tag for tag, _ in tags(html)
    }
    assert '<code class="language-py">d &lt; e' in html


def test_a_text_too_long_is_shown_as_it_is() -> None:
    html = render("<b>**x**" * LONGEST)
    assert html.startswith("<pre>&lt;b&gt;**x**")
    check(html[:100])


def test_a_parser_that_fails_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> str:
        raise RecursionError

    monkeypatch.setattr(markup._markdown, "render", fail)
    assert render("<i>not cached</i>") == "<pre>&lt;i&gt;not cached&lt;/i&gt;</pre>"


async def test_long_texts_are_made_elsewhere() -> None:
    text = "*a* <b>\n" * 1_000
    assert await render_apart(text) == render(text)


# Each of these takes more than linear time in some Markdown parser.
SLOW = ["[" * 8_000, "*a_" * 8_000, "> " * 8_000, "`" * 1_000 + "a", "[a](" * 8_000, "<" * 8_000,
        "- " * 8_000, "|a" * 4_000 + "\n" + "|-" * 4_000 + "\n" + "|" * 4_000, "![" * 8_000,
        "\n".join(f"[{n}]: x" for n in range(4_000)), "**a" * 8_000, "&" * 8_000]  # fmt: skip


@pytest.mark.parametrize("number", range(len(SLOW)))
@pytest.mark.timeout(20)
def test_no_text_keeps_the_parser_busy(number: int) -> None:
    check(render(SLOW[number]))
