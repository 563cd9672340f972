"""The ledger in one SQLite file: the default store of a single broker.

The file is :mod:`broker.stores.ledger_file`'s, reading it :mod:`broker.stores.readers`'s; the store itself is
:mod:`broker.stores.ledger`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Self

from broker.ports.keys import KeyRing
from broker.stores.ballast import Ballast
from broker.stores.ledger import LedgerStore
from broker.stores.ledger_file import ProcessLock, connect_writer, prepare_file
from broker.stores.ledger_place import LedgerPlace
from broker.stores.migrate import migrate
from broker.stores.readers import Readers
from broker.stores.reading import Reading
from broker.stores.seal import RowSeal
from broker.stores.sqlite_database import SqliteWriting, unavailable


class SqliteStore(LedgerStore):
    """A :class:`broker.ports.ledger.Ledger`. Made by :meth:`open`, ended by :meth:`close`."""

    def __init__(
        self,
        lock: ProcessLock,
        connection: sqlite3.Connection,
        path: Path,
        keys: KeyRing,
        writer: str,
        *,
        keeps_texts: bool,
        ballast: Ballast | None = None,
    ) -> None:
        """Use :meth:`open`."""
        self._path = path
        self._lock = lock
        self._connection = connection
        super().__init__(SqliteWriting(connection, ballast), keys, writer, keeps_texts=keeps_texts)
        self._place = LedgerPlace(path)

    @classmethod
    async def open(
        cls, path: Path, keys: KeyRing, writer: str, *, keeps_texts: bool = True, ballast: Ballast | None = None
    ) -> Self:
        """Open the ledger at ``path``, made if absent, in the schema of this release.

        ``writer`` names this broker in the audit records; ``keeps_texts``: agents' prompts, tool calls and plans are
        kept, encrypted, beside their digests; ``ballast`` is given up where there is no room, also for the opening.
        Raises InvalidInput (CONFIG_INVALID) for a file
        or directory that others can reach, NotReady (STORE_UNAVAILABLE) if another broker has it, Tampered
        (SCHEMA_VERSION, AUDIT_CHAIN_BROKEN) for a ledger that is newer, or whose audit head is not ours.
        """
        prepare_file(path)
        lock = ProcessLock(path)
        try:
            if ballast is not None:
                ballast.restore()
            while True:
                try:
                    connection = _opened(path)
                    break
                except sqlite3.Error as error:
                    if ballast is None or not ballast.make_room(error):
                        raise
            lock.opened()
            try:
                return cls(lock, connection, path, keys, writer, keeps_texts=keeps_texts, ballast=ballast)
            except BaseException:
                connection.close()
                raise
        except BaseException as error:
            lock.release()
            # The second one: SQLite quotes from a damaged schema, and the module cannot read what it says.
            if isinstance(error, sqlite3.Error | UnicodeDecodeError):
                raise unavailable(error) from error
            raise

    async def displaced(self) -> str:
        """See LedgerStore.displaced."""
        return await asyncio.to_thread(self._place.displaced)

    def _reading(self, seal: RowSeal) -> Reading:
        return Readers(self._path, seal)

    def _let_go(self) -> None:
        self._lock.release()


def _opened(path: Path) -> sqlite3.Connection:
    """In the schema of this release. Raises sqlite3.Error, NotReady and Tampered."""
    connection = connect_writer(path)
    try:
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection
