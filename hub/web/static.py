"""The files of one directory, held in memory and answered without any I/O.

Every file is read when the directory is loaded and found by its path in a dict: no request
can name anything else. An ETag makes `no-cache` cheap: the browser asks, 304 is the answer.
"""

import gzip
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from hub.web.messages import Answer, Headers, Request

log = logging.getLogger(__name__)

# Written down rather than asked of the system, whose table differs between machines.
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
_PACKED: Final = (".gif", ".jpg", ".mp3", ".png", ".webp", ".woff2")  # compressed as they are

_METHODS: Final = (b"allow", b"GET, HEAD")
# Numbers of more than 18 digits are no offsets of files; int() of very many takes long.
_RANGE: Final = re.compile(rb"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)


@frozen
class _Variant:
    """A file in one encoding; `whole` is its 200."""

    whole: Answer
    etag: bytes
    not_modified: Answer


@frozen
class _File:
    plain: _Variant
    gzipped: _Variant | None = field(default=None)


class StaticFiles:
    """The files of `directory`. An `index.html` is also what its folder's path gives.

    Args:
        directory: is read whole. Hidden files, and links that lead out of it, are left out.
        aliases: further paths, for instance ``{"/chat": "/index.html"}``.
        reload: look for changed files on every request; for development.

    Raises:
        OSError: the directory or a file in it cannot be read.
        ValueError: an alias leads to no file.

    """

    def __init__(
        self, directory: Path, *, aliases: Mapping[str, str] | None = None, reload: bool = False
    ) -> None:
        self._directory: Final = directory.resolve(strict=True)
        self._aliases: Final = dict(aliases or {})
        self._reload: Final = reload
        self._seen: object = None
        self._files: dict[str, _File] = {}
        self._load()
        for alias, path in self._aliases.items():
            if path not in self._files:
                raise ValueError(f"{alias} leads to {path}, which is not in {directory}")

    def lookup(self, path: str) -> bool:
        """Whether a file is at this path (decoded, absolute, without a query)."""
        return path in self._files

    def answer(self, request: Request) -> Answer | None:
        """Return the answer to a request for a file, or None where there is no such file."""
        if self._reload:
            self._load()
        file = self._files.get(request.path)
        if file is None:
            return None
        if request.method not in ("GET", "HEAD"):
            return Answer.error(405, "method_not_allowed", "This can only be read.", [_METHODS])
        return _answer(file, request)

    def _load(self) -> None:
        """Read the directory, if it is not as it was when it was read last."""
        paths = dict(self._paths())
        seen = {
            name: (stat.st_mtime_ns, stat.st_size)
            for name, stat in ((name, path.stat()) for name, path in paths.items())
        }
        if seen == self._seen:
            return
        files = {name: _read(path) for name, path in paths.items()}
        for name in paths:
            if name.endswith("/index.html"):
                files[name.removesuffix("index.html")] = files[name]
        files |= {a: files[path] for a, path in self._aliases.items() if path in files}
        self._files, self._seen = files, seen

    def _paths(self) -> Iterator[tuple[str, Path]]:
        for path in sorted(self._directory.rglob("*")):
            name = path.relative_to(self._directory)
            if not path.is_file() or any(part.startswith(".") for part in name.parts):
                continue
            if path.resolve().is_relative_to(self._directory):
                yield f"/{name.as_posix()}", path
            else:
                log.warning("%s leads out of its directory and is not served", path)


def _read(path: Path) -> _File:
    body = path.read_bytes()
    suffix = path.suffix.lower()
    tag = hashlib.sha256(body).hexdigest()[:20]
    shared: Headers = (
        (b"content-type", _TYPES.get(suffix, "application/octet-stream").encode("ascii")),
        (b"cache-control", b"no-cache"),
    )
    packed = b"" if suffix in _PACKED else gzip.compress(body, mtime=0)
    if not packed or len(packed) >= len(body):
        return _File(_variant(body, f'"{tag}"', (*shared, (b"accept-ranges", b"bytes"))))
    varied = (*shared, (b"vary", b"accept-encoding"))
    return _File(
        _variant(body, f'"{tag}"', (*varied, (b"accept-ranges", b"bytes"))),
        _variant(packed, f'"{tag}-gz"', (*varied, (b"content-encoding", b"gzip"))),
    )


def _variant(body: bytes, etag: str, headers: Headers) -> _Variant:
    tag = etag.encode("ascii")
    tagged = (*headers, (b"etag", tag))
    # What a 304 repeats: RFC 9110, 15.4.5.
    repeated = tuple(h for h in tagged if h[0] in (b"cache-control", b"etag", b"vary"))
    return _Variant(Answer(200, tagged, body), tag, Answer(304, repeated))


def _answer(file: _File, request: Request) -> Answer:
    wanted = request.header(b"range") if request.method == "GET" else None
    # A part is always one of the plain file: parts of a gzip stream are of no use to anybody.
    packed = file.gzipped is not None and wanted is None and _takes_gzip(request)
    variant = file.gzipped if packed and file.gzipped is not None else file.plain
    if _matches(request.header(b"if-none-match"), variant.etag):
        return variant.not_modified
    # RFC 9110, 13.1.5: a part only of what the client has already, else the whole.
    if wanted is not None and request.header(b"if-range") in (None, variant.etag):
        return _part(variant.whole, wanted)
    return variant.whole


def _takes_gzip(request: Request) -> bool:
    """RFC 9110, 12.5.3: a coding is acceptable unless its weight is 0."""
    weights: dict[bytes, bool] = {}
    for token in request.tokens(b"accept-encoding"):
        coding, _, parameter = token.partition(b";")
        weight = parameter.strip().removeprefix(b"q=")
        weights[coding.strip()] = not weight or bool(weight.strip(b"0."))
    return weights.get(b"gzip", weights.get(b"*", False))


def _matches(condition: bytes | None, etag: bytes) -> bool:
    """Compare weakly, as If-None-Match wants (RFC 9110, 13.1.2)."""
    if condition is None:
        return False
    tags = [tag.strip().removeprefix(b"W/") for tag in condition.split(b",")]
    return etag in tags or tags == [b"*"]


def _part(whole: Answer, wanted: bytes) -> Answer:
    """Return 206 or 416; the whole for several ranges or what is no range (RFC 9110, 14.2)."""
    match = _RANGE.fullmatch(wanted)
    if match is None or match[1] == match[2] == b"":
        return whole
    size = len(whole.body)
    if match[1]:
        start, end = int(match[1]), min(int(match[2] or size), size - 1)
        if match[2] and int(match[2]) < start:
            return whole
    else:
        start, end = max(size - int(match[2]), 0), size - 1
    if start > end:
        place = (b"content-range", b"bytes */%d" % size)
        return Answer.error(416, "range_not_satisfiable", "The file is not that long.", [place])
    place = (b"content-range", b"bytes %d-%d/%d" % (start, end, size))
    return Answer(206, (*whole.headers, place), whole.body[start : end + 1])
