"""`/api/oidc/*`: a browser goes to the provider and comes back. Contract: docs/accounts.md."""

import logging

import itsdangerous
import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hub.errors import Forbidden, HubError, NotFound
from hub.oidc import Oidc, Pending
from hub.web.callers import Callers, address_of
from hub.web.entrance import Entrance
from hub.web.refusals import page

security = logging.getLogger("hub.security")

COOKIE = "hubbub_oidc"

BEGUN_SECONDS = 600
"""How long somebody may take to log in at the provider: a forgotten password included."""

_PATH = "/api/oidc"


class OidcApi:
    """The routes, over one entrance."""

    def __init__(self, entrance: Entrance, callers: Callers) -> None:
        self._entrance = entrance
        self._callers = callers

    async def start(self, request: Request) -> Response:
        """Send the browser to the provider."""
        address, pending = await self._oidc().begin(_back(request))
        response = RedirectResponse(address, 303, {"cache-control": "no-store"})
        response.set_cookie(
            COOKIE,
            self._signer().sign(msgspec.json.encode(pending)).decode("latin-1"),
            max_age=BEGUN_SECONDS,
            path=_PATH,
            httponly=True,
            samesite="lax",  # it comes back by a link from another site
            secure=request.url.scheme == "https",
        )
        return response

    async def callback(self, request: Request) -> Response:
        """Log in who came back, and send them to the page; what is wrong is told on a page too."""
        try:
            return await self._log_in(request)
        except HubError as error:
            security.warning("log-in by OIDC from %s failed: %s", address_of(request), error.code)
            if "text/html" not in request.headers.get("accept", ""):
                raise
            return HTMLResponse(page(error), error.status, {"cache-control": "no-store"})

    async def _log_in(self, request: Request) -> Response:
        oidc = self._oidc()
        query = request.query_params
        pending = self._pending(request)
        if "error" in query:
            raise Forbidden("You were not logged in.", code="oidc_failed")
        identity = await oidc.finish(
            pending, query.get("state", ""), query.get("code", ""), _back(request)
        )
        before = await self._entrance.before(self._callers.ask(request))
        visitor = await self._entrance.vouched(before, identity, address_of(request))
        response = RedirectResponse("/", 303, {"cache-control": "no-store"})
        response.delete_cookie(COOKIE, path=_PATH, httponly=True, samesite="lax")
        self._entrance.sessions.give_cookie(request, response, visitor.session)
        return response

    def _oidc(self) -> Oidc:
        if self._entrance.oidc is None:
            raise NotFound("There is nothing at this address.")
        return self._entrance.oidc

    def _signer(self) -> itsdangerous.TimestampSigner:
        return self._entrance.sessions.signer("oidc")

    def _pending(self, request: Request) -> Pending:
        try:
            signed = request.cookies.get(COOKIE, "").encode("latin-1")
            return msgspec.json.decode(self._signer().unsign(signed, BEGUN_SECONDS), type=Pending)
        except (itsdangerous.BadSignature, msgspec.MsgspecError, UnicodeError) as error:
            # Not begun in this browser: somebody may try to log it in as themselves.
            raise Forbidden("Logging in took too long. Try again.", code="oidc_failed") from error


def _back(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}{_PATH}/callback"
