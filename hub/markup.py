"""Markdown to HTML that is safe to show. People and models are trusted alike: not at all."""

from collections.abc import Iterable
from functools import lru_cache
from html import escape

import msgspec
import nh3
import trio
from markdown_it import MarkdownIt

from hub.records import Message

# Above this many characters a text is shown as it is: the parser's time must stay bounded.
LONGEST = 64_000
# Up to this many are rendered on the spot, in well under a millisecond or two.
ON_THE_SPOT = 2_000

_markdown = MarkdownIt(
    "commonmark", {"html": False, "breaks": True, "linkify": False, "typographer": False}
).enable(["table", "strikethrough"])

_TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
    "li", "ol", "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {
    "a": {"href", "title"},
    "code": {"class"},
    "ol": {"start"},
    "td": {"align"},
    "th": {"align"},
}

_one_at_a_time = trio.CapacityLimiter(1)


@lru_cache(maxsize=512)
def render(text: str) -> str:
    """Return the HTML of a Markdown text: an allow-list of tags, no images, no scripts."""
    if len(text) > LONGEST:
        return f"<pre>{escape(text)}</pre>"
    try:
        dirty = _markdown.render(text)
    except (RecursionError, ValueError, IndexError):  # a parser's bug must not lose the text
        return f"<pre>{escape(text)}</pre>"
    return nh3.clean(
        dirty,
        tags=_TAGS,
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        attribute_filter=_language_only,
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def _language_only(tag: str, name: str, value: str) -> str | None:
    if tag == "code" and name == "class":
        return value if value.startswith("language-") and value[9:].isalnum() else None
    return value


async def dressed(messages: Iterable[Message]) -> list[Message]:
    """Return messages with the HTML of those that a hub which was killed left without it."""
    return [
        msgspec.structs.replace(one, html=await render_apart(one.text))
        if one.status == "interrupted" and one.text and not one.html
        else one
        for one in messages
    ]


async def render_apart(text: str) -> str:
    """The same, in a thread where the text is long enough to hold others up."""
    if len(text) <= ON_THE_SPOT:
        return render(text)
    return await trio.to_thread.run_sync(render, text, limiter=_one_at_a_time)
