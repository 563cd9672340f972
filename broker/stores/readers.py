"""Connections for reading, beside the writer.

Point reads (one row by its key) are answered on the event loop's own connection: about 20 microseconds
from the page cache, less than handing them to a thread costs. Everything that scans goes to a small
pool, inside one read transaction, so that its figures belong together and the loop never waits. What walks
through all that lives has a thread of its own, so that the ticks, which scan, never wait for a review.
WAL readers neither block the writer nor are blocked, and see every commit that was answered.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from broker.stores.database import Connection, closed
from broker.stores.ledger_file import connect_reader
from broker.stores.seal import RowSeal
from broker.stores.sqlite_database import SQLITE, unavailable
from broker.stores.view import View

THREADS = 2

T = TypeVar("T")


class Readers:
    """The event loop's connection, and threads with one each."""

    def __init__(self, path: Path, seal: RowSeal) -> None:
        self._path = path
        self._seal = seal
        self._own = View(connect_reader(path), SQLITE, seal)
        self._local = threading.local()
        self._opened: list[Connection] = [self._own.connection]
        self._closed = False
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ledger-reader")
        self._walker = ThreadPoolExecutor(1, thread_name_prefix="ledger-walker")

    async def point(self, read: Callable[[View], T]) -> T:
        """Answer at once, on the event loop. Raises NotReady (STORE_UNAVAILABLE, SHUTTING_DOWN)."""
        if self._closed:
            raise closed()
        try:
            return read(self._own)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise unavailable(error) from error

    async def scan(self, read: Callable[[View], T]) -> T:
        """Answer from a thread, in one snapshot. Raises NotReady (STORE_UNAVAILABLE, SHUTTING_DOWN)."""
        return await self._done(self._pool, read)

    async def walk(self, read: Callable[[View], T]) -> T:
        """See Reading.walk."""
        return await self._done(self._walker, read)

    async def _done(self, pool: ThreadPoolExecutor, read: Callable[[View], T]) -> T:
        if self._closed:
            raise closed()
        return await asyncio.get_running_loop().run_in_executor(pool, self._scan, read)

    def _scan(self, read: Callable[[View], T]) -> T:
        try:
            view = self._view()
            view.connection.execute("BEGIN")
            try:
                return read(view)
            finally:
                view.connection.execute("COMMIT")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise unavailable(error) from error

    def _view(self) -> View:
        view: View | None = getattr(self._local, "view", None)
        if view is None:
            view = self._local.view = View(connect_reader(self._path), SQLITE, self._seal)
            self._opened.append(view.connection)
        return view

    async def close(self) -> None:
        """Let running reads end, then close. Later ones are refused."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)
        await asyncio.to_thread(self._walker.shutdown)
        for connection in self._opened:
            connection.close()
