"""A wire to a server that can be cut in the middle of a word, or go on carrying nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from enum import Enum

from tests.patience import PATIENCE

_SYNC = b"S\x00\x00\x00\x04"  # of PostgreSQL's extended protocol: answer all of this


class Cut(Enum):
    """What becomes of what the client sends when the word comes."""

    BEFORE = "the server does not hear it"
    AFTER = "the server hears it, and its answer is lost"


class _Session:
    """A client, the server as it sees it, and whether anything is carried between them any more."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.silent = False
        self.answered = threading.Event()  # something came back that was not passed on


class Wire:
    """Passes bytes on, on loopback. ``word``: when the client sends it, what is named happens, once."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._word, self._cut = b"", Cut.BEFORE
        self.refusing = False
        self._stays_cut = self._silently = False
        self._act: Callable[[int], object] | None = None
        self._stop: tuple[threading.Event, threading.Event] | None = None
        self._open: list[socket.socket] = []
        self._sessions: list[_Session] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at(self, word: bytes, how: Cut, *, stays_cut: bool = False) -> None:
        """Once. ``stays_cut``: from then on nobody is let through."""
        self._word, self._cut, self._stays_cut, self._silently = word, how, stays_cut, False

    def silent_at(self, word: bytes, how: Cut) -> None:
        """Once, and for the session that says it: whatever is sent is acknowledged, and nothing arrives any more."""
        self._word, self._cut, self._silently = word, how, True

    def lead_to(self, host: str, port: int) -> None:
        """Who connects from now on comes to another server."""
        self._server = (host, port)

    def silence(self) -> None:
        """Nothing is carried any more for who is connected, both ways; who connects from now on is served."""
        for each in self._sessions:
            each.silent = True

    def stop_at(self, word: bytes) -> tuple[threading.Event, threading.Event]:
        """Once, in the middle of the word: set when it has come to that, and to be set for the rest to be passed on."""
        self._word, self._stop = word, (threading.Event(), threading.Event())
        return self._stop

    def act_at(self, word: bytes, act: Callable[[int], object]) -> None:
        """Do ``act``, once, before the word is passed on; it is told from which port the server is spoken to."""
        self._word, self._act = word, act

    def close(self) -> None:
        for each in (self._listener, *self._open):
            _end(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refusing:
                    _end(client)
                    continue
                server = socket.create_connection(self._server)
                self._open += [client, server]
                session = _Session(client, server)
                self._sessions.append(session)
                threading.Thread(target=self._up, args=(session,), daemon=True).start()
                threading.Thread(target=self._down, args=(session,), daemon=True).start()

    def _up(self, session: _Session) -> None:
        client, server = session.client, session.server
        for data in _received(client):
            if session.silent:
                continue
            if (word := self._word) and word in data:
                self._word = b""
                if self._act is not None:
                    self._act(server.getsockname()[1])
                    self._act = None
                    server.sendall(data)
                    continue
                if self._stop is not None:
                    stopped, goes_on = self._stop
                    half, self._stop = data.index(word) + len(word) // 2, None
                    server.sendall(data[:half])
                    stopped.set()
                    goes_on.wait(PATIENCE)
                    with contextlib.suppress(OSError):
                        server.sendall(data[half:])
                    continue
                if self._silently:
                    session.silent = True
                    if self._cut is Cut.AFTER:
                        server.sendall(data + _rest(client, data, word))
                    continue
                self.refusing = self._stays_cut
                if self._cut is Cut.AFTER:
                    session.silent = True
                    server.sendall(data + _rest(client, data, word))
                    session.answered.wait(PATIENCE)
                _end(client)
                break
            with contextlib.suppress(OSError):
                server.sendall(data)
        _end(server)

    def _down(self, session: _Session) -> None:
        client, server = session.client, session.server
        for data in _received(server):
            if session.silent:
                session.answered.set()
                continue
            try:
                client.sendall(data)
            except OSError:
                break
        _end(client)


def _rest(client: socket.socket, sent: bytes, word: bytes) -> bytes:
    """What was sent with the word and comes in pieces of its own: a server that has half of it waits for the other."""
    rest = b""
    client.settimeout(PATIENCE)
    with contextlib.suppress(OSError):
        while not _is_whole(sent + rest, word) and (data := client.recv(65536)):
            rest += data
    client.settimeout(None)
    return rest


def _is_whole(sent: bytes, word: bytes) -> bool:
    """Whether the client's turn is over: a Sync comes after it."""
    return _SYNC in sent[sent.rindex(word) :]


def _received(end: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := end.recv(65536):
            yield data


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
