"""A small HTTP proxy in front of a real server that loses, delays or replaces chosen replies.

So misbehaviour is tried on real semantics: with a lost reply the upstream *has* done it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from tests.patience import PATIENCE

_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "date", "server"}


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Rule:
    """For requests whose ``METHOD /path`` starts with ``route``.

    ``instead``: answer this without asking the server; a status of 0: the connection is cut. ``change``: what
    becomes of its answer; None: the connection is cut. ``hold``: the answer waits for this event (the server has
    answered by then).
    """

    route: str
    instead: Reply | None = None
    change: Callable[[Reply], Reply | None] = lambda reply: reply
    hold: threading.Event | None = None


class MishapProxy:
    """Forwards to ``target``; rules may change at any time."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._session = requests.Session()
        self._session.trust_env = False
        self.rules: list[Rule] = []
        self.seen: list[str] = []
        self.answered = threading.Event()  # set when the server has answered a request that a rule is for

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply | None:
        request = f"{method} {path}"
        self.seen.append(request)
        rule = next((each for each in self.rules if request.startswith(each.route)), None)
        if rule is not None and rule.instead is not None:
            return rule.instead if rule.instead.status else None
        got = self._session.request(method, self._target + path, headers=headers, data=body, timeout=PATIENCE)
        kept = {name: value for name, value in got.headers.items() if name.lower() not in _HOP_BY_HOP}
        reply: Reply | None = Reply(got.status_code, got.content, kept)
        if rule is not None and reply is not None:
            self.answered.set()
            if rule.hold is not None:
                rule.hold.wait(PATIENCE)
            reply = rule.change(reply)
        return reply


@contextmanager
def mishap_proxy(
    target: str, *, keeps_host: bool = False, proxy: MishapProxy | None = None
) -> Iterator[tuple[MishapProxy, str]]:
    """A running proxy and its address. ``keeps_host``: for a server that checks what its clients have signed."""
    proxy = MishapProxy(target) if proxy is None else proxy

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                self._pass_one_on()
            except ConnectionError:  # who asked has given up: what several tests are about
                self.close_connection = True

        def _pass_one_on(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            dropped = _HOP_BY_HOP - ({"host"} if keeps_host else set())
            sent = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            reply = proxy.answer(self.command, self.path, sent, body)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def lost(reply: Reply) -> Reply | None:
    """The connection is cut instead of the answer."""
    return None
