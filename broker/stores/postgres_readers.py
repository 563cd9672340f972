"""Sessions for reading, beside the writer: a few for points, a few for scans, one for walks; none waits for another's.

All read the server that is written to, so that every commit that was answered is seen: where the writer had to look for
a server anew, so do they, for the one that they are connected to may be a primary of before; and while it looks for one
that is not read-only, nothing is read. A session that was lost while idle is replaced, and the read done again: once,
for it changed nothing. A server that makes those wait who try for it is not tried for again at once, so that the others
who wait for a thread are told soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

import psycopg

from broker.stores.database import closed
from broker.stores.postgres_connection import PATIENCE, PostgresConnection, ServerAddress, connect
from broker.stores.postgres_database import POSTGRES
from broker.stores.seal import RowSeal
from broker.stores.view import View

POINTS, SCANS = 4, 2
# For so long (seconds) the answer to a scan is waited for: the largest ledger's figures take a few.
_SCAN_PATIENCE = 60.0
# For so long nobody tries for a server that let somebody wait for as long, in vain. What refuses at once, or has ended
# one session, may be tried at once.
_PAUSE = 1.0

T = TypeVar("T")


class PostgresReaders:
    """A :class:`broker.stores.reading.Reading`."""

    def __init__(self, address: ServerAddress, seal: RowSeal, writer: Callable[[], PostgresConnection | None]) -> None:
        """``writer``: see PostgresWriting.written_through."""
        self._address, self._seal, self._writer = address, seal, writer
        self._local = threading.local()
        self._opened: set[PostgresConnection] = set()
        self._closed = False
        self._again = 0.0
        self._points = ThreadPoolExecutor(POINTS, thread_name_prefix="ledger-point")
        self._scans = ThreadPoolExecutor(SCANS, thread_name_prefix="ledger-scan")
        self._walks = ThreadPoolExecutor(1, thread_name_prefix="ledger-walk")

    async def point(self, read: Callable[[View], T]) -> T:
        """See Reading.point."""
        return await self._done(self._points, read, PATIENCE)

    async def scan(self, read: Callable[[View], T]) -> T:
        """See Reading.scan."""
        return await self._done(self._scans, lambda view: _in_one_snapshot(view, read), _SCAN_PATIENCE)

    async def walk(self, read: Callable[[View], T]) -> T:
        """See Reading.walk."""
        return await self._done(self._walks, lambda view: _in_one_snapshot(view, read), _SCAN_PATIENCE)

    async def _done(self, pool: ThreadPoolExecutor, read: Callable[[View], T], patience: float) -> T:
        if self._closed:
            raise closed()
        return await asyncio.get_running_loop().run_in_executor(pool, self._read, read, patience)

    def _read(self, read: Callable[[View], T], patience: float) -> T:
        try:
            view = self._view(patience)
            try:
                return read(view)
            except psycopg.OperationalError:
                if not _connection_of(view).lost:
                    raise
            return read(self._view(patience))
        except psycopg.Error as error:
            raise POSTGRES.unavailable(error) from error

    def _view(self, patience: float) -> View:
        """This thread's own, whose session is one of a pool with one patience."""
        view: View | None = getattr(self._local, "view", None)
        writer = self._writer()
        if writer is None:
            raise psycopg.OperationalError("the server is read-only, and another one may be written to by now")
        if view is not None and (_connection_of(view).lost or self._local.beside is not writer):
            self._opened.discard(_connection_of(view))
            _connection_of(view).close()
            view = self._local.view = None
        if view is None:
            connection = self._connected(patience)
            view = self._local.view = View(connection, POSTGRES, self._seal)
            self._local.beside = writer
            self._opened.add(connection)
        return view

    def _connected(self, patience: float) -> PostgresConnection:
        begun = monotonic()
        if begun < self._again:
            raise psycopg.OperationalError("the server could not be reached a moment ago")
        try:
            return connect(self._address, role="reader", patience=patience)
        except psycopg.Error:
            if monotonic() - begun > _PAUSE:
                self._again = monotonic() + _PAUSE
            raise

    async def close(self) -> None:
        """See Reading.close."""
        self._closed = True
        await asyncio.to_thread(self._points.shutdown)
        await asyncio.to_thread(self._scans.shutdown)
        await asyncio.to_thread(self._walks.shutdown)
        for connection in self._opened:
            connection.close()


def _connection_of(view: View) -> PostgresConnection:
    assert isinstance(view.connection, PostgresConnection)  # noqa: S101 - made here
    return view.connection


def _in_one_snapshot(view: View, read: Callable[[View], T]) -> T:
    _connection_of(view).put_off("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        found = read(view)
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            view.connection.execute("ROLLBACK")
        raise
    view.connection.execute("COMMIT")
    return found
