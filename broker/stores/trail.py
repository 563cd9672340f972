"""The writing end of the audit chain: gives events their sequence, hash and MAC within a transaction.

The head (last sequence number and hash) is in memory, and read again whenever somebody else has written
(:meth:`Trail.resume`). It runs ahead of the database only inside a transaction: :meth:`Trail.committed` or
:meth:`Trail.rolled_back` settles it, and nothing is acknowledged in between.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any, NamedTuple

from broker.audit import chain
from broker.audit.event import AuditEvent
from broker.audit.record import encode
from broker.errors import Reason, Tampered
from broker.ports.keys import KeyRing
from broker.stores.high_water import Marking
from broker.stores.view import View

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
        last, prev = self._head
        seq = last + 1
        body = encode(event, seq=seq, at_ms=at_ms, writer=self._writer, prev=prev)
        digest = chain.link(prev, body)
        key_id, key = self._keys.current()
        mac = chain.record_mac(key, digest)
        self._pending.append((seq, event.tenant, event.holder, event.lease_id, body, digest, mac, key_id))
        self._head = Head(seq, digest)
        self._marking.saw(at_ms)
        return seq

    def saw(self, at_ms: int) -> None:
        """A time that will be durable, with no event that has it."""
        self._marking.saw(at_ms)

    def mark(self) -> tuple[Head, int]:
        """Where to :meth:`rewind` to if what follows is refused."""
        return self._head, len(self._pending)

    def rewind(self, mark: tuple[Head, int]) -> None:
        """Forget what was appended since the mark."""
        self._head, kept = mark
        del self._pending[kept:]

    def resume(self, view: View) -> None:
        """Go on from where the chain in the database ends. Raises Tampered (AUDIT_CHAIN_BROKEN) where that is not ours,
        (ROW_MAC_MISMATCH) where it bears a key that is not known.

        Nor is a chain that does not hold what this writer has committed: a database that was put back to an older
        state, or a standby that was promoted without the last transactions.
        """
        known = self._committed
        *ends, found = view.row("chain_end", (known.seq,))
        head = _head(ends, self._keys)
        if known.seq and found != known.hash:
            raise broken(f"its audit chain has lost record {known.seq}, which was committed")
        self._committed = self._head = head

    def flush(self, view: View) -> None:
        """Write the collected records and the new head into the open transaction."""
        if not self._pending:
            self._marking.flush(view)
            return
        view.connection.executemany(view.sql["insert_audit"], self._pending)
        key_id, key = self._keys.current()
        seq, digest = self._head.seq, self._head.hash
        view.connection.execute(view.sql["set_audit_head"], (seq, digest, chain.head_mac(key, seq, digest), key_id))
        self._marking.flush(view)

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


def read_head(view: View, keys: KeyRing) -> Head:
    """Where the chain goes on. A head that is not ours is not continued: that would hide what was done to it."""
    *ends, _ = view.row("chain_end", (0,))
    return _head(ends, keys)


def _head(ends: Sequence[Any], keys: KeyRing) -> Head:
    seq, digest, mac, key_id, *last = ends
    if seq is None and last[0] is None:
        return Head(0, chain.GENESIS)
    if seq is None or last[0] is None:
        raise broken("its audit records and their head do not belong together")
    if not hmac.compare_digest(chain.head_mac(keys.find(key_id), seq, digest), mac):
        raise broken("the head of its audit chain is not ours")
    if tuple(last) != (seq, digest):
        raise broken(f"its audit chain should end at record {seq} and does not")
    return Head(seq, digest)


def broken(why: str) -> Tampered:
    """What is raised where the chain is not continued."""
    return Tampered(
        Reason.AUDIT_CHAIN_BROKEN,
        f"the ledger cannot be trusted: {why}.",
        hint="Run broker audit verify on a copy of it.",
    )
