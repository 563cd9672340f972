"""The ledger on a PostgreSQL server: the store of any number of brokers.

What is true of its sessions is in :mod:`broker.stores.postgres_connection`, how it is written in
:mod:`broker.stores.postgres_database`, read in :mod:`broker.stores.postgres_readers`; the store itself is
:mod:`broker.stores.ledger`.
"""

from __future__ import annotations

import asyncio
from typing import Self

import psycopg

from broker.ports import KeyRing
from broker.stores.ledger import LedgerStore
from broker.stores.postgres_clock import ServerClock
from broker.stores.postgres_connection import ServerAddress, connect
from broker.stores.postgres_database import POSTGRES, PostgresWriting
from broker.stores.postgres_migrate import check_version
from broker.stores.postgres_readers import PostgresReaders
from broker.stores.reading import Reading
from broker.stores.seal import RowSeal


class PostgresStore(LedgerStore):
    """A :class:`broker.ports.Ledger`. Made by :meth:`open`, ended by :meth:`close`."""

    def __init__(self, address: ServerAddress, keys: KeyRing, writing: PostgresWriting, *, keeps_texts: bool) -> None:
        """Use :meth:`open`."""
        self._address = address
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
            return cls(address, keys, writing, keeps_texts=keeps_texts)
        except psycopg.Error as error:
            raise POSTGRES.unavailable(error) from error

    @staticmethod
    def _open(address: ServerAddress, writer: str, clock: ServerClock) -> PostgresWriting:
        connection = connect(address, role="writer")
        try:
            check_version(connection)
            return PostgresWriting(address, writer, clock, connection)
        except BaseException:
            connection.close()
            raise

    def _reading(self, seal: RowSeal) -> Reading:
        return PostgresReaders(self._address, seal)
