import gzip
import os
from pathlib import Path

import pytest

from hub.web.messages import Answer, Peer, Request
from hub.web.static import StaticFiles
from tests.web.raw import serving, site

SCRIPT = b"console.log('hello')\n" * 100


@pytest.fixture
def public(tmp_path: Path) -> Path:
    public = tmp_path / "public"
    (public / "modules").mkdir(parents=True)
    (public / "index.html").write_text("<!doctype html><title>Chat</title>")
    (public / "script.js").write_bytes(SCRIPT)
    (public / "modules" / "a b.js").write_text("0")
    (public / "empty.txt").write_bytes(b"")
    (public / "digits.txt").write_bytes(b"0123456789")
    (public / "noise.bin").write_bytes(os.urandom(2_000))
    return public


def ask(files: StaticFiles, path: str, method: str = "GET", **headers: str) -> Answer:
    pairs = tuple((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items())
    raw = path.encode()
    answer = files.answer(Request(method, raw, path, raw, b"", "1.1", pairs, Peer()))
    assert answer is not None
    return answer


def header(answer: Answer, name: str) -> str | None:
    values = [value.decode() for key, value in answer.headers if key.decode() == name]
    assert len(values) <= 1
    return values[0] if values else None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.MJS", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.woff2", "font/woff2"),
        ("a.png", "image/png"),
        ("favicon.ico", "image/x-icon"),
        ("a.unknown", "application/octet-stream"),
    ],
)
def test_content_types(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert header(ask(StaticFiles(tmp_path), f"/{name}"), "content-type") == kind


def test_index_and_aliases(public: Path) -> None:
    files = StaticFiles(public, aliases={"/chat": "/index.html"})
    pages = [ask(files, path) for path in ("/", "/index.html", "/chat")]
    assert pages[0].body == (public / "index.html").read_bytes()
    assert pages[0] == pages[1] == pages[2]
    assert header(pages[0], "cache-control") == "no-cache"
    with pytest.raises(ValueError, match="/nope"):
        StaticFiles(public, aliases={"/chat": "/nope"})


def test_only_what_is_in_the_directory(public: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (public / "link.txt").symlink_to(tmp_path / "secret.txt")
    (public / "up").symlink_to(tmp_path)
    (public / ".hidden").write_text("hidden")
    files = StaticFiles(public)
    for path in (
        "/../secret.txt",
        "//secret.txt",
        "/modules/../../secret.txt",
        str(tmp_path / "secret.txt"),
        "/link.txt",
        "/up/secret.txt",
        "/.hidden",
        "/modules",
        "/modules/",
        "script.js",
        "",
        "/\0",
    ):
        raw = path.encode()
        request = Request("GET", raw, path, raw, b"", "1.1", (), Peer())
        assert files.answer(request) is None, path
        assert not files.lookup(path)
    assert files.lookup("/modules/a b.js")


def test_only_reading(public: Path) -> None:
    answer = ask(StaticFiles(public), "/script.js", "POST")
    assert (answer.status, header(answer, "allow")) == (405, "GET, HEAD")
    assert b'"code":"method_not_allowed"' in answer.body


def test_etag_names_the_content(public: Path) -> None:
    files = StaticFiles(public)
    etag = header(ask(files, "/script.js"), "etag")
    assert etag == header(ask(StaticFiles(public), "/script.js"), "etag")
    (public / "script.js").write_bytes(SCRIPT + b"more")
    assert header(ask(files, "/script.js"), "etag") == etag
    assert header(ask(StaticFiles(public), "/script.js"), "etag") != etag


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', '"x",W/{} , "y"', "*"])
def test_what_the_client_has_is_304(form: str, public: Path) -> None:
    files = StaticFiles(public)
    etag = header(ask(files, "/script.js"), "etag")
    assert etag is not None
    answer = ask(files, "/script.js", if_none_match=form.format(etag))
    assert (answer.status, answer.body) == (304, b"")
    assert header(answer, "etag") == etag
    assert header(answer, "cache-control") == "no-cache"
    assert header(answer, "vary") == "accept-encoding"
    assert header(answer, "content-type") is None


@pytest.mark.parametrize("form", ['"x"', "x", "", '"*"'])
def test_what_it_has_not_is_200(form: str, public: Path) -> None:
    assert ask(StaticFiles(public), "/script.js", if_none_match=form).status == 200


@pytest.mark.parametrize("accept", ["gzip", "br, GZIP;q=0.5", "*", "deflate, *;q=0.1", "gzip; q=1"])
def test_compressed_for_those_who_take_it(accept: str, public: Path) -> None:
    files = StaticFiles(public)
    answer = ask(files, "/script.js", accept_encoding=accept)
    assert header(answer, "content-encoding") == "gzip"
    assert header(answer, "vary") == "accept-encoding"
    assert len(answer.body) < len(SCRIPT)
    assert gzip.decompress(answer.body) == SCRIPT
    etag = header(answer, "etag")
    assert etag is not None
    assert etag != header(ask(files, "/script.js"), "etag")  # other bytes, other strong tag
    again = ask(files, "/script.js", accept_encoding=accept, if_none_match=etag)
    assert again.status == 304


@pytest.mark.parametrize("accept", ["", "br", "gzip;q=0", "gzip;q=0.000, *", "identity"])
def test_plain_for_those_who_do_not(accept: str, public: Path) -> None:
    answer = ask(StaticFiles(public), "/script.js", accept_encoding=accept)
    assert (header(answer, "content-encoding"), answer.body) == (None, SCRIPT)
    assert header(answer, "vary") == "accept-encoding"


@pytest.mark.parametrize("path", ["/noise.bin", "/empty.txt", "/digits.txt"])
def test_plain_where_compression_gains_nothing(path: str, public: Path) -> None:
    answer = ask(StaticFiles(public), path, accept_encoding="gzip")
    assert header(answer, "content-encoding") is None
    assert header(answer, "vary") is None


@pytest.mark.parametrize(
    ("wanted", "body", "place"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("Bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-30", b"0123456789", "bytes 0-9/10"),
        ("bytes=9-100", b"9", "bytes 9-9/10"),
    ],
)
def test_a_part(wanted: str, body: bytes, place: str, public: Path) -> None:
    files = StaticFiles(public)
    answer = ask(files, "/digits.txt", range=wanted)
    assert (answer.status, answer.body) == (206, body)
    assert header(answer, "content-range") == place
    assert header(answer, "etag") == header(ask(files, "/digits.txt"), "etag")


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=100-200", "bytes=-0"])
def test_a_part_that_is_not_there(wanted: str, public: Path) -> None:
    answer = ask(StaticFiles(public), "/digits.txt", range=wanted)
    assert (answer.status, header(answer, "content-range")) == (416, "bytes */10")
    assert ask(StaticFiles(public), "/empty.txt", range="bytes=-5").status == 416


@pytest.mark.parametrize(
    "wanted",
    ["bytes=0-1,3-4", "bytes=3-2", "bytes=-", "lines=0-1", "bytes=a-b", "bytes=0-" + "9" * 5_000],
)
def test_several_parts_and_nonsense_get_the_whole(wanted: str, public: Path) -> None:
    answer = ask(StaticFiles(public), "/digits.txt", range=wanted)
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_parts_are_of_the_plain_file_and_of_the_same_one(public: Path) -> None:
    files = StaticFiles(public)
    etag = header(ask(files, "/script.js"), "etag")
    assert etag is not None
    part = ask(files, "/script.js", range="bytes=0-6", accept_encoding="gzip", if_range=etag)
    assert (part.status, part.body) == (206, b"console")
    assert ask(files, "/script.js", range="bytes=0-6", if_range='"old"').status == 200
    assert ask(files, "/script.js", range="bytes=0-6", if_range=f"W/{etag}").status == 200
    assert ask(files, "/script.js", "HEAD", range="bytes=0-6").status == 200


def test_reload_sees_what_changed(public: Path) -> None:
    files = StaticFiles(public, reload=True, aliases={"/chat": "/index.html"})
    (public / "digits.txt").write_text("changed")
    (public / "new.txt").write_text("new")
    (public / "index.html").write_text("<title>New</title>")
    assert ask(files, "/digits.txt").body == b"changed"
    assert ask(files, "/new.txt").body == b"new"
    assert ask(files, "/chat").body == ask(files, "/").body == b"<title>New</title>"
    (public / "new.txt").unlink()
    raw = b"/new.txt"
    assert files.answer(Request("GET", raw, "/new.txt", raw, b"", "1.1", (), Peer())) is None


async def test_over_a_socket(public: Path) -> None:
    one = site(static=StaticFiles(public), headers=((b"x-site", b"1"),))
    async with serving(one) as connect:
        client = await connect()
        whole = await client.get("/modules/a%20b.js?v=1")
        assert (whole.status, whole.body) == (200, b"0")
        assert whole.headers["x-site"] == "1"
        head = await client.get("/script.js", method="HEAD")
        assert head.headers["content-length"] == str(len(SCRIPT))
        part = await client.get("/script.js", "Range: bytes=-5\r\n")
        assert (part.status, part.body) == (206, SCRIPT[-5:])
        same = await client.get("/script.js", f"If-None-Match: {whole.headers['etag']}, *\r\n")
        assert same.status == 200
        same = await client.get("/script.js", f"If-None-Match: {head.headers['etag']}\r\n")
        assert (same.status, "content-length" in same.headers) == (304, False)
        assert (await client.get("/script.js", method="DELETE")).code == "method_not_allowed"
        assert (await client.get("/elsewhere")).body == b"GET /elsewhere"  # by the app
