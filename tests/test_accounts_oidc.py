"""OpenID Connect, with a provider on loopback that speaks the protocol, and one that lies."""

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import msgspec
import pytest
import trio
from attrs import define, field
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hub import oidc as module
from hub.errors import Unavailable
from hub.oidc import Oidc
from hub.settings import SettingError
from hub.web.http import Site, serve_connection
from hub.web.messages import Peer
from tests.browsers import Browser, browser, cheap_passwords  # noqa: F401
from tests.hubs import Running, running_hub

CLIENT, SECRET = "hub & co", "s:cret/é"
KEY = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"})

Claims = dict[str, Any]


def encoded(part: Claims) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(part)).decode().rstrip("=")


@define
class Provider:
    """An OpenID provider. Its faults are what tests change: `claims`, `sign`, `down`, `answers`."""

    url: str = ""
    person: Claims = field(factory=lambda: {"sub": "42", "name": "Ada Lovelace"})
    claims: Claims = field(factory=dict)
    key: Any = KEY
    header: Claims = field(factory=lambda: {"alg": "RS256", "kid": "k1"})
    methods: list[str] | None = None
    metadata: Claims = field(factory=dict)
    token: Callable[[], Response] | None = None
    codes: dict[str, dict[str, str]] = field(factory=dict)
    logins: list[str] = field(factory=list)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.discovery),
                Route("/jwks", self.jwks),
                Route("/token", self.tokens, methods=["POST"]),
            ]
        )

    async def discovery(self, _request: Request) -> Response:
        known: Claims = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=1",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "more": ["than", {"we": "need"}],
        }
        if self.methods is not None:
            known["token_endpoint_auth_methods_supported"] = self.methods
        return JSONResponse(known | self.metadata)

    async def jwks(self, _request: Request) -> Response:
        strange = {"kty": "oct", "k": "c2VjcmV0", "kid": "k0"}
        return JSONResponse({"keys": [strange, KEY.as_dict(private=False)]})

    def authorize(self, address: str) -> str:
        """Log the person in, as a browser at `address` would; returns where it is sent back."""
        query = dict(parse_qsl(urlsplit(address).query))
        assert query["tenant"] == "1"
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert "openid" in query["scope"].split()
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return f"{query['redirect_uri']}?code={code}&state={query['state']}"

    async def tokens(self, request: Request) -> Response:
        if self.token is not None:
            return self.token()
        form = {
            name: values[0] for name, values in parse_qs((await request.body()).decode()).items()
        }
        asked = self.codes.pop(form.get("code", ""), None)
        self.logins.append(request.headers.get("authorization", "in the form"))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        right = (
            asked is not None
            and form["grant_type"] == "authorization_code"
            and form["redirect_uri"] == asked["redirect_uri"]
            and challenge == asked["code_challenge"]
            and self._knows(request, form)
        )
        if not right or asked is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "exp": now + 300,
            "iat": now,
            "nonce": asked["nonce"],
            **self.person,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.header["alg"] == "none":
            token = f"{encoded(self.header)}.{encoded(claims)}."
        else:
            token = jwt.encode(self.header, claims, self.key, algorithms=["RS256", "HS256"])
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": token})

    def _knows(self, request: Request, form: dict[str, str]) -> bool:
        if self.methods == ["client_secret_post"]:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT, SECRET)
        # Form-encoded, then Base64 (RFC 6749 section 2.3.1).
        login = base64.b64encode(b"hub%20%26%20co:s%3Acret%2F%C3%A9").decode()
        return request.headers.get("authorization") == f"Basic {login}"


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    one = Provider()
    site = Site(app=one.app())

    async def handle(stream: trio.SocketStream) -> None:
        await serve_connection(stream, site, Peer())

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        one.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield one
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def hub_with(one: Provider, **settings: Any) -> AsyncIterator[Running]:
    given: dict[str, Any] = {
        "oidc_issuer": one.url,
        "oidc_client_id": CLIENT,
        "oidc_client_secret": SECRET,
        "oidc_registration": "on",
        "auth": "accounts",
    }
    async with running_hub(**(given | settings)) as running:
        yield running


async def begin(who: Browser) -> str:
    answer = await who.get("/api/oidc/start")
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    address: str = answer.headers["location"]
    return address


