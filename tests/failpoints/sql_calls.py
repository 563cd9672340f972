"""The way to PostgreSQL, with points before and after each statement: a proxy that reads the protocol as it passes.

A statement is a Query or a Parse message of the client's; it is over with the server's ReadyForQuery (PostgreSQL 18,
54.2).
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.failpoints.points import Fault, Points
from tests.simulation.process import Process

_ATTEMPT = re.compile(r"jb-[a-z0-9]{8}-[A-Za-z0-9]{10,40}")
_WORDS = 3  # of a statement, in its name


def named(statement: str) -> str:
    """Its first words; identifiers and literals are chosen anew in every run."""
    text = re.sub(r"\"[^\"]*\"|'[^']*'|--[^\n]*", " ", statement)
    return " ".join(re.findall(r"[A-Za-z_$][\w$.]*", text)[:_WORDS])


class Cut(Exception):
    """The session ends here."""


class SqlProxy:
    """Of one process of the broker, as ``calls.PointedProxy`` is."""

    def __init__(
        self, server: tuple[str, int], points: Points, process: Process, intended: Callable[[str], bool]
    ) -> None:
        self._server = server
        self._points = points
        self._process = process
        self._intended = intended
        self._idle = threading.Condition()
        self._passing = 0
        self.unintended: list[str] = []

    def settled(self) -> None:
        """Wait until no statement is on its way."""
        with self._idle:
            self._idle.wait_for(lambda: self._passing == 0, 30)

    def serve(self, client: socket.socket) -> None:
        """One session, until either side ends it."""
        with client, contextlib.suppress(OSError, Cut), socket.create_connection(self._server) as server:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.sendall(_exactly(client, _length(first := _exactly(client, 4)) - 4, first))
            self._answers(client, server, None)
            while self._process.alive:
                self._statement(client, server)

    def _statement(self, client: socket.socket, server: socket.socket) -> None:
        kind, message = _message(client)
        call = self._call(kind, message)
        with self._idle:
            self._passing += call is not None
        try:
            if call is not None and self._meet(f"{call} before"):
                raise Cut
            server.sendall(message)
            # Everything up to the message that the server answers at.
            while kind not in b"QSXp":
                kind, message = _message(client)
                server.sendall(message)
            if kind == b"X":
                raise Cut
            self._answers(client, server, call)
        finally:
            with self._idle:
                self._passing -= call is not None
                self._idle.notify_all()

    def _answers(self, client: socket.socket, server: socket.socket, call: str | None) -> None:
        """What the server says until it is ready again, or asks for something."""
        said = b""
        while True:
            kind, message = _message(server)
            said += message
            asks = kind == b"R" and struct.unpack("!I", message[5:9])[0] not in (0, 12)
            if asks:
                client.sendall(said)
                said = b""
                server.sendall(_message(client)[1])
            if kind == b"Z":
                break
        if call is not None and self._meet(f"{call} after"):
            raise Cut
        client.sendall(said)

    def _call(self, kind: bytes, message: bytes) -> str | None:
        if kind not in b"QP":
            return None
        text = message[5:].decode(errors="replace")
        statement = text if kind == b"Q" else text.split("\0")[1]
        call = self._points.numbered(f"call {named(statement)}")
        for attempt in _ATTEMPT.findall(text):
            if not self._intended(attempt):
                self.unintended.append(f"{call} of {attempt}")
        return call

    def _meet(self, point: str) -> bool:
        """Whether the session ends there."""
        fault = self._points.meet(point)
        if fault is Fault.HANG:
            self._points.stand()
        return fault in (Fault.CRASH, Fault.ERROR)


def _exactly(peer: socket.socket, count: int, before: bytes = b"") -> bytes:
    data = b""
    while len(data) < count:
        got = peer.recv(count - len(data))
        if not got:
            raise Cut
        data += got
    return before + data


def _length(field: bytes) -> int:
    length: int = struct.unpack("!I", field)[0]
    return length


def _message(peer: socket.socket) -> tuple[bytes, bytes]:
    """One message: its kind, and all of it."""
    head = _exactly(peer, 5)
    return head[:1], _exactly(peer, _length(head[1:]) - 4, head)


@contextmanager
def sql_proxy(proxy: SqlProxy) -> Iterator[str]:
    """Running; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
