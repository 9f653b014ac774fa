"""The composition root: builds everything, opens the root nursery, ends it in order.

    serve
    ├── the store's writer                     (open_store)
    ├── the ledger of what replies took        (open_ledger)
    ├── the models: the gateway's calls, and a llama.cpp of our own   (open_plan)
    ├── hub: pump, clock, heartbeat, saving, one task a room, which owns its turns
    ├── retention: removes what is too old, every day
    ├── watch: keeps sockets in step with sessions and accounts
    └── listeners: one task a connection; a WebSocket's owns its reader and slow writes

Ended from outside in: no new connections; turns end and are stored; clients get what was
said and then 1001; the hub; the model; the store, with all that was handed to it.
"""

import gc
import logging
import random
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import trio
from attrs import evolve

from hub.accounts import Accounts
from hub.answers import open_answers
from hub.hub import Hub
from hub.ledger import open_ledger
from hub.limits import Places, network_of
from hub.oidc import Oidc
from hub.passwords import Passwords
from hub.presets import load as load_presets
from hub.retention import forget
from hub.settings import SettingError, Settings
from hub.store.opening import open_store
from hub.tokens import Tokens
from hub.watch import Watch
from hub.web.card_routes import takes_cards
from hub.web.entrance import Entrance
from hub.web.gate import Gate, open_limits
from hub.web.http import Site, serve_connection
from hub.web.import_routes import PATH as IMPORT
from hub.web.listener import most_connections, open_listeners, raise_file_limit, serve
from hub.web.messages import Headers, Peer, Request
from hub.web.proxies import Proxies
from hub.web.routes import Api
from hub.web.sessions import Doors, Sessions, host_name, is_loopback, secret_of
from hub.web.sockets import Sockets
from hub.web.static import StaticFiles
from hub.web.tls import Certificate, open_certificate
from llm.plan import Plan, open_plan

logger = logging.getLogger(__name__)

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; font-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Headers = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"permissions-policy",
        b"camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def over_tls(request: Request) -> Headers:
    """Have browsers come by https only, for a year (RFC 6797); subdomains are not ours.

    Not on localhost: it holds for all ports of a name, so it would bind whatever else is
    developed on that machine. There, 0 takes back what another server may have said.
    """
    host = (request.header(b"host") or b"").decode("latin-1")
    seconds = 0 if is_loopback(host_name(host)) else 31_536_000
    return ((b"strict-transport-security", b"max-age=%d" % seconds),)


def public_folder() -> Path:
    """Return the page's files: beside the sources, or inside the installed package."""
    packaged = Path(str(files("hub"))) / "public"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "public"


