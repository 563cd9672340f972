"""Reading the audit trail of a ledger file, beside a running broker or from a copy.

For ``broker audit verify`` and ``broker audit show``, and for ``broker check``, which asks which deploy set was the
newest: opened read-only, read in portions, so that a trail
of any length is gone through in constant memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from broker.audit.record import Record, decode
from broker.audit.verify import Finding, FindKey, StoredHead, StoredRecord, verify
from broker.errors import InvalidInput, Reason, Tampered
from broker.ports import AcceptedDeploy
from broker.stores.migrate import version
from broker.stores.queries import SQL, migrations

_PORTION = 1_000
# The schema that began to remember them.
_WITH_DEPLOYS = 2


class AuditReader:
    """The audit trail in one ledger file. A context manager."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidInput (CONFIG_INVALID) if ``path`` is no ledger, Tampered (SCHEMA_VERSION) if it is newer."""
        self._path = path
        if not path.is_file():
            raise self._no_ledger("there is no such file")
        # A copy made while the broker ran needs its -wal file beside it; one without is complete in itself, and
        # is then read as it lies there, also from a read-only place.
        alone = not path.with_name(f"{path.name}-wal").exists()
        options = "mode=ro&immutable=1" if alone else "mode=ro"
        try:
            self._connection = sqlite3.connect(f"file:{quote(str(path))}?{options}", uri=True, isolation_level=None)
            self._connection.text_factory = _text
            found = version(self._connection)
        except sqlite3.Error as error:
            raise self._no_ledger(str(error)) from None
        if found > len(migrations()):
            raise Tampered(Reason.SCHEMA_VERSION, f"{path} has schema {found}, which is newer than this release.")

    def __enter__(self) -> Self:
        # One snapshot: head and records belong together although the broker goes on writing.
        self._connection.execute("BEGIN")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def accepted_deploy(self, tenant: str) -> AcceptedDeploy | None:
        """The newest signed deploy set of ``tenant``, as it is stored: its MAC is brokerd's to check."""
        if version(self._connection) < _WITH_DEPLOYS:
            return None
        row = self._connection.execute(SQL["accepted_deploy"], {"tenant": tenant}).fetchone()
        return None if row is None else AcceptedDeploy(int(row[0]), str(row[1]))

    def head(self) -> StoredHead | None:
        """Where the ledger says that its chain ends."""
        row = self._connection.execute(SQL["audit_head"]).fetchone()
        return None if row is None else StoredHead(*row)

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
        except sqlite3.DatabaseError:
            # A page of the file is damaged: row by row, what lies before it can still be told.
            return self._next(after)

    def _next(self, after: int) -> list[StoredRecord]:
        try:
            return self._fetch(after, 1)
        except sqlite3.DatabaseError as error:
            raise Tampered(
                Reason.AUDIT_CHAIN_BROKEN,
                f"{self._path} cannot be read after record {after}: {error}.",
                hint="The file itself is damaged there, not only what it says.",
                metadata={"after": str(after)},
            ) from None

    def _fetch(self, after: int, limit: int) -> list[StoredRecord]:
        rows = self._connection.execute(SQL["audit_rows"], {"after": after, "limit": limit})
        return [
            StoredRecord(seq, str(tenant), str(holder), str(lease), _blob(body), _blob(digest), _blob(mac), str(key_id))
            for seq, tenant, holder, lease, body, digest, mac, key_id in rows
        ]

    def _no_ledger(self, why: str) -> InvalidInput:
        return InvalidInput(
            Reason.CONFIG_INVALID,
            f"{self._path} cannot be read as a ledger: {why}.",
            hint="Name the ledger file of a broker (ledger.sqlite3 in its state directory), or a copy.",
            metadata={"path": str(self._path)},
        )


def _text(stored: bytes) -> str:
    """Text of a damaged row need not be UTF-8; what is wrong with it is for the verifier to say."""
    return stored.decode("utf-8", "replace")


def _blob(stored: object) -> bytes:
    """A damaged row may hold a value of another type in a BLOB column."""
    return stored if isinstance(stored, bytes) else str(stored).encode()
