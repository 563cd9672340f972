"""Rows of ``suspensions``, as the database keeps them and as the port shows them; see ``rows.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import ClassVar

from broker.stores.rows import Raw
from broker.stores.seal import RowSeal
from broker.stores.times import from_ms, optional_at
from broker.stores.transaction import Transaction
from broker.stores.view import View
from broker.suspension.suspension import Kind, Lift, Suspension


@dataclass(slots=True)
class SuspensionRow:
    """A row of ``suspensions``. ``trusted`` False: it fails its MAC, and counts as in force for everybody."""

    TABLE: ClassVar[str] = "suspensions"

    tenant: str
    id: str
    kind: str
    value: str
    reason: str
    author: str
    author_name: str
    request_id: str
    request_digest: str
    created_at: int
    until: int | None
    first_by: str | None = None
    first_name: str | None = None
    first_reason: str | None = None
    first_request_id: str | None = None
    first_at: int | None = None
    lifted_by: str | None = None
    lifted_name: str | None = None
    lifted_reason: str | None = None
    lifted_request_id: str | None = None
    lifted_at: int | None = None
    trusted: bool = True


_STORED = [field.name for field in fields(SuspensionRow) if field.name != "trusted"]
_FIXED = _STORED.index("first_by")
WIDTH = len(_STORED) + 2
_values = attrgetter(*_STORED)


def read_suspension(raw: Raw, seal: RowSeal) -> SuspensionRow:
    """The suspension in a raw row, its MAC checked."""
    values = raw[: WIDTH - 2]
    row = SuspensionRow(*values)
    row.trusted = seal.holds(row.TABLE, values, raw[-2], raw[-1])
    return row


def insert(tx: Transaction, row: SuspensionRow) -> None:
    """Add a suspension."""
    values = _values(row)
    tx.write("insert_suspension", (*values, *tx.seal.make(row.TABLE, values)))


def update(tx: Transaction, row: SuspensionRow) -> None:
    """Store who has lifted it. Two people may lift what fails its MAC; it bears ours from then on."""
    values = _values(row)
    tx.write("update_suspension", (*values[_FIXED:], *tx.seal.make(row.TABLE, values), row.tenant, row.id))


def unlifted(view: View, tenant: str) -> Sequence[SuspensionRow]:
    """What nobody has lifted, oldest first: in force, but for what has ended by its time."""
    return [read_suspension(raw, view.seal) for raw in view.all("suspensions_unlifted", {"tenant": tenant})]


def every_unlifted(view: View) -> Sequence[Suspension]:
    """The same, of every tenant, as the port shows them."""
    return [suspension_of(read_suspension(raw, view.seal)) for raw in view.all("suspensions_unlifted_everywhere", {})]


def suspension_of(row: SuspensionRow) -> Suspension:
    """The port's view. Whatever may stand in a damaged row, this raises nothing."""
    if not row.trusted:
        return Suspension(
            *(row.tenant, row.id, _kind(row.kind), row.value, row.reason, row.author, row.author_name),
            created_at=_time(row.created_at),
            until=None,
            first=None,
            lifted=None,
            trusted=False,
        )
    return Suspension(
        *(row.tenant, row.id, Kind(row.kind), row.value, row.reason, row.author, row.author_name),
        created_at=from_ms(row.created_at),
        until=optional_at(row.until),
        first=_lift(row.first_by, row.first_name, row.first_reason, row.first_at),
        lifted=_lift(row.lifted_by, row.lifted_name, row.lifted_reason, row.lifted_at),
    )


def _lift(by: str | None, name: str | None, reason: str | None, at: int | None) -> Lift | None:
    return None if by is None or at is None else Lift(by, name or "", reason or "", from_ms(at))


def _kind(text: str) -> Kind:
    return Kind(text) if text in Kind.__members__ else Kind.EVERYTHING


def _time(ms: int) -> datetime:
    # 9999-12-31T23:59:59Z, the last time that a datetime can say.
    return from_ms(min(max(ms, 0), 253_402_300_799_000))
