"""The ledger on a PostgreSQL server: the store of any number of brokers.

What is true of its sessions is in :mod:`broker.stores.postgres_connection`, how it is written in
:mod:`broker.stores.postgres_database`, read in :mod:`broker.stores.postgres_readers`; the store itself is
:mod:`broker.stores.ledger`.
"""

from __future__ import annotations

import asyncio
from typing import Self

import psycopg

from broker.ports.keys import KeyRing
from broker.stores.ledger import LedgerStore
from broker.stores.others_commits import OthersCommits
from broker.stores.postgres_clock import ServerClock
from broker.stores.postgres_connection import PATIENCE, ServerAddress, connect
from broker.stores.postgres_database import POSTGRES, PostgresWriting
from broker.stores.postgres_hearing import hear
from broker.stores.postgres_migrate import check_version
from broker.stores.postgres_readers import PostgresReaders
from broker.stores.reading import Reading
from broker.stores.seal import RowSeal


class PostgresStore(LedgerStore):
    """A :class:`broker.ports.ledger.Ledger`. Made by :meth:`open`, ended by :meth:`close`."""

    shared = True

    def __init__(self, address: ServerAddress, keys: KeyRing, writing: PostgresWriting, *, keeps_texts: bool) -> None:
        """Use :meth:`open`."""
        self._address = address
        self._listening: list[asyncio.Task[None]] = []
        super().__init__(writing, keys, writing.writer, keeps_texts=keeps_texts)

    @classmethod
    async def open(
        cls, address: ServerAddress, keys: KeyRing, writer: str, clock: ServerClock, *, keeps_texts: bool = True
    ) -> Self:
        """The ledger at ``address``, which ``broker migrate`` has made; ``clock`` follows the server from now on.

        ``writer`` names this broker in the audit records, and is new each time. Raises NotReady (STORE_UNAVAILABLE)
        where the server cannot be reached or would not keep what it has committed, Tampered (SCHEMA_VERSION,
        AUDIT_CHAIN_BROKEN) for a schema that is not this release's, or an audit head that is not ours.
        """
        try:
            writing = await asyncio.to_thread(cls._open, address, writer, clock)
            store = cls(address, keys, writing, keeps_texts=keeps_texts)
        except psycopg.Error as error:
            raise POSTGRES.refused(error, address) from error
        store._listen()
        return store

    async def close(self) -> None:
        """See LeaseStore.close. Idempotent."""
        for each in self._listening:
            each.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        await super().close()

    def _listen(self) -> None:
        """Have whoever waits for a change hear of the others' commits, too."""
        writing = self._on_server()
        others = OthersCommits(self._end_of_trail, self._others_committed)
        self._listening = [
            asyncio.create_task(others.run(), name="ledger: others' commits"),
            asyncio.create_task(
                hear(self._address, others.wake, lambda: writing.connection.process), name="ledger: hearing"
            ),
        ]

    def _on_server(self) -> PostgresWriting:
        writing = self._writing_end
        assert isinstance(writing, PostgresWriting)  # noqa: S101 - made here
        return writing

    async def _end_of_trail(self) -> int:
        row = await self._readers.point(lambda view: view.one("audit_head", {}))
        return 0 if row is None else int(row[0])

    def _others_committed(self, head: int) -> None:
        # What was read may be older than what this one has committed meanwhile.
        self._committed(max(head, self._head))

    @staticmethod
    def _open(address: ServerAddress, writer: str, clock: ServerClock) -> PostgresWriting:
        connection = connect(address, role="writer", patience=PATIENCE)
        try:
            check_version(connection)
            return PostgresWriting(address, writer, clock, connection)
        except BaseException:
            connection.close()
            raise

    def _reading(self, seal: RowSeal) -> Reading:
        writing = self._on_server()
        return PostgresReaders(self._address, seal, lambda: writing.written_through)
