"""Rows of the ledger as the database keeps them, and as the port shows them.

One mutable class per table, fields in the order of the column lists in ``sql/``: first what never
changes, then what does. ``trusted`` is False for a row that fails its MAC. Such a row is never used
for a grant; an attempt among them is taken for REVOKING whatever it says, because it may be alive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from types import NoneType
from typing import Any, ClassVar, TypeVar

import orjson

from broker.identity.behalf import Human
from broker.lease.machine import STATES, State
from broker.ports.leases import Attempt, EndCause, Lease
from broker.ports.tasks import Task, TaskState
from broker.stores.seal import RowSeal, tampered
from broker.stores.times import from_ms, optional_at

Raw = tuple[Any, ...]


@dataclass(slots=True)
class TaskRow:
    """A row of ``tasks``."""

    TABLE: ClassVar[str] = "tasks"

    tenant: str
    id: str
    creator: str
    request_id: str
    request_digest: str
    participants: str
    purpose: str
    ticket: str
    sponsor: str
    created_at: int
    deadline: int
    hold_grace: int
    hold_until: int | None
    state: str
    cause: str | None
    ended_at: int | None
    ends_at: int | None
    # Of a later schema, NULL in rows older than it.
    task_type: str | None = None
    on_behalf_of: str | None = None
    id_token: str | None = None
    trusted: bool = True


@dataclass(slots=True)
class LeaseRow:
    """A row of ``leases``."""

    TABLE: ClassVar[str] = "leases"

    tenant: str
    id: str
    task_id: str
    holder: str
    request_id: str
    request_digest: str
    template: str
    template_digest: str
    connector: str
    account: str
    environment: str
    resource: str
    access: str
    actions: str
    parameters: str
    step: str
    contract_class: str
    policies: str
    policy_digest: str
    created_at: int
    state: str
    cause: str | None
    expires_at: int
    confirm_by: int | None
    confirmed_at: int | None
    ended_at: int | None
    attempt_id: str
    attempts: int
    failures: int
    next_due: int | None
    svid_serial: str
    trusted: bool = True


@dataclass(slots=True)
class AttemptRow:
    """A row of ``attempts``. ``seen_epoch`` is the epoch that was read: what an update compares."""

    TABLE: ClassVar[str] = "attempts"

    tenant: str
    id: str
    lease_id: str
    number: int
    connector: str
    created_at: int
    issue_deadline: int
    handle: str
    upstream: str | None
    state: str
    cause: str | None
    activated_at: int | None
    expires_at: int
    due_at: int | None
    owed_since: int | None
    epoch: int
    failures: int
    last_error: str
    stuck: int
    trusted: bool = True
    seen_epoch: int = 0


def _stored(row_type: type[Any]) -> list[str]:
    return [field.name for field in fields(row_type) if field.name not in ("trusted", "seen_epoch")]


# Width of each table's column list, the MAC and its key id included.
TASK_WIDTH = len(_stored(TaskRow)) + 2
LEASE_WIDTH = len(_stored(LeaseRow)) + 2
ATTEMPT_WIDTH = len(_stored(AttemptRow)) + 2
# Where the columns that may change begin, and where those end that every schema had.
TASK_FIXED = _stored(TaskRow).index("hold_grace")
TASK_FIRST_SCHEMA = _stored(TaskRow).index("task_type")
LEASE_FIXED = _stored(LeaseRow).index("state")
LEASE_ENDED_AT = _stored(LeaseRow).index("ended_at")
ATTEMPT_FIXED = _stored(AttemptRow).index("handle")
# What does not change any more once an attempt is being ended stands before and between these.
ATTEMPT_STATE = _stored(AttemptRow).index("state")
ATTEMPT_ACTIVATED = _stored(AttemptRow).index("activated_at")
ATTEMPT_DUE = _stored(AttemptRow).index("due_at")

task_values = attrgetter(*_stored(TaskRow))
lease_values = attrgetter(*_stored(LeaseRow))
attempt_values = attrgetter(*_stored(AttemptRow))


def task_sealed(values: Raw) -> Raw:
    """What the MAC of a task is over: columns of later schemas only where they are not NULL.

    So rows that are older than a column still verify, and none verifies with one given to it, or taken from it.
    """
    width = len(values)
    while width > TASK_FIRST_SCHEMA and values[width - 1] is None:
        width -= 1
    return values[:width]


def unpacked(packed: str) -> Raw:
    """The row in a ``{x_packed}`` column (:mod:`broker.stores.queries`); all None where a LEFT JOIN found none."""
    *values, mac, key_id = orjson.loads(packed)
    return (*values, bytes.fromhex(mac) if mac else None, key_id)


def packed_attempt(packed: str, seal: RowSeal) -> AttemptRow:
    """Like :func:`read_attempt`, from an ``{attempt_packed}`` column."""
    return _attempt(*_opened(AttemptRow.TABLE, packed, seal))


def packed_lease(packed: str, seal: RowSeal) -> LeaseRow | None:
    """Like :func:`read_lease`, from a ``{lease_packed}`` column; None where a LEFT JOIN found none."""
    if packed.startswith("[null"):
        return None
    return _lease(*_opened(LeaseRow.TABLE, packed, seal))


def _opened(table: str, packed: str, seal: RowSeal) -> tuple[list[Any], bool]:
    """The values in a ``{x_packed}`` column, and whether their MAC is ours.

    SQLite spells them as they were spelt for the MAC, so that they need not be spelt again. What is spelt otherwise
    is: by PostgreSQL, or because it was damaged.
    """
    values = orjson.loads(packed)
    key_id, hexed = values.pop(), values.pop()
    mac, tail = bytes.fromhex(hexed or ""), f',"{hexed}","{key_id}"]'
    if packed.endswith(tail) and seal.holds_spelt(table, packed[1 : -len(tail)], mac, key_id):
        return values, True
    return values, seal.holds(table, values, mac, key_id)


def read_task(raw: Raw, seal: RowSeal) -> TaskRow:
    """The task in a raw row, its MAC checked."""
    values = raw[: TASK_WIDTH - 2]
    row = TaskRow(*values)
    row.trusted = seal.holds("tasks", task_sealed(values), raw[-2], raw[-1])
    return row


def read_lease(raw: Raw, seal: RowSeal) -> LeaseRow:
    """The lease in a raw row, its MAC checked."""
    values = raw[: LEASE_WIDTH - 2]
    return _lease(values, seal.holds("leases", values, raw[-2], raw[-1]))


def read_attempt(raw: Raw, seal: RowSeal) -> AttemptRow:
    """The attempt in a raw row, its MAC checked."""
    values = raw[: ATTEMPT_WIDTH - 2]
    return _attempt(values, seal.holds("attempts", values, raw[-2], raw[-1]))


def _lease(values: Sequence[Any], trusted: bool) -> LeaseRow:
    row = LeaseRow(*values)
    row.trusted = trusted
    return row if trusted else _typed(row)


def _attempt(values: Sequence[Any], trusted: bool) -> AttemptRow:
    row = AttemptRow(*values)
    row.trusted, row.seen_epoch = trusted, row.epoch
    return row if trusted else _quarantined(row)


def imagined_attempt(values: Raw) -> AttemptRow:
    """The attempt in an image (:mod:`broker.stores.images`), which is trusted and has no MAC to check."""
    row = AttemptRow(*values)
    row.seen_epoch = row.epoch
    return row


# 9999-12-31T23:59:59Z: the last time that a datetime can say.
LAST_MS = 253_402_300_799_000
# Counters beyond this were not counted by us, and would overflow when counted on.
_MOST = 2**31


_Row = TypeVar("_Row", LeaseRow, AttemptRow)


def _typed(row: _Row) -> _Row:
    """Every column of its type: one bit makes a text a blob, and others must not be held up by it."""
    for name, type_ in _COLUMN_TYPES[type(row)]:
        value = getattr(row, name)
        if not isinstance(value, type_):
            setattr(row, name, _text(value) if str in type_ else 0)
    return row


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


_NAMED_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "str | None": (str, NoneType),
    "int | None": (int, NoneType),
}


def _column_types(row: type[LeaseRow | AttemptRow]) -> tuple[tuple[str, tuple[type, ...]], ...]:
    return tuple((each.name, _NAMED_TYPES[str(each.type)]) for each in fields(row) if str(each.type) in _NAMED_TYPES)


_COLUMN_TYPES = {row: _column_types(row) for row in (LeaseRow, AttemptRow)}


def _quarantined(row: AttemptRow) -> AttemptRow:
    """An untrusted attempt in a form that can be revoked: REVOKING, every field of its type and in range."""
    _typed(row)
    row.state = State.REVOKING.value
    if row.cause not in EndCause.__members__:
        row.cause = EndCause.OUTCOME_UNKNOWN.value
    try:
        parsed = orjson.loads(row.handle)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        row.handle = "{}"
    for name in ("created_at", "issue_deadline", "expires_at", "activated_at", "due_at", "owed_since"):
        ms = getattr(row, name)
        if ms is not None:
            setattr(row, name, min(max(ms, 0), LAST_MS))
    row.epoch = row.epoch if 0 <= row.epoch < _MOST else 0
    row.failures = row.failures if 0 <= row.failures < _MOST else 0
    return row


def read_optional_lease(raw: Raw, seal: RowSeal) -> LeaseRow | None:
    """Like :func:`read_lease`, for the right side of a LEFT JOIN."""
    return None if raw[0] is None else read_lease(raw, seal)


def trust_task(row: TaskRow) -> TaskRow:
    """The row itself. Raises Tampered (ROW_MAC_MISMATCH)."""
    if not row.trusted:
        raise tampered(row.TABLE, row.id)
    return row


def trust_lease(row: LeaseRow) -> LeaseRow:
    """The row itself. Raises Tampered (ROW_MAC_MISMATCH)."""
    if not row.trusted:
        raise tampered(row.TABLE, row.id)
    return row


def task_of(row: TaskRow) -> Task:
    """The port's view of a task."""
    return Task(
        tenant=row.tenant,
        id=row.id,
        creator=row.creator,
        participants=frozenset(orjson.loads(row.participants)),
        purpose=row.purpose,
        ticket=row.ticket,
        sponsor=row.sponsor,
        created_at=from_ms(row.created_at),
        deadline=from_ms(row.deadline),
        hold_grace=from_ms(row.hold_grace) - from_ms(0),
        hold_until=optional_at(row.hold_until),
        state=TaskState(row.state),
        cause=_cause(row.cause),
        ended_at=optional_at(row.ended_at),
        task_type=row.task_type or "",
        on_behalf_of=None if row.on_behalf_of is None else Human(*orjson.loads(row.on_behalf_of)),
    )


