"""Logging in by OpenID Connect: authorization code flow with PKCE, any provider.

OpenID Connect Core 1.0 section 3.1, Discovery 1.0, RFC 7636 (PKCE). The signature of the ID
token is joserfc's to check; the flow itself is two requests. What must be remembered between
them is `Pending`: whoever holds it began the log-in, so it goes into a signed cookie, and
binds `state` to that browser.
"""

import base64
import hashlib
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx
import msgspec
import trio
from attrs import frozen
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from hub.errors import Forbidden, Unavailable
from hub.settings import SettingError

_T = TypeVar("_T")

PATIENCE_SECONDS = 15.0
"""For all that one step asks of the provider: somebody sits before an empty page."""

DISCOVERED_SECONDS = 3600.0
"""How long the provider's addresses are believed; they hardly ever change."""

MOST_BYTES = 512 * 1024
"""Of an answer of the provider: keys and addresses are a few kilobytes."""

LEEWAY_SECONDS = 60
"""By so much two clocks may differ."""

# Signed by a key that only the provider has. Not `none`, and not HS256, for which the shared
# secret would do.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
)  # fmt: skip

_FAILED = "Logging in did not work. Try again."
_DOWN = "The service that you log in by does not answer. Try again later."


class Pending(msgspec.Struct, frozen=True):
    """A log-in that was begun: what its end must match."""

    state: str
    nonce: str
    verifier: str


@frozen
class Identity:
    """Who somebody is, as the provider says: `subject` is never anybody else's."""

    issuer: str
    subject: str
    name: str