async def log_in(who: Browser, one: Provider) -> httpx.Response:
    back = one.authorize(await begin(who))
    assert back.startswith(f"http://127.0.0.1:{who.running.port}/api/oidc/callback?")
    return await who.get(back)


@pytest.mark.parametrize("methods", [None, ["client_secret_post"]])
async def test_who_comes_back_is_in_and_known_again(methods: list[str] | None) -> None:
    async with provider() as one, hub_with(one) as running, browser(running) as ada:
        one.methods = methods
        shut = await ada.get("/api/session")
        assert shut.json()["access"]["oidc"] == "127.0.0.1"
        answer = await log_in(ada, one)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        me = (await ada.look())["user"]
        assert (me["name"], me["guest"], me["role"]) == ("Ada Lovelace", False, "user")
        async with ada.socket() as socket:
            assert socket.user["id"] == me["id"]
        async with browser(running) as phone:
            one.person["name"] = "Ada King"
            assert (await log_in(phone, one)).status_code == 303
            assert (await phone.look())["user"]["id"] == me["id"]
        assert all(SECRET not in login for login in one.logins)


async def test_a_guest_who_logs_in_for_the_first_time_stays_who_they_were() -> None:
    async with provider() as one, hub_with(one, auth="guests") as running:
        async with browser(running) as ada:
            guest = (await ada.look())["user"]
            cookie = ada.cookie
            assert (await log_in(ada, one)).status_code == 303
            assert ada.cookie != cookie
            me = (await ada.look())["user"]
            assert me["id"] == guest["id"]
            assert me["guest"] is False


async def test_nobody_gets_an_account_unless_the_owner_wants_it() -> None:
    async with provider() as one, hub_with(one, oidc_registration="") as running:
        async with browser(running) as ada:
            answer = await log_in(ada, one)
            assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")
            assert (await ada.get("/api/session")).status_code == 401