def lease_of(row: LeaseRow) -> Lease:
    """The port's view of a lease."""
    return Lease(
        tenant=row.tenant,
        id=row.id,
        task_id=row.task_id,
        holder=row.holder,
        request_id=row.request_id,
        request_digest=row.request_digest,
        template=row.template,
        template_digest=row.template_digest,
        connector=row.connector,
        account=row.account,
        environment=row.environment,
        resource=row.resource,
        access=row.access,
        actions=tuple(orjson.loads(row.actions)),
        parameters=orjson.loads(row.parameters),
        step=row.step,
        contract_class=row.contract_class,
        policies=tuple(orjson.loads(row.policies)),
        policy_digest=row.policy_digest,
        state=State(row.state),
        cause=_cause(row.cause),
        created_at=from_ms(row.created_at),
        expires_at=from_ms(row.expires_at),
        confirm_by=optional_at(row.confirm_by),
        confirmed_at=optional_at(row.confirmed_at),
        ended_at=optional_at(row.ended_at),
        attempt_id=row.attempt_id,
        attempts=row.attempts,
        failures=row.failures,
        next_due=optional_at(row.next_due),
        svid_serial=row.svid_serial,
    )


def attempt_of(row: AttemptRow) -> Attempt:
    """The port's view of an attempt. By place, and without a call for each time: each end of a lease makes one."""
    activated, due = row.activated_at, row.due_at
    return Attempt(
        row.tenant,
        row.id,
        row.lease_id,
        row.number,
        row.connector,
        orjson.loads(row.handle),
        STATES[row.state],
        None if row.cause is None else _CAUSES[row.cause],
        from_ms(row.created_at),
        from_ms(row.issue_deadline),
        None if activated is None else from_ms(activated),
        from_ms(row.expires_at),
        None if due is None else from_ms(due),
        row.epoch,
        row.failures,
        row.last_error,
    )


_CAUSES = {cause.value: cause for cause in EndCause}


def _cause(stored: str | None) -> EndCause | None:
    return None if stored is None else _CAUSES[stored]


def slices(raw: Raw, *widths: int) -> Sequence[Raw]:
    """A joined row cut into the rows of its tables."""
    parts, start = [], 0
    for width in widths:
        parts.append(raw[start : start + width])
        start += width
    return parts
