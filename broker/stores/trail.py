"""The writing end of the audit chain: gives events their sequence, hash and MAC within a transaction.

The head (last sequence number and hash) is in memory, because one broker writes a ledger. It runs
ahead of the database only inside a transaction: :meth:`Trail.committed` or :meth:`Trail.rolled_back`
settles it, and nothing is acknowledged in between.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from broker.audit import chain
from broker.audit.event import AuditEvent
from broker.audit.record import encode
from broker.ports import KeyRing
from broker.stores.high_water import Marking
from broker.stores.queries import SQL

_Row = tuple[int, str, str, str, bytes, bytes, bytes, str]


class Head(NamedTuple):
    """Where the chain ends."""

    seq: int
    hash: bytes


class Trail:
    """Collects the records of one transaction, chained; writes them in one go before its COMMIT."""

    def __init__(self, keys: KeyRing, writer: str, head: Head) -> None:
        self._keys = keys
        self._writer = writer
        self._committed = head
        self._head = head
        self._pending: list[_Row] = []
        self._marking = Marking(keys)

    @property
    def committed_seq(self) -> int:
        """The last sequence number that is durable."""
        return self._committed.seq

    @property
    def next_seq(self) -> int:
        """The sequence number that the next event gets."""
        return self._head.seq + 1

    def append(self, event: AuditEvent, at_ms: int) -> int:
        """Chain one event; its sequence number. Raises TypeError if its data have no canonical form."""
        seq = self._head.seq + 1
        body = encode(event, seq=seq, at_ms=at_ms, writer=self._writer, prev=self._head.hash)
        digest = chain.link(self._head.hash, body)
        key_id, key = self._keys.current()
        mac = chain.record_mac(key, digest)
        self._pending.append((seq, event.tenant, event.holder, event.lease_id, body, digest, mac, key_id))
        self._head = Head(seq, digest)
        self._marking.saw(at_ms)
        return seq

    def mark(self) -> tuple[Head, int]:
        """Where to :meth:`rewind` to if what follows is refused."""
        return self._head, len(self._pending)

    def rewind(self, mark: tuple[Head, int]) -> None:
        """Forget what was appended since the mark."""
        self._head, kept = mark
        del self._pending[kept:]

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write the collected records and the new head into the open transaction."""
        if not self._pending:
            return
        connection.executemany(SQL["insert_audit"], self._pending)
        key_id, key = self._keys.current()
        seq, digest = self._head.seq, self._head.hash
        connection.execute(SQL["set_audit_head"], (seq, digest, chain.head_mac(key, seq, digest), key_id))
        self._marking.flush(connection)

    def committed(self) -> None:
        """The transaction is durable."""
        self._pending.clear()
        self._committed = self._head
        self._marking.committed()

    def rolled_back(self) -> None:
        """Nothing of the transaction remains: back to the committed head."""
        self._pending.clear()
        self._head = self._committed
        self._marking.rolled_back()
