"""Rows of break-glass: uses, overrides, batches and codes, by the rules of :mod:`broker.stores.rows`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, ClassVar, TypeVar

import orjson

from broker.breakglass.codes import Batch, KeptCode
from broker.breakglass.reviews import Findings, Use
from broker.scope.canonical import canonical_json
from broker.stores.rows import Raw
from broker.stores.seal import RowSeal, tampered
from broker.stores.times import from_ms, optional_at
from broker.stores.transaction import Transaction


@dataclass(slots=True)
class UseRow:
    """A row of ``break_glass_uses``."""

    TABLE: ClassVar[str] = "break_glass_uses"
    FIXED: ClassVar[str] = "ended_at"  # the first column that may change
    KEY: ClassVar[str] = "lease_id"
    STORED: ClassVar[tuple[str, str]] = ("insert_use", "update_use")

    tenant: str
    lease_id: str
    task_id: str
    template: str
    person: str
    person_name: str
    for_agent: str
    owner: str
    groups: str
    reason: str
    incident: str
    how: str
    proof: str
    code_id: str
    request_id: str
    told: str
    overrode: str
    created_at: int
    review_due: int
    ended_at: int | None = None
    void: int = 0
    overdue_at: int | None = None
    reviewer: str | None = None
    reviewer_name: str | None = None
    review_request_id: str | None = None
    findings: str | None = None
    review_proof: str | None = None
    reviewed_at: int | None = None


@dataclass(slots=True)
class OverrideRow:
    """A row of ``break_glass_overrides``."""

    TABLE: ClassVar[str] = "break_glass_overrides"
    FIXED: ClassVar[str] = "used_by"
    KEY: ClassVar[str] = "id"
    STORED: ClassVar[tuple[str, str]] = ("insert_override", "use_override")

    tenant: str
    id: str
    kind: str
    subject: str
    person: str
    by: str
    by_name: str
    reason: str
    proof: str
    request_id: str
    request_digest: str
    created_at: int
    expires_at: int
    used_by: str | None = None


@dataclass(slots=True)
class BatchRow:
    """A row of ``break_glass_batches``."""

    TABLE: ClassVar[str] = "break_glass_batches"
    FIXED: ClassVar[str] = "confirmed_by"
    KEY: ClassVar[str] = "id"
    STORED: ClassVar[tuple[str, str]] = ("insert_batch", "update_batch")

    tenant: str
    id: str
    person: str
    person_name: str
    count: int
    reason: str
    requested_by: str
    requested_name: str
    request_id: str
    request_proof: str
    requested_at: int
    confirmed_by: str | None = None
    confirmed_name: str | None = None
    confirm_proof: str | None = None
    confirmed_at: int | None = None
    revoked_at: int | None = None


@dataclass(slots=True)
class CodeRow:
    """A row of ``break_glass_codes``."""

    TABLE: ClassVar[str] = "break_glass_codes"
    FIXED: ClassVar[str] = "failures"
    KEY: ClassVar[str] = "id"
    STORED: ClassVar[tuple[str, str]] = ("insert_code", "update_code")

    tenant: str
    id: str
    batch: str
    person: str
    person_name: str
    salt: str
    hash: str
    created_at: int
    expires_at: int
    failures: int
    used_by: str | None = None
    used_at: int | None = None
    revoked_by: str | None = None
    revoked_at: int | None = None


R = TypeVar("R", UseRow, OverrideRow, BatchRow, CodeRow)
AnyRow = UseRow | OverrideRow | BatchRow | CodeRow

_KINDS: tuple[type[AnyRow], ...] = (UseRow, OverrideRow, BatchRow, CodeRow)
_VALUES = {kind: attrgetter(*(each.name for each in fields(kind))) for kind in _KINDS}
_FIXED = {kind: [each.name for each in fields(kind)].index(kind.FIXED) for kind in _KINDS}


def trusted(kind: type[R], raw: Raw, seal: RowSeal) -> R:
    """The row in ``raw``. Raises Tampered (ROW_MAC_MISMATCH): no emergency rests on what somebody else wrote."""
    row = sound(kind, raw, seal)
    if row is None:
        raise tampered(kind.TABLE, str(raw[1]))
    return row


def sound(kind: type[R], raw: Raw, seal: RowSeal) -> R | None:
    """The same; None for a row that fails its MAC."""
    values = raw[:-2]
    return kind(*values) if seal.holds(kind.TABLE, values, raw[-2], raw[-1]) else None


def insert(tx: Transaction, row: AnyRow) -> None:
    """Add a sealed row."""
    values: tuple[Any, ...] = _VALUES[type(row)](row)
    tx.write(row.STORED[0], (*values, *tx.seal.make(row.TABLE, values)))


def update(tx: Transaction, row: AnyRow) -> None:
    """Store what may change of a row."""
    values: tuple[Any, ...] = _VALUES[type(row)](row)
    key = (row.tenant, getattr(row, row.KEY))
    tx.write(row.STORED[1], (*values[_FIXED[type(row)] :], *tx.seal.make(row.TABLE, values), *key))


def listed(texts: Iterable[str]) -> str:
    """What :func:`read_list` reads."""
    return canonical_json(list(texts)).decode()


def read_list(text: str) -> tuple[str, ...]:
    """The texts in a column that holds a JSON list."""
    return tuple(orjson.loads(text))


def use_of(row: UseRow) -> Use:
    """The idea's view of a use."""
    reviewed = row.reviewer is not None and row.reviewed_at is not None
    return Use(
        tenant=row.tenant,
        lease_id=row.lease_id,
        task_id=row.task_id,
        template=row.template,
        person=row.person,
        person_name=row.person_name,
        for_agent=row.for_agent,
        owner=row.owner,
        groups=frozenset(read_list(row.groups)),
        reason=row.reason,
        incident=row.incident,
        how=row.how,
        code_id=row.code_id,
        told=read_list(row.told),
        overrode=read_list(row.overrode),
        created_at=from_ms(row.created_at),
        review_due=from_ms(row.review_due),
        ended_at=optional_at(row.ended_at),
        void=bool(row.void),
        findings=Findings(str(row.reviewer), row.reviewer_name or "", row.findings or "", from_ms(row.reviewed_at or 0))
        if reviewed
        else None,
    )


def batch_of(row: BatchRow) -> Batch:
    """The idea's view of a batch."""
    return Batch(
        id=row.id,
        person=row.person,
        person_name=row.person_name,
        count=row.count,
        reason=row.reason,
        requested_by=row.requested_by,
        requested_name=row.requested_name,
        requested_at=from_ms(row.requested_at),
        confirmed_by=row.confirmed_by or "",
        confirmed_name=row.confirmed_name or "",
        confirmed_at=optional_at(row.confirmed_at),
    )


def code_of(row: CodeRow) -> KeptCode:
    """The idea's view of a code."""
    return KeptCode(
        id=row.id,
        batch=row.batch,
        person=row.person,
        person_name=row.person_name,
        salt=bytes.fromhex(row.salt),
        hash=bytes.fromhex(row.hash),
        created_at=from_ms(row.created_at),
        expires_at=from_ms(row.expires_at),
        failures=row.failures,
        used_by=row.used_by or "",
        used_at=optional_at(row.used_at),
        revoked_by=row.revoked_by or "",
        revoked_at=optional_at(row.revoked_at),
    )