async def run(settings: Settings, plan: Plan, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: all of them.
        plan: the models that answer.
        announce: called once with the URL when connections are accepted.

    Raises:
        PresetError, SettingError, StoreError, SetupError, ListenError, OSError: it can't be
            started; the text says why.

    """
    async with trio.open_nursery() as nursery:
        wanted = trio.Event()
        serves = False

        async def hear(task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                task_status.started()
                async for _ in signals:
                    break
            # From here on a second signal has its usual effect: at once.
            wanted.set()
            if not serves:
                nursery.cancel_scope.cancel()

        await nursery.start(hear)
        async with serving(settings, plan) as url:
            serves = True
            _spare_the_collector()
            announce(url)
            await wanted.wait()


def make_data_folder(path: Path) -> None:
    """Make the folder if it is missing, for its owner only: private chats are in it.

    Raises:
        SettingError: it can't be made.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise SettingError(f"The data folder {path} can't be made: a file is in its way.") from None
    except OSError as error:
        raise SettingError(f"The data folder {path} can't be made: {error.strerror}.") from None


def _spare_the_collector() -> None:
    """Have the garbage collector look less often, and never at what is there for good.

    Thousands of connections are hundreds of thousands of objects that live for hours; going
    through them at the default pace took up to a sixth of the time. Cycles are few here: what
    a closed connection leaves is collected a little later, no more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@asynccontextmanager
async def serving(settings: Settings, plan: Plan) -> AsyncIterator[str]:
    """Have the hub serve while the block runs; yields its URL."""
    presets = load_presets([Path(settings.presets)] if settings.presets else [])
    certificate = open_certificate(settings.tls_cert, settings.tls_key)
    make_data_folder(settings.data)
    listeners = await open_listeners(settings.host, settings.port)
    async with (
        open_store(settings.where) as store,
        open_ledger(store) as ledger,
        open_plan(plan, ledger=ledger, cache=open_answers(store, plan.settings.cache)) as provider,
    ):
        chance = random.Random()  # noqa: S311 - names and turns, no secrets
        hub = Hub(settings, store, provider, presets=presets, chance=chance)
        site = build_site(hub, settings, chance)
        async with open_to_all(hub, site, listeners, certificate) as url:
            yield url


@asynccontextmanager
async def open_to_all(
    hub: Hub,
    site: Site,
    listeners: Sequence[trio.SocketListener],
    certificate: Certificate | None = None,
) -> AsyncIterator[str]:
    """Run a hub and let people in while the block runs; yields its URL."""
    settings = hub.settings
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        if certificate is not None:
            await nursery.start(certificate.reload_at_hangup)
        nursery.start_soon(forget, hub)
        for task in site.tasks:
            nursery.start_soon(task)
        door = trio.CancelScope()

        async def listen(task_status: trio.TaskStatus[None]) -> None:
            with door:
                await _let_in(listeners, site, settings, certificate, task_status)

        await nursery.start(listen)
        host, port = listeners[0].socket.getsockname()[:2]
        try:
            yield f"{'https' if certificate else 'http'}://{_shown(host)}:{port}"
        finally:
            for listener in listeners:
                listener.socket.close()
            # A deadline of its own, also where the end came by cancellation.
            with trio.move_on_after(settings.shutdown, shield=True):
                await hub.say_goodbye()
            door.cancel()
            nursery.cancel_scope.cancel()


async def _let_in(
    listeners: Sequence[trio.SocketListener],
    site: Site,
    settings: Settings,
    certificate: Certificate | None,
    task_status: trio.TaskStatus[None],
) -> None:
    """Accept connections, with TLS if there is a certificate, until cancelled."""

    async def handle(stream: trio.SocketStream, peer: Peer) -> None:
        if certificate is None:
            await serve_connection(stream, site, peer)
        elif (secured := await certificate.secure(stream, site.headers)) is not None:
            await serve_connection(secured, site, evolve(peer, scheme="https"))

    def counted(address: str) -> str | None:
        return None if site.proxies.trusted(address) else network_of(address)

    await serve(
        listeners,
        handle,
        connections=min(settings.connections, most_connections(raise_file_limit())),
        places=Places(settings.limit_sockets * settings.limit_crowd),
        counted=counted,
        headers=None if certificate else site.headers,
        task_status=task_status,
    )


def build_site(hub: Hub, settings: Settings, chance: random.Random) -> Site:
    """Put the HTTP side over a hub."""
    sessions = Sessions(hub, secret_of(settings.data), settings.session_days, chance)
    accounts = Accounts(hub.store, Passwords(), name_chars=settings.name_chars)
    tokens = Tokens(hub.store, accounts)
    watch = Watch(hub, tokens)
    entrance = Entrance(hub, sessions, accounts, tokens, watch, oidc=provider_of(settings))
    limits = open_limits(settings)
    gate = Gate(Doors(settings), limits)

    def max_body(request: Request) -> int:
        if takes_cards(request.path):
            return settings.card_bytes
        return settings.import_bytes if request.path == IMPORT else settings.body_bytes

    return Site(
        app=Api(hub, entrance, gate).app(),
        upgrade=Sockets(hub, entrance, gate, limits).upgrade,
        static=StaticFiles(public_folder(), aliases={"/chat": "/index.html"}),
        gate=gate.refuse,
        headers=SECURITY_HEADERS,
        headers_over_tls=over_tls,
        max_body=max_body,
        proxies=Proxies(settings.trusted_proxies),
        tasks=(watch.run,),
    )


def provider_of(settings: Settings) -> Oidc | None:
    """Return the provider by which people may log in, if there is one.

    Raises:
        SettingError: its settings are wrong.

    """
    if not settings.oidc_issuer:
        return None
    return Oidc(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret)


def _shown(host: str) -> str:
    if is_loopback(host):
        return "localhost"
    return f"[{host}]" if ":" in host else host