class _Provider(msgspec.Struct, frozen=True):
    """What we use of the provider's metadata (Discovery section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class Oidc:
    """One provider.

    Args:
        issuer: its URL, as it calls itself.
        client_id, client_secret: what it knows us by; without a secret PKCE alone protects.

    Raises:
        SettingError: the issuer is no https URL.

    """

    def __init__(self, issuer: str, client_id: str, client_secret: str = "") -> None:
        self._issuer = issuer
        self._secure = urlsplit(issuer).scheme == "https"
        self.name = urlsplit(issuer).hostname or ""
        local = self.name in {"localhost", "127.0.0.1", "::1"}
        if not self.name or not (self._secure or local):
            raise SettingError(f"--oidc-issuer must be an https:// address, not “{issuer}”.")
        if not client_id:
            raise SettingError("--oidc-issuer needs --oidc-client-id.")
        self._client_id = client_id
        self._client_secret = client_secret
        # Reading all certificates takes tens of milliseconds, so it is done once, at the start.
        self._trust: ssl.SSLContext = httpx.create_ssl_context()
        self._found: tuple[float, _Provider] | None = None

    async def begin(self, redirect: str) -> tuple[str, Pending]:
        """Return where to send the browser, and what to remember until it is back.

        Raises:
            Unavailable: the provider does not answer.

        """
        pending = Pending(*(secrets.token_urlsafe(32) for _ in range(3)))
        digest = hashlib.sha256(pending.verifier.encode()).digest()
        with _deadline():
            provider = await self._provider()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect,
            "scope": "openid profile",
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        mark = "&" if urlsplit(provider.authorization_endpoint).query else "?"
        return f"{provider.authorization_endpoint}{mark}{urlencode(query)}", pending

    async def finish(self, pending: Pending, state: str, code: str, redirect: str) -> Identity:
        """Return who came back with a code.

        Raises:
            Forbidden: it is not the log-in that was begun, or the provider does not vouch for it.
            Unavailable: the provider does not answer.

        """
        if not secrets.compare_digest(state.encode(errors="replace"), pending.state.encode()):
            raise Forbidden(_FAILED, code="oidc_failed")
        with _deadline():
            provider = await self._provider()
            token = await self._id_token(provider, pending, code, redirect)
            keys = await self._ask(provider.jwks_uri, dict[str, Any])
        return self._checked(token, keys, pending)

    async def _provider(self) -> _Provider:
        now = trio.current_time()
        if self._found is not None and now - self._found[0] < DISCOVERED_SECONDS:
            return self._found[1]
        where = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        provider = await self._ask(where, _Provider)
        addresses = (
            provider.authorization_endpoint, provider.token_endpoint, provider.jwks_uri
        )  # fmt: skip
        schemes = {urlsplit(one).scheme for one in addresses}
        if provider.issuer != self._issuer or (self._secure and schemes != {"https"}):
            raise Unavailable("The log-in service is set up wrongly.", code="oidc_down")
        self._found = now, provider
        return provider

    async def _id_token(
        self, provider: _Provider, pending: Pending, code: str, redirect: str
    ) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": pending.verifier,
        }
        login: httpx.BasicAuth | None = None
        if self._client_secret and _by_header(provider):
            # Both are form-encoded first (RFC 6749 section 2.3.1).
            login = httpx.BasicAuth(quote(self._client_id, ""), quote(self._client_secret, ""))
        else:
            form["client_id"] = self._client_id
            if self._client_secret:
                form["client_secret"] = self._client_secret
        return (await self._ask(provider.token_endpoint, _Tokens, form, login)).id_token

    def _checked(self, token: str, keys: dict[str, Any], pending: Pending) -> Identity:
        """Check an ID token (Core section 3.1.3.7) and return whom it names."""
        rules = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._client_id},
            nonce={"essential": True, "value": pending.nonce},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
        )
        try:
            # The keys that joserfc does not know are no business of ours.
            known = KeySet.import_key_set({"keys": [one for one in keys["keys"] if _usable(one)]})
            claims = jwt.decode(token, known, algorithms=ALGORITHMS).claims
            rules.validate(claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise Forbidden(_FAILED, code="oidc_failed") from error
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        if (several or "azp" in claims) and claims.get("azp") != self._client_id:
            raise Forbidden(_FAILED, code="oidc_failed")
        names = (claims.get(one) for one in ("name", "preferred_username", "email"))
        name = next((one for one in names if isinstance(one, str) and one.strip()), "Somebody")
        return Identity(self._issuer, claims["sub"], name)

    async def _ask(
        self,
        where: str,
        kind: type[_T],
        form: dict[str, str] | None = None,
        login: httpx.BasicAuth | None = None,
    ) -> _T:
        """Ask the provider something, and decode its JSON."""
        method = "GET" if form is None else "POST"
        try:
            async with (
                httpx.AsyncClient(verify=self._trust, timeout=PATIENCE_SECONDS) as http,
                http.stream(
                    method,
                    where,
                    data=form,
                    auth=login or httpx.USE_CLIENT_DEFAULT,
                    headers={"accept": "application/json"},
                ) as response,
            ):
                body = await _read(response)
        except httpx.HTTPError as error:
            raise Unavailable(_DOWN, code="oidc_down") from error
        if response.is_client_error and form is not None:
            raise Forbidden(_FAILED, code="oidc_failed")  # a code that is wrong, or used already
        if not response.is_success:
            raise Unavailable(_DOWN, code="oidc_down")
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise Unavailable(_DOWN, code="oidc_down") from error


async def _read(response: httpx.Response) -> bytes:
    # Read to its end, which the deadline bounds, but not kept: httpx does not take it well if
    # somebody stops in the middle.
    body, size = b"", 0
    async for part in response.aiter_bytes():
        size += len(part)
        body = body + part if size <= MOST_BYTES else b""
    if size > MOST_BYTES:
        raise Unavailable(_DOWN, code="oidc_down")
    return body


def _by_header(provider: _Provider) -> bool:
    return "client_secret_basic" in provider.token_endpoint_auth_methods_supported


def _usable(key: object) -> bool:
    return (
        isinstance(key, dict)
        and key.get("kty") in {"RSA", "EC", "OKP"}
        and key.get("use", "sig") == "sig"
    )


@contextmanager
def _deadline() -> Iterator[None]:
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            yield
    except trio.TooSlowError:
        raise Unavailable(_DOWN, code="oidc_down") from None
