"""An agent that will not let go: it logs in again and again, as fast as it can, and keeps what it gets."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Self

import psycopg

from broker.cli.demo.database import refusing_words
from broker.cli.demo.narrator import StepFailed

_THREADS = 2
# Each keeps this many sessions open; the oldest makes room, so that the login's limit of 20 is no reason to fail:
# a session that was closed counts until its server process has ended.
_KEPT = 4
# Neither a refusal of the login nor anything wrong: that limit all the same, a session that was ended before it began.
_PASSED_OVER = (
    "too many connections for role",
    "terminating connection due to administrator command",
    "server closed the connection unexpectedly",
)
_END_SECONDS = 10.0


class ReconnectLoop:
    """Threads that connect with one login while the ``with`` block runs; figures for the story to judge."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = psycopg.conninfo.make_conninfo(conninfo, connect_timeout=5)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=f"reconnect-{n}") for n in range(_THREADS)]
        self._kept: deque[psycopg.Connection[Any]] = deque()
        self._error: StepFailed | None = None
        self.accepted = 0
        self.refused = 0
        # When PostgreSQL last let it in, by time.perf_counter().
        self.last_accepted = 0.0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        for session in self._kept:
            session.close()

    def turned_away(self) -> int:
        """How often PostgreSQL refused it so far. Raises :class:`StepFailed` if the loop broke down."""
        if self._error is not None:
            raise self._error
        return self.refused

    def survivors(self) -> int:
        """How many of the sessions it kept still answer a query. Raises :class:`StepFailed` if the loop broke down."""
        if self._error is not None:
            raise self._error
        return sum(_answers(session) for session in tuple(self._kept))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                session = psycopg.connect(self._conninfo, autocommit=True)
                session.execute("SELECT 1")
            except psycopg.OperationalError as error:
                self._note(error)
            else:
                self.last_accepted = time.perf_counter()
                self.accepted += 1
                self._keep(session)

    def _note(self, error: psycopg.OperationalError) -> None:
        # A session that was ended between its login and its first query was not refused, and is not open either.
        if isinstance(error, psycopg.errors.AdminShutdown) or any(each in str(error) for each in _PASSED_OVER):
            return
        try:
            refusing_words(str(error))
        except StepFailed as unexpected:
            self._error = unexpected
            self._stop.set()
        self.refused += 1

    def _keep(self, session: psycopg.Connection[Any]) -> None:
        self._kept.append(session)
        if len(self._kept) > _THREADS * _KEPT:
            self._kept.popleft().close()


def _answers(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
