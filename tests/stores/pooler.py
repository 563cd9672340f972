"""What a pooler in transaction mode does, as PgBouncer: who asks gets a session of the server's for one transaction.

It passes on what the server and its clients say, without looking at more of it than where a transaction ends. A client
that logs in brings a session, which is everybody's from then on, and is told a process number that is nobody's.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

_IDLE, _READY, _KEY = b"I", b"Z", b"K"


class TransactionPooler:
    """Listens on a port of loopback until it is closed."""

    def __init__(self, host: str, port: int, *, pinned: bool = False) -> None:
        """``pinned``: each client keeps the session that it brought, as in session mode."""
        self._server, self._pinned = (host, port), pinned
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._free: list[socket.socket] = []
        self._some = threading.Condition()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Hang up on everybody."""
        self._listening.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
                self._open += [client, server]
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, ConnectionError):
            _log_in(client, server)
            if not self._pinned:
                self._give_back(server, new=True)
            while asked := client.recv(65536):
                if not self._pinned:
                    server = self._take()
                _transaction(client, server, asked)
                if not self._pinned:
                    self._give_back(server)

    def _take(self) -> socket.socket:
        """The one that was given back last."""
        with self._some:
            while not self._free:
                self._some.wait()
            return self._free.pop()

    def _give_back(self, server: socket.socket, *, new: bool = False) -> None:
        with self._some:
            self._free.insert(0 if new else len(self._free), server)
            self._some.notify()


def _log_in(client: socket.socket, server: socket.socket) -> None:
    """The client's first message has no type; what follows until the server is ready is between the two."""
    while len(first := client.recv(65536)) == 8:  # asks for encryption
        client.sendall(b"N")
    server.sendall(first)
    while True:
        kind, body = _message(server)
        if kind == _KEY:
            body = struct.pack("!I", 7) + body[4:]
        client.sendall(kind + struct.pack("!I", len(body) + 4) + body)
        if kind == _READY:
            return
        if kind == b"R" and struct.unpack("!I", body[:4])[0] not in (0, 12):  # it has to answer
            server.sendall(client.recv(65536))


def _transaction(client: socket.socket, server: socket.socket, asked: bytes) -> None:
    """Until the server says that it is idle, and everything that was sent was answered."""
    while True:
        server.sendall(asked)
        while True:
            kind, body = _message(server)
            client.sendall(kind + struct.pack("!I", len(body) + 4) + body)
            if kind == _READY:
                break
        if body == _IDLE:
            return
        asked = client.recv(65536)
        if not asked:
            raise ConnectionError


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(source, 5)
    return head[:1], _exactly(source, struct.unpack("!I", head[1:])[0] - 4)


def _exactly(source: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = source.recv(count - len(found))
        if not more:
            raise ConnectionError
        found += more
    return found