def change(one: Provider, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(one, name, value)


FAULTS: dict[str, Callable[[Provider], object]] = {
    "wrong nonce": lambda one: one.claims.update(nonce="another"),
    "no nonce": lambda one: one.claims.update(nonce=None),
    "expired": lambda one: one.claims.update(exp=int(time.time()) - 120),
    "no expiry": lambda one: one.claims.update(exp=None),
    "from the future": lambda one: one.claims.update(iat=int(time.time()) + 600),
    "another issuer": lambda one: one.claims.update(iss="https://evil.example"),
    "for another client": lambda one: one.claims.update(aud="somebody else"),
    "for several": lambda one: one.claims.update(aud=[CLIENT, "somebody else"]),
    "by another party": lambda one: one.claims.update(azp="somebody else"),
    "of nobody": lambda one: one.claims.update(sub=None),
    "of a number": lambda one: one.claims.update(sub=42),
    "signed by another": lambda one: setattr(one, "key", OTHER),
    "not signed": lambda one: setattr(one, "header", {"alg": "none"}),
    "signed by the public key": lambda one: change(
        one,
        header={"alg": "HS256", "kid": "k1"},
        key=OctKey.import_key(KEY.as_pem(private=False).hex()),
    ),
    "a key that is unknown": lambda one: setattr(one, "header", {"alg": "RS256", "kid": "k9"}),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_token_that_is_not_right_lets_nobody_in(fault: str) -> None:
    async with provider() as one, hub_with(one) as running, browser(running) as ada:
        FAULTS[fault](one)
        answer = await log_in(ada, one)
        assert (answer.status_code, answer.json()["code"]) == (403, "oidc_failed")
        assert answer.json()["error"] == "Logging in did not work. Try again."
        assert "hubbub_session" not in ada.http.cookies
        assert (await ada.get("/api/session")).status_code == 401


async def test_only_the_browser_that_began_can_end_it() -> None:
    # Else somebody could have another's browser logged in as themselves.
    async with provider() as one, hub_with(one) as running:
        async with browser(running) as mallory, browser(running) as ada:
            back = one.authorize(await begin(mallory))
            for path in (back, back.replace("state=", "state=x"), "/api/oidc/callback"):
                answer = await ada.get(path)
                assert (answer.status_code, answer.json()["code"]) == (403, "oidc_failed")
            await begin(ada)
            answer = await ada.get(back)
            assert (answer.status_code, answer.json()["code"]) == (403, "oidc_failed")
            assert "hubbub_session" not in ada.http.cookies
            assert one.codes  # the code was not even shown to the provider
            made_up = await ada.get(back.replace("code=", "code=x"))
            assert made_up.status_code == 403


async def test_a_code_works_once() -> None:
    async with provider() as one, hub_with(one) as running, browser(running) as ada:
        back = one.authorize(await begin(ada))
        kept = ada.http.cookies["hubbub_oidc"]
        assert (await ada.get(back)).status_code == 303
        assert "hubbub_oidc" not in ada.http.cookies
        async with browser(running) as thief:
            thief.http.cookies.set("hubbub_oidc", kept, path="/api/oidc")
            answer = await thief.get(back)
            assert (answer.status_code, answer.json()["code"]) == (403, "oidc_failed")


async def test_who_changes_their_mind_is_told_so() -> None:
    async with provider() as one, hub_with(one) as running, browser(running) as ada:
        state = parse_qs(urlsplit(await begin(ada)).query)["state"][0]
        answer = await ada.get(f"/api/oidc/callback?error=access_denied&state={state}")
        assert (answer.status_code, answer.json()["error"]) == (403, "You were not logged in.")
        shown = await ada.send("GET", "/api/oidc/callback?error=x", accept="text/html,*/*")
        assert shown.status_code == 403
        assert shown.headers["content-type"].startswith("text/html")
        assert "<p>You were not logged in.</p>" in shown.text


DOWN: dict[str, Callable[[Provider], object]] = {
    "an error": lambda one: setattr(one, "token", lambda: Response("oops", 500)),
    "no JSON": lambda one: setattr(one, "token", lambda: Response("<html>", 200)),
    "no token": lambda one: setattr(one, "token", lambda: JSONResponse({"access_token": "x"})),
    "too much": lambda one: setattr(one, "token", lambda: Response(b" " * (module.MOST_BYTES + 1))),
    "nobody there": lambda one: one.metadata.update(token_endpoint="http://127.0.0.1:9/token"),
    "no keys": lambda one: one.metadata.update(jwks_uri=f"{one.url}/nothing"),
    "another's name": lambda one: one.metadata.update(issuer="https://evil.example"),
}


@pytest.mark.parametrize("fault", DOWN)
async def test_a_provider_that_fails_is_told_in_words(fault: str) -> None:
    async with provider() as one, hub_with(one) as running, browser(running) as ada:
        DOWN[fault](one)
        answer = await ada.get("/api/oidc/start")
        if answer.status_code == 303:
            answer = await ada.get(one.authorize(answer.headers["location"]))
        assert (answer.status_code, answer.json()["code"]) == (503, "oidc_down")
        assert answer.headers["retry-after"]
        assert answer.json()["error"].startswith("The ")


async def test_a_provider_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    async with trio.open_nursery() as nursery:
        [silent] = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def say_nothing(_stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        nursery.start_soon(trio.serve_listeners, say_nothing, [silent])
        url = f"http://127.0.0.1:{silent.socket.getsockname()[1]}"
        async with hub_with(Provider(url)) as running, browser(running) as ada:
            answer = await ada.get("/api/oidc/start")
            assert (answer.status_code, answer.json()["code"]) == (503, "oidc_down")
        nursery.cancel_scope.cancel()


async def test_without_a_provider_there_is_nothing() -> None:
    async with running_hub() as running, browser(running) as ada:
        for path in ("/api/oidc/start", "/api/oidc/callback"):
            assert (await ada.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("issuer", "client"),
    [("http://evil.example", "x"), ("evil", "x"), ("", "x"), ("https://id.example", "")],
)
def test_settings_that_are_wrong_are_told(issuer: str, client: str) -> None:
    with pytest.raises(SettingError, match="--oidc"):
        Oidc(issuer, client)


async def test_an_address_that_is_not_https_is_not_asked() -> None:
    one = Oidc("https://id.example", "x")
    plain = "http://id.example/x"
    answers = {
        "issuer": "https://id.example",
        "authorization_endpoint": plain,
        "token_endpoint": plain,
        "jwks_uri": plain,
    }

    async def ask(_where: str, kind: type[Any], *_more: object) -> Any:
        return msgspec.convert(answers, kind)

    one._ask = ask  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable, match="set up wrongly"):
        await one.begin("http://localhost/")
