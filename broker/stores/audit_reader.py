"""Reading the audit trail of a ledger, beside a running broker or from a copy.

For ``broker audit verify`` and ``broker audit show``, and for ``broker check``, which asks which deploy set was the
newest: opened read-only, read in portions, so that a trail
of any length is gone through in constant memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from broker.audit.record import Record, decode
from broker.audit.verify import Finding, FindKey, StoredHead, StoredRecord, verify
from broker.errors import Reason, Tampered
from broker.ports.deploys import AcceptedDeploy
from broker.stores.offline import Offline, Where, open_offline
from broker.stores.queries import migrations
from broker.stores.schema import missing

_PORTION = 1_000
# The schema that began to remember them.
_WITH_DEPLOYS = 2


class AuditReader:
    """The audit trail in one ledger. A context manager."""

    def __init__(self, where: Where | Offline) -> None:
        """Raises InvalidInput (CONFIG_INVALID) if there is no ledger, Tampered (SCHEMA_VERSION) if it is newer."""
        self._ledger = open_offline(where)
        self.shown = self._ledger.shown
        try:
            missing(self._ledger.schema, migrations())
        except Tampered:
            self._ledger.close()
            raise

    def __enter__(self) -> Self:
        # In one snapshot, since it was opened: head and records belong together although the broker goes on writing.
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ledger.close()

    def accepted_deploy(self, tenant: str) -> AcceptedDeploy | None:
        """The newest signed deploy set of ``tenant``, as it is stored: its MAC is brokerd's to check."""
        if self._ledger.schema.version < _WITH_DEPLOYS:
            return None
        rows = self._ledger.fetch("accepted_deploy", {"tenant": tenant})
        return AcceptedDeploy(int(rows[0][0]), str(rows[0][1])) if rows else None

    def head(self) -> StoredHead | None:
        """Where the ledger says that its chain ends."""
        rows = self._ledger.fetch("audit_head")
        return StoredHead(*rows[0]) if rows else None

    def rows(self, after: int = 0) -> Iterator[StoredRecord]:
        """The stored rows with a sequence above ``after``, ascending, exactly as they are."""
        while portion := self._portion(after):
            yield from portion
            after = portion[-1].seq

    def records(self, after: int = 0) -> Iterator[Record]:
        """The same, decoded. Raises Tampered (AUDIT_CHAIN_BROKEN) at a record that is none any more."""
        return (decode(row.body) for row in self.rows(after))

    def verify(self, find_key: FindKey | None = None) -> Iterator[Finding]:
        """Every damage of the trail, with its place; nothing if it is whole. Without keys, MACs are not checked."""
        return verify(self.rows(), self.head(), find_key)

    def _portion(self, after: int) -> list[StoredRecord]:
        try:
            return self._fetch(after, _PORTION)
        except self._ledger.errors:
            # A page of the file is damaged: row by row, what lies before it can still be told.
            return self._next(after)

    def _next(self, after: int) -> list[StoredRecord]:
        try:
            return self._fetch(after, 1)
        except self._ledger.errors as error:
            raise Tampered(
                Reason.AUDIT_CHAIN_BROKEN,
                f"{self.shown} cannot be read after record {after}: {error}.",
                hint="The file itself is damaged there, not only what it says.",
                metadata={"after": str(after)},
            ) from None

    def _fetch(self, after: int, limit: int) -> list[StoredRecord]:
        rows = self._ledger.fetch("audit_rows", {"after": after, "limit": limit})
        return [
            StoredRecord(seq, str(tenant), str(holder), str(lease), _blob(body), _blob(digest), _blob(mac), str(key_id))
            for seq, tenant, holder, lease, body, digest, mac, key_id in rows
        ]


def _blob(stored: object) -> bytes:
    """A damaged row may hold a value of another type in a BLOB column."""
    return stored if isinstance(stored, bytes) else str(stored).encode()
