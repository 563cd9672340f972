"""Rows of ``upstream_orphans``, as the database keeps them and as the port shows them; see ``rows.py``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import ClassVar

import orjson

from broker.ports.orphans import Orphan, OrphanEnd, OrphanWhy
from broker.scope.canonical import canonical_json
from broker.stores.rows import Raw
from broker.stores.seal import RowSeal
from broker.stores.times import from_ms, optional_at, to_ms
from broker.stores.transaction import Transaction


@dataclass(slots=True)
class OrphanRow:
    """A row of ``upstream_orphans``. ``seen_epoch`` is the epoch that was read: what an update compares."""

    TABLE: ClassVar[str] = "upstream_orphans"

    tenant: str
    id: str
    connector: str
    name: str
    attempt_id: str
    handle: str
    why: str
    created_at: int
    expires_at: int
    found_at: int
    due_at: int | None
    ended_at: int | None
    outcome: str | None
    epoch: int
    failures: int
    last_error: str
    stuck: int
    trusted: bool = True
    seen_epoch: int = 0


_STORED = [field.name for field in fields(OrphanRow) if field.name not in ("trusted", "seen_epoch")]
_FIXED = _STORED.index("due_at")
_values = attrgetter(*_STORED)


def read_orphan(raw: Raw, seal: RowSeal) -> OrphanRow:
    """The orphan in a raw row, its MAC checked."""
    values = raw[: len(_STORED)]
    row = OrphanRow(*values)
    row.trusted = seal.holds(row.TABLE, values, raw[-2], raw[-1])
    row.seen_epoch = row.epoch
    return row


def insert(tx: Transaction, row: OrphanRow) -> None:
    """Add an orphan."""
    values = _values(row)
    tx.write("insert_orphan", (*values, *tx.seal.make(row.TABLE, values)))


def update(tx: Transaction, row: OrphanRow, held_by: str | None = None) -> bool:
    """Store what may change of it, and who has it in hand, if its epoch is still the one that was read."""
    values = _values(row)
    key = (row.tenant, row.id, row.seen_epoch)
    return tx.run("update_orphan", (*values[_FIXED:], *tx.seal.make(row.TABLE, values), held_by, *key)) == 1


def row_of(orphan: Orphan) -> OrphanRow:
    """As it is first kept: due at once."""
    return OrphanRow(
        tenant=orphan.tenant,
        id=orphan.id,
        connector=orphan.connector,
        name=orphan.name,
        attempt_id=orphan.attempt_id,
        handle=canonical_json(orphan.handle).decode(),
        why=orphan.why.value,
        created_at=to_ms(orphan.created_at),
        expires_at=to_ms(orphan.expires_at),
        found_at=to_ms(orphan.found_at),
        due_at=to_ms(orphan.found_at),
        ended_at=None,
        outcome=None,
        epoch=1,
        failures=0,
        last_error="",
        stuck=0,
    )


def orphan_of(row: OrphanRow) -> Orphan:
    """The port's view of a row that is trusted."""
    return Orphan(
        tenant=row.tenant,
        id=row.id,
        connector=row.connector,
        name=row.name,
        attempt_id=row.attempt_id,
        handle=orjson.loads(row.handle),
        why=OrphanWhy(row.why),
        created_at=from_ms(row.created_at),
        expires_at=from_ms(row.expires_at),
        found_at=from_ms(row.found_at),
        due_at=optional_at(row.due_at),
        ended_at=optional_at(row.ended_at),
        outcome=None if row.outcome is None else OrphanEnd(row.outcome),
        epoch=row.epoch,
        failures=row.failures,
        last_error=row.last_error,
        stuck=bool(row.stuck),
    )
