"""Serves a page that is kept up to date, to browsers on this machine alone."""

from __future__ import annotations

import os
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ADDRESS = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer:
    """Serves a page and the newest snapshot, in threads of its own.

    ``GET /`` gives the page, ``GET /data.json?seen=N`` the newest snapshot, or nothing
    (204) if its number is N. Requests that name another host are refused: pages of
    others can not read these through a name that leads here.

    Args:
        port: The port to take if it is free; otherwise it is another one.

    Attributes:
        url (str): Where the page is.
        last_asked (float): The time (`time.monotonic`) of the last request.

    Raises:
        OSError: There is no port.
    """

    page: bytes
    data: bytes
    number: int

    def __init__(self, port: int = 0):
        self.page, self.data, self.number = b"", b"", 0
        self.last_asked: float = -float("inf")
        handler = type("Handler", (_Handler,), {"owner": self})
        try:
            self._server = _Server((ADDRESS, port), handler)
        except OSError:
            self._server = _Server((ADDRESS, 0), handler)
        port = self._server.server_address[1]
        self.hosts: set[str] = {f"{ADDRESS}:{port}", f"localhost:{port}"}
        self.url: str = f"http://{ADDRESS}:{port}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="PageServer",
            daemon=True,
        )
        self._thread.start()

    def publish(self, page: str, data: str) -> None:
        """Serve this from now on."""
        self.page, self.data = page.encode(), data.encode()
        self.number += 1

    def close(self) -> None:
        """Stop serving, and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Elsewhere it would take a port from others.
    allow_reuse_address = os.name == "posix"

    def handle_error(self, *args: Any) -> None:
        """Keep quiet about browsers that go away."""


class _Handler(BaseHTTPRequestHandler):
    owner: PageServer
    timeout = 10
    server_version, sys_version = "brainstorm", ""

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.owner.hosts:
            self._answer(HTTPStatus.FORBIDDEN, b"", "text/plain")
            return
        self.owner.last_asked = time.monotonic()
        url = urlsplit(self.path)
        number = self.owner.number
        if url.path == "/":
            self._answer(HTTPStatus.OK, self.owner.page, "text/html; charset=utf-8")
        elif url.path != "/data.json":
            self._answer(HTTPStatus.NOT_FOUND, b"", "text/plain")
        elif parse_qs(url.query).get("seen") == [str(number)]:
            self._answer(HTTPStatus.NO_CONTENT, b"", "application/json")
        else:
            self._answer(HTTPStatus.OK, self.owner.data, "application/json", number)

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str, number: int = 0
    ) -> None:
        self.send_response(status)
        headers = {**HEADERS, "Content-Type": kind, "X-Number": str(number)}
        if status != HTTPStatus.NO_CONTENT:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Print nothing."""
