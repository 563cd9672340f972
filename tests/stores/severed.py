"""A way to a PostgreSQL server that ends at the n-th message, whichever session it is of: by a reset, or in silence.

Counted are the messages of the protocol, not pieces of TCP, so that whoever counts up comes past every place at which
a conversation can break off.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from enum import Enum

# SO_LINGER of no seconds: a close is a reset.
_RESET = struct.pack("ii", 1, 0)
_LENGTH = 4
# What is sent without a type is the first message of a session, and what asks for TLS before it: by these codes.
_UNTYPED_CODES = {80877103, 80877104}


class Towards(Enum):
    """Which messages are counted."""

    SERVER = "server"
    CLIENT = "client"


class How(Enum):
    """What becomes of the session at the n-th message, which does not arrive."""

    RESET = "reset at both ends"
    HALF = "half of it arrives; reset at both ends"
    SILENCE = "nothing arrives any more, in either direction, and nobody hears of an end"


class Severed:
    """Passes messages on, on loopback."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._lock = threading.Lock()
        self._left, self._towards, self._how = 0, Towards.SERVER, How.RESET
        self._silent: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name="severed").start()

    def at(self, number: int, towards: Towards, how: How) -> None:
        """From now on count; the ``number``-th message, from 1, is the one that does not arrive. Once."""
        with self._lock:
            self._left, self._towards, self._how = number, towards, how

    def calm(self) -> bool:
        """Count no more. Whether it has come to the message."""
        with self._lock:
            came, self._left = self._left == 0, 0
            for end in self._silent:  # whoever was left alone in silence hears of the end
                _reset(end)
            self._silent.clear()
            return came

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._open):
            _reset(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {client, server}
                # Whether the server's next byte is its answer to the question for TLS, which has no form.
                asked = threading.Event()
                for source, target, towards in ((client, server, Towards.SERVER), (server, client, Towards.CLIENT)):
                    arguments = (source, target, towards, asked)
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True, name="severed").start()

    def _pass_on(self, source: socket.socket, target: socket.socket, towards: Towards, asked: threading.Event) -> None:
        try:
            for message in _messages(source, towards, asked):
                if not self._passes(message, source, target, towards):
                    return
        except OSError:
            pass
        with self._lock:
            if source in self._silent:
                return
        for end in (source, target):
            _reset(end)
            self._open.discard(end)

    def _passes(self, message: bytes, source: socket.socket, target: socket.socket, towards: Towards) -> bool:
        with self._lock:
            if source in self._silent:
                return True  # and does not arrive
            counted = self._left > 0 and towards is self._towards
            self._left -= counted
            ends = counted and self._left == 0
            if ends and self._how is How.SILENCE:
                self._silent |= {source, target}
                return True
        if ends:
            if self._how is How.HALF:
                target.sendall(message[: len(message) // 2])
            _reset(source)
            _reset(target)
            self._open -= {source, target}
            return False
        target.sendall(message)
        return True


def _messages(source: socket.socket, towards: Towards, asked: threading.Event) -> Iterator[bytes]:
    first, held = towards is Towards.SERVER, bytearray()

    def exactly(size: int) -> bytes:
        while len(held) < size:
            if not (more := source.recv(65536)):
                raise ConnectionError
            held.extend(more)
        taken = bytes(held[:size])
        del held[:size]
        return taken

    while True:
        head = exactly(_LENGTH if first else 1)
        if towards is Towards.CLIENT and asked.is_set():
            asked.clear()
            yield head
            continue
        if not first:
            head += exactly(_LENGTH)
        (length,) = struct.unpack(">I", head[-_LENGTH:])
        body = exactly(length - _LENGTH)
        if first and struct.unpack(">I", body[:_LENGTH])[0] in _UNTYPED_CODES:
            asked.set()
        else:
            first = False
        yield head + body


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RD)  # for the thread that reads it; the other end hears nothing of that
    end.close()
