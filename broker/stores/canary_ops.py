"""Rows of ``canary_measurements``, by the rules of :mod:`broker.stores.rows`, and the events of what they say.

No grant rests on such a row. One that fails its MAC counts as none: a bound that somebody else wrote is not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from operator import attrgetter
from typing import ClassVar

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.canary.canary import Kind
from broker.canary.measurement import Measurement, Outcome
from broker.ports.canaries import KEPT_MEASUREMENTS
from broker.scope.canonical import JsonValue
from broker.stores.rows import Raw
from broker.stores.times import from_ms, optional_at, optional_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

_MILLISECOND = timedelta(milliseconds=1)
_EVENTS = {
    Outcome.WITHIN: EventType.CANARY_MEASURED,
    Outcome.LATE: EventType.CANARY_MEASURED,
    Outcome.ALIVE: EventType.CANARY_BOUND_BROKEN,
    Outcome.UNMEASURED: EventType.CANARY_UNMEASURED,
}


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    """A row of ``canary_measurements``."""

    TABLE: ClassVar[str] = "canary_measurements"

    tenant: str
    id: str
    connector: str
    kind: str
    asked_by: str
    outcome: str
    began_at: int
    told_at: int
    bound_ms: int
    lease_id: str
    since: int | None
    measured_ms: int | None
    at_least_ms: int | None
    confirmed_at: int | None
    looks: int
    why: str


_values = attrgetter(*(each.name for each in fields(MeasurementRow)))


def record(tx: Transaction, measurement: Measurement) -> None:
    """See CanaryStore.record_measurement."""
    row = _row(measurement)
    values = _values(row)
    tx.run("put_canary_measurement", (*values, *tx.seal.make(row.TABLE, values)))
    kept = {"tenant": row.tenant, "connector": row.connector, "kept": KEPT_MEASUREMENTS}
    tx.run("forget_canary_measurements", kept)
    data: dict[str, JsonValue] = {
        "canary": row.id,
        "connector": row.connector,
        "kind": row.kind,
        "outcome": row.outcome,
        "bound_ms": row.bound_ms,
        "since_ms": row.since,
        "measured_ms": row.measured_ms,
        "at_least_ms": row.at_least_ms,
        "confirmed_ms": row.confirmed_at,
        "looks": row.looks,
        "why": row.why,
    }
    event = AuditEvent(
        _EVENTS[measurement.outcome],
        row.asked_by,
        Vouch.BROKER if measurement.outcome is Outcome.UNMEASURED else Vouch.UPSTREAM,
        tenant=row.tenant,
        lease_id=row.lease_id,
        data=data,
    )
    tx.audit(event, row.told_at)


def newest(view: View, tenant: str, connector: str, limit: int) -> Sequence[Measurement]:
    """See CanaryStore.measurements."""
    rows = view.all("canary_measurements", (tenant, connector, limit))
    return [_measurement(MeasurementRow(*raw[:-2])) for raw in rows if _holds(view, raw)]


def _holds(view: View, raw: Raw) -> bool:
    return view.seal.holds(MeasurementRow.TABLE, raw[:-2], raw[-2], raw[-1])


def _row(measurement: Measurement) -> MeasurementRow:
    return MeasurementRow(
        tenant=measurement.tenant,
        id=measurement.id,
        connector=measurement.connector,
        kind=measurement.kind.value,
        asked_by=measurement.by,
        outcome=measurement.outcome.value,
        began_at=to_ms(measurement.began_at),
        told_at=to_ms(measurement.told_at),
        bound_ms=measurement.bound // _MILLISECOND,
        lease_id=measurement.lease_id,
        since=optional_ms(measurement.since),
        measured_ms=None if measurement.measured is None else measurement.measured // _MILLISECOND,
        at_least_ms=None if measurement.at_least is None else measurement.at_least // _MILLISECOND,
        confirmed_at=optional_ms(measurement.confirmed_at),
        looks=measurement.looks,
        why=measurement.why,
    )


def _measurement(row: MeasurementRow) -> Measurement:
    return Measurement(
        tenant=row.tenant,
        id=row.id,
        connector=row.connector,
        kind=Kind(row.kind),
        by=row.asked_by,
        outcome=Outcome(row.outcome),
        began_at=from_ms(row.began_at),
        told_at=from_ms(row.told_at),
        bound=row.bound_ms * _MILLISECOND,
        lease_id=row.lease_id,
        since=optional_at(row.since),
        measured=None if row.measured_ms is None else row.measured_ms * _MILLISECOND,
        at_least=None if row.at_least_ms is None else row.at_least_ms * _MILLISECOND,
        confirmed_at=optional_at(row.confirmed_at),
        looks=row.looks,
        why=row.why,
    )
