"""The page for a browser on this machine: what it may ask for, and what it is answered."""

from __future__ import annotations

import json
import re
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from bridge.watch.html_file import PAGE
from bridge.watch.run import Run

LOOPBACK = "127.0.0.1"
SCRIPTS = ("uplot/uPlot.iife.min.js", "dom.js", "format.js", "charts.js", "sections.js", "page.js")
STYLES = ("uplot/uPlot.min.css", "page.css")

_OURS = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
"""The names of this machine. A page of another site whose name was made to lead here has its own."""
_TYPES: dict[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD: the page, the news of the run, and the files that the page links to."""

    server_version, sys_version = "pirl-watch", ""
    protocol_version = "HTTP/1.1"
    timeout = 30
    page: ClassVar[frozenset[str]] = frozenset({*SCRIPTS, *STYLES})

    def __init__(self, run: Run, *args: Any) -> None:
        self._run = run
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer."""
        if not _OURS.fullmatch(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.FORBIDDEN, "This page is for a browser on this machine: use localhost.")
            return
        asked = urlsplit(self.path)
        path = unquote(asked.path)
        if path == "/":
            self._send_file(PAGE / "index.html")
        elif path == "/news":
            self._send_news(parse_qs(asked.query))
        elif path.removeprefix("/page/") in self.page:
            self._send_file(PAGE / path.removeprefix("/page/"))
        elif path.startswith("/files/") and (file := self._run.path_of(path.removeprefix("/files/"))):
            self._send_file(file)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    do_HEAD = do_GET  # noqa: N815

    def _send_news(self, query: dict[str, list[str]]) -> None:
        def text(name: str) -> str:
            return query.get(name, [""])[0]

        known = int(text("known")) if text("known").isdecimal() and len(text("known")) < 10 else 0
        body = json.dumps(self._run.news(text("key"), known, text("about")), allow_nan=False).encode()
        self._begin(HTTPStatus.OK, _TYPES[".json"], len(body))
        self._write(body)

    def _send_file(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                start, end = self._wanted(size)
                if start >= size and (start, end) != (0, size):
                    self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "The file is shorter.")
                    return
                whole = (start, end) == (0, size)
                status = HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT
                more = {} if whole else {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
                self._begin(status, _TYPES[path.suffix], end - start, {"Accept-Ranges": "bytes", **more})
                if self.command != "HEAD":
                    file.seek(start)
                    self._copy(file, end - start)
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND, "The file has gone.")

    def _wanted(self, size: int) -> tuple[int, int]:
        """Return which bytes of a file are asked for, the second not included: a video is sought in."""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None:
            return 0, size
        start = int(asked[1])
        end = int(asked[2]) + 1 if asked[2] else max(size, start + 1)
        return (start, min(size, end)) if end > start else (0, size)

    def _copy(self, file: Any, left: int) -> None:
        """Send so many bytes; a file that has become shorter ends the connection."""
        while left > 0 and (data := file.read(min(left, 1 << 16))):
            self._write(data)
            left -= len(data)
        self.close_connection = self.close_connection or left > 0

    def _begin(self, status: HTTPStatus, kind: str, length: int, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        for name, value in (headers | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()

    def _write(self, data: bytes) -> None:
        if self.command == "HEAD":
            return
        try:
            self.wfile.write(data)
        except (ConnectionError, TimeoutError):  # the reader has gone
            self.close_connection = True

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        body = f"{words}\n".encode()
        self._begin(status, "text/plain; charset=utf-8", len(body))
        self._write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests."""


class Server(ThreadingHTTPServer):
    """Listens on this machine alone.

    Args:
        run: That is shown.
        port: 0 picks a free one.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, run: Run, port: int) -> None:
        super().__init__((LOOPBACK, port), partial(Handler, run))

    @property
    def address(self) -> str:
        """What a browser is given."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"
