"""Bodies of the API: JSON in, JSON out."""

from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hub.errors import BadRequest
from hub.wire.tuples import explain

_T = TypeVar("_T")
_encode = msgspec.json.Encoder().encode


def json_response(value: object, status: int = 200) -> Response:
    """Return a value as JSON that no cache keeps."""
    return Response(
        _encode(value), status, {"cache-control": "no-store"}, media_type="application/json"
    )


async def read_body(request: Request, kind: type[_T]) -> _T:
    """Decode a JSON body.

    Raises:
        BadRequest: it is not JSON, or not of this kind.

    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        # A form of a foreign page can't send this type, so this stops those as well.
        raise BadRequest("Send JSON, with Content-Type: application/json.", code="content_type")
    try:
        data = await request.body()
        return msgspec.json.decode(data, type=kind)
    except ClientDisconnect:
        raise BadRequest("The request ended too early.") from None
    except msgspec.ValidationError as error:
        raise BadRequest(explain(error), code="bad_payload") from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest("The body is not valid JSON.", code="bad_json") from error
