"""The one answer that a browser brings back to this machine (RFC 8252, section 7.3).

Belongs here: listening on 127.0.0.1 alone, at a port that nobody knew before; taking the first answer at exactly the
redirect URI and closing; a page that says where to go on, and leaves nothing of the answer in the browser. Does not
belong here: what the answer says (``code_flow.py``).
"""

from __future__ import annotations

import queue
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from broker.errors import InvalidInput, Reason, Unauthenticated

PATH = "/callback"
_MAX_QUERY = 8 * 1024
_IDLE_SECONDS = 10.0
_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>broker</title>
<h1>The answer has arrived</h1><p>Go on in the terminal: it says what came of it. You can close this page.</p></html>
"""
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Length": str(len(_PAGE)),
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    # The code stands in this page's address.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}


class Redirect:
    """A context manager: listens while it is open. ``port`` 0: any that is free."""

    def __init__(self, port: int = 0) -> None:
        self._answers: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        try:
            self._server = _Server(("127.0.0.1", port), self._answers)
        except OSError as error:
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"Port {port} of 127.0.0.1 cannot be listened on: {error.strerror}.",
                hint="Name another with BROKER_OIDC_REDIRECT_PORT, or none; or use --device.",
            ) from None
        self.uri = f"http://127.0.0.1:{self._server.server_port}{PATH}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self, timeout: timedelta) -> dict[str, str]:
        """The answer's parameters. Raises :class:`Unauthenticated` (LOGIN_TIMED_OUT) after ``timeout``."""
        try:
            return self._answers.get(timeout=timeout.total_seconds())
        except queue.Empty:
            raise timed_out("no answer came from the browser", timeout, "use --device") from None


class _Server(ThreadingHTTPServer):
    """One thread for each connection: browsers open some that they never use."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = False

    def __init__(self, address: tuple[str, int], answers: queue.SimpleQueue[dict[str, str]]) -> None:
        super().__init__(address, _Handler)
        self.answers = answers
        self.first = threading.Lock()
        self.host = f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _IDLE_SECONDS
    # No version of Python, or of anything.
    server_version = "broker"
    sys_version = ""

    def do_GET(self) -> None:
        """The redirect; anything else is not found, and changes nothing."""
        parts = urlsplit(self.path)
        # A page elsewhere whose name was bound to 127.0.0.1 sends its own name.
        if parts.path != PATH or self.headers.get("Host") != self.server.host or len(parts.query) > _MAX_QUERY:
            self.send_error(404)
            return
        if not self.server.first.acquire(blocking=False):
            self.send_error(410)
            return
        self.send_response(200)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(_PAGE)
        self.wfile.flush()
        self.server.answers.put(_once_each(parts.query))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Nothing: the answer is in the request's line."""


def _once_each(query: str) -> dict[str, str]:
    """The parameters; none at all if one stands twice (RFC 6749, 3.1: it must not)."""
    pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=32)
    found = dict(pairs)
    return found if len(found) == len(pairs) else {}


def timed_out(what: str, timeout: timedelta, otherwise: str) -> Unauthenticated:
    """Nobody finished the login in time; ``otherwise``: what to do where it cannot be finished so."""
    return Unauthenticated(
        Reason.LOGIN_TIMED_OUT,
        f"The login was not finished within {int(timeout.total_seconds())} s: {what}.",
        hint=f"Try again; where no browser can reach this machine, {otherwise}; --login-timeout gives more time.",
    )
