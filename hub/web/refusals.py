"""How a refusal is told: as a page to browsers that show one, else in the form of the API."""

from html import escape
from http import HTTPStatus
from math import ceil

from hub.errors import HubError
from hub.web.messages import Answer, Headers, Request

# Without any style: where the host is not ours, neither would its stylesheet be served.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<h1>{title}</h1>
<p>{sentence}</p>
</html>
"""


def refusal(error: HubError, request: Request) -> Answer:
    """Return the answer to a request that is refused."""
    headers: Headers = ((b"cache-control", b"no-store"), (b"vary", b"accept"))
    if error.retry_after is not None or error.status in {429, 503}:
        headers = (*headers, (b"retry-after", b"%d" % max(1, ceil(error.retry_after or 1))))
    if not _wants_page(request):
        return Answer.error(error.status, error.code, str(error), headers)
    kind = (b"content-type", b"text/html; charset=utf-8")
    return Answer(error.status, (*headers, kind), page(error).encode())


def page(error: HubError) -> str:
    """Return the refusal as a page."""
    return _PAGE.format(title=HTTPStatus(error.status).phrase, sentence=escape(str(error)))


def _wants_page(request: Request) -> bool:
    """Whether a browser shows the answer to a person: scripts and programs don't ask for HTML."""
    media = [token.partition(b";")[0] for token in request.tokens(b"accept")]
    return b"text/html" in media and not request.is_websocket
