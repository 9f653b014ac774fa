"""All settings: read once, checked once, never changed while the program runs.

A setting `x_y` is `--x-y` on the command line and `HUBBUB_X_Y` in the environment or in
`.env`; the command line wins over the environment, the environment over `.env`. Each limit
says why it is what it is. docs/settings.md is checked against this file by a test.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from hub.limits import Rate


class SettingError(Exception):
    """A setting is wrong; the text names it as the user wrote it."""


def _setting(
    default: Any, about: str, *, low: float | None = None, high: float | None = None
) -> Any:
    return field(default=default, metadata={"about": about, "low": low, "high": high})


@frozen(kw_only=True)
class Settings:
    """What the owner of a hub can set. Times are in seconds unless the text says otherwise."""

    host: str = _setting(
        "127.0.0.1", "address to listen on; loopback by default, so that nobody else gets in"
    )
    port: int = _setting(8080, "port to listen on; 0 takes a free one", low=0, high=65535)
    data: Path = _setting(
        Path("data"), "folder of the database and the secret; made where it is missing"
    )
    database: str = _setting("", "URL of the database, if not the SQLite file in the data folder")
    origins: str = _setting("", "other origins whose pages may connect, separated by commas")
    hosts: str = _setting(
        "",
        "names that the hub is reached by, separated by commas; on loopback also localhost",
    )
    tls_cert: str = _setting(
        "", "file of a certificate (PEM, with its chain): with it and the key, https and wss"
    )
    tls_key: str = _setting("", "file of the certificate's key (PEM, without a password)")
    trusted_proxies: str = _setting(
        "",
        "addresses or networks of proxies whose X-Forwarded-For and -Proto are believed, "
        "separated by commas; anybody can send these headers, so none by default",
    )
    auth: str = _setting(
        "",
        "who gets in: guests, accounts or invite; by default guests on loopback, where nobody "
        "else is, and accounts on any other address",
    )
    registration: str = _setting(
        "",
        "whether anybody may make an account: on or off; by default on where guests get in anyway",
    )
    trusted_header: str = _setting(
        "",
        "header in which a proxy of `trusted_proxies` names who asks, for instance X-Remote-User",
    )
    oidc_issuer: str = _setting("", "URL of an OpenID Connect provider by which people log in")
    oidc_client_id: str = _setting("", "what the provider knows this hub by")
    oidc_client_secret: str = _setting(
        "", "the secret that goes with it; in the environment, since others can see a command line"
    )
    oidc_registration: str = _setting(
        "",
        "on: whoever the provider sends gets an account; off by default, since some providers "
        "know everybody",
    )
    presets: str = _setting("", "folder with characters and scenarios of one's own (TOML)")

    llm: str = _setting(
        "", "which model answers: openai, anthropic, llamacpp, demo or module:function"
    )
    fallback: str = _setting("", "demo: made-up replies, marked as such, when no model answers")
    model: str = _setting(
        "", "a GGUF file to be run by a llama.cpp of our own (needs hubbub[local])"
    )
    max_tokens: int = _setting(
        1024, "the longest reply, in tokens; bounds what one prompt can cost", low=1, high=1_000_000
    )
    temperature: float = _setting(
        0.8, "how freely the model chooses its words, 0 to 2", low=0, high=2
    )
    context_tokens: int = _setting(
        8192,
        "how much of a room's past a model is given, in tokens; what small local models hold",
        low=256,
        high=10_000_000,
    )
    demo_rate: float = _setting(
        40.0, "tokens a second of the demo model; about as fast as one reads", low=0.1, high=100_000
    )
    first_timeout: float = _setting(
        120.0, "how long a model may think before its first text", low=0.01, high=3600
    )
    between_timeout: float = _setting(
        60.0, "how long a model may fall silent within a reply", low=0.01, high=3600
    )
    http_transport: str = _setting(
        "fast",
        "what carries requests to models: fast, our own, or stock, that of httpx, which takes "
        "more time for each token; behind a proxy it is always stock",
    )

    grace: float = _setting(
        10.0,
        "how long a reply goes on with nobody to read it; a page that reloads is back by then",
        low=0,
        high=86400,
    )
    rollup: float = _setting(
        25.0,
        "in ms: tokens of a reply that come within this time travel together; 0 sends each alone",
        low=0,
        high=1000,
    )
    pace: int = _setting(0, "in ms: pause between the replies of a cast", low=0, high=60_000)

    window: int = _setting(
        1024 * 1024,
        "bytes of events that a room holds for those who come back; some minutes of lively talk",
        low=4096,
        high=1 << 30,
    )
    inbox_window: int = _setting(256 * 1024, "the same for a user's inbox", low=4096, high=1 << 30)
    keep: float = _setting(
        600.0,
        "how long a room or inbox that nobody reads stays in memory for exact resume",
        low=0,
        high=86400,
    )
    send_timeout: float = _setting(
        20.0,
        "how long one write to a client may take; a phone that sleeps takes nothing",
        low=0.1,
        high=600,
    )
    ping_interval: float = _setting(
        20.0,
        "silence after which a client is pinged; below the usual 60 s of proxies",
        low=0.1,
        high=3600,
    )
    ping_timeout: float = _setting(60.0, "silence after which a client is gone", low=0.2, high=7200)
    shutdown: float = _setting(5.0, "time to say goodbye when the hub ends", low=0.1, high=120)

    frame_bytes: int = _setting(
        64 * 1024,
        "largest message of a client; a long prompt fits many times",
        low=1024,
        high=64 << 20,
    )
    body_bytes: int = _setting(
        1024 * 1024, "largest body of an HTTP request", low=1024, high=1 << 30
    )
    import_bytes: int = _setting(
        64 * 1024 * 1024,
        "largest file of chats that may be brought along; years of one person's",
        low=1024,
        high=1 << 32,
    )
    card_bytes: int = _setting(
        4 * 1024 * 1024,
        "largest file of a character card; they are pictures of some 500 KiB",
        low=1024,
        high=64 << 20,
    )
    text_chars: int = _setting(8000, "longest prompt; some four pages", low=1, high=1_000_000)
    scenario_chars: int = _setting(
        8000, "longest scenario, persona or instruction", low=1, high=1_000_000
    )
    title_chars: int = _setting(100, "longest title of a room", low=1, high=10_000)
    name_chars: int = _setting(40, "longest name of a person or character", low=1, high=1000)
    cast: int = _setting(
        8, "characters in a room; each costs a call of the model a turn", low=1, high=100
    )
    self_talk: int = _setting(
        20,
        "turns that characters may talk among themselves at a time; each costs a call of the model",
        low=1,
        high=1000,
    )
    rooms_per_user: int = _setting(100, "rooms that one user may own", low=1, high=1_000_000)
    rooms_per_socket: int = _setting(
        50, "rooms that one connection may be in at once", low=1, high=10_000
    )
    banned_per_room: int = _setting(
        1000, "people banned from one room; kept with the room, read with it", low=0, high=100_000
    )
    prompts_waiting: int = _setting(
        8, "prompts of one connection that wait for the model (llm_chat_prompt)", low=1, high=1000
    )
    members_announced: int = _setting(
        500,
        "above so many people in a room, who comes and goes is not told to all: N² messages",
        low=0,
        high=100_000,
    )
    connections: int = _setting(20_000, "sockets at once; 30 KB each", low=1, high=10_000_000)
    # What one user may do; all users of one address together: so many times `limit_crowd`.
    # Visitors from this machine itself have no such limits.
    limit_sockets: int = _setting(
        30, "sockets of one user at once: a person's pages and devices", low=1, high=1_000_000
    )
    limit_crowd: int = _setting(
        20,
        "how many times the limits of a user all users of one address have: a school or an "
        "office shares one",
        low=1,
        high=1_000_000,
    )
    limit_requests: Rate = _setting(
        Rate("300/min burst 100"), "requests of the API; opening the page takes four"
    )
    limit_handshakes: Rate = _setting(
        Rate("30/min burst 30"), "sockets opened; after a restart all pages come back at once"
    )
    limit_logins: Rate = _setting(
        Rate("6/min burst 10"),
        "logins, registrations, new guests; each costs a hash or a row in the store",
    )
    limit_messages: Rate = _setting(
        Rate("20/s burst 60"), "messages over sockets; typing and scrolling send a few a second"
    )
    limit_bytes: Rate = _setting(
        Rate("65536/s burst 524288"),
        "bytes over sockets; eight of the largest messages at once, one a second",
    )
    limit_prompts: Rate = _setting(
        Rate("20/min burst 10"), "prompts; nobody reads faster, and each costs calls of the model"
    )
    limit_rooms: Rate = _setting(
        Rate("30/h burst 10"), "new rooms and games; each is kept until somebody removes it"
    )
    session_days: float = _setting(
        90.0,
        "days after which a browser that did not come back is forgotten",
        low=0.0001,
        high=3650,
    )
    retention_days: float = _setting(
        0.0,
        "days after which messages are removed for good; 0 keeps them for ever: "
        "forgetting has to be asked for",
        low=0,
        high=36500,
    )
    log_level: str = _setting("info", "what goes to standard error: debug, info, warning or error")

    @property
    def where(self) -> str | Path:
        """The database: a URL, or a file in the data folder."""
        return self.database or self.data / "hubbub.db"


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return "HUBBUB_" + name.upper()


def option(name: str) -> str:
    """Return the command line option of a setting."""
    return "--" + name.replace("_", "-")


def read(given: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """Make the settings from command line values, by setting, and environment variables.

    Raises:
        SettingError: a value is not of the setting's kind, or out of its range.

    """
    values: dict[str, Any] = {}
    for spec in attrs.fields(Settings):
        name = spec.name
        if name in given:
            values[name] = _convert(spec, given[name], option(name))
        elif environ.get(variable(name), "") != "":
            values[name] = _convert(spec, environ[variable(name)], variable(name))
    if "port" not in values and environ.get("PORT"):
        values["port"] = _convert(attrs.fields(Settings).port, environ["PORT"], "PORT")
    return Settings(**values)


def environment(folder: Path) -> dict[str, str]:
    """Return `.env` of the folder, overlaid by the real environment.

    Raises:
        SettingError: the file is not text.
        OSError: it can't be read.

    """
    from dotenv import dotenv_values  # noqa: PLC0415 - only a program needs it, not a library

    path = folder / ".env"
    try:
        read_from_file = dotenv_values(path, interpolate=False)
    except UnicodeDecodeError:
        raise SettingError(f"{path} must be text in UTF-8.") from None
    return {name: value for name, value in read_from_file.items() if value} | dict(os.environ)


_KINDS: dict[type[Any], str] = {
    int: "a whole number",
    float: "a number",
    Rate: "a rate such as 20/s, or 30/min burst 10, or off",
}


def _convert(spec: "attrs.Attribute[Any]", text: str, called: str) -> Any:
    kind = spec.type
    try:
        value = kind(text.strip()) if kind is not None else text
    except ValueError:
        wanted = _KINDS[kind or str]
        raise SettingError(f"{called} must be {wanted}, not “{text}”.") from None
    low, high = spec.metadata["low"], spec.metadata["high"]
    if low is not None and not low <= value <= high:
        raise SettingError(f"{called} must be from {low:g} to {high:g}, not {text}.")
    return value
