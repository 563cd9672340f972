"""Living leases as they were granted, and what a review makes of them.

What a lease was decided on stands in the audit trail and nowhere else: in the ``lease.intent`` record of its latest
attempt. A holder's records are read from the newest back, and only until those of its living leases are found, so that
a review costs what lives and not what ever was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import orjson

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.audit.record import Record, decode
from broker.errors import BrokerError, InvalidInput, Reason, Tampered
from broker.lease.machine import State
from broker.ports.leases import EndCause, Granted, Lease, Tightened
from broker.scope.canonical import JsonValue
from broker.stores import access_ops
from broker.stores.end_ops import end_selected
from broker.stores.holding_ops import AllHoldings
from broker.stores.origins import origin_of, with_origin
from broker.stores.pipeline_rows import parties
from broker.stores.review_rows import ReviewRow, put_review, review_of, with_review
from broker.stores.rows import LeaseRow, lease_of, read_lease, task_of
from broker.stores.task_ops import find_task
from broker.stores.times import from_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

# Records read at a time.
PORTION = 200
_AFTER_ALL = 2**62
# An intent may be recorded this long before the attempt that was made by it, should the clock have been set.
_SLACK_MS = 3_600_000


def living_grants(view: View, tenant: str, after: str, limit: int) -> list[Granted]:
    """See ReviewStore.living_grants. Leases whose rows fail their MAC are left out: nothing can be said of them."""
    rows = _page(view, tenant, *_position(view, tenant, after), limit)
    return [each for _, group in groupby(rows, lambda row: row.holder) for each in _granted(view, list(group))]


def _page(view: View, tenant: str, holder: str, request_id: str, limit: int) -> list[LeaseRow]:
    """The next leases whose rows hold; none only where there is no further one."""
    while True:
        page = {"tenant": tenant, "holder": holder, "request_id": request_id, "limit": limit}
        rows = [read_lease(raw, view.seal) for raw in view.all("living_page", page)]
        trusted = [row for row in rows if row.trusted]
        if trusted or not rows:
            return trusted
        holder, request_id = rows[-1].holder, rows[-1].request_id


def _position(view: View, tenant: str, after: str) -> tuple[str, str]:
    if not after:
        return "", ""
    raw = view.one("lease_by_id", {"tenant": tenant, "lease_id": after})
    if raw is None:
        raise InvalidInput(
            Reason.PAGE_TOKEN_INVALID, "the page token names no lease.", hint="Start again from the first page."
        )
    row = read_lease(raw, view.seal)
    return row.holder, row.request_id


def _granted(view: View, rows: Sequence[LeaseRow]) -> Iterator[Granted]:
    """The leases of one holder, each with what it was granted on."""
    intents, held = _intents(view, rows), _held(view, rows[0])
    for row in rows:
        record = intents.get(row.attempt_id)
        lease = with_review(view, with_origin(view, lease_of(row)))
        at = from_ms(row.created_at if record is None else record.at_ms)
        yield Granted(lease, at, None if record is None else record.data, _present(view, lease, held))


def _held(view: View, row: LeaseRow) -> AllHoldings | None:
    """None: it cannot be told."""
    try:
        return AllHoldings(view, row.tenant, row.holder)
    except Tampered:
        return None


def _intents(view: View, rows: Sequence[LeaseRow]) -> dict[str, Record]:
    """By attempt: the record of its intent, as far as there is one that is ours."""
    tenant, holder = rows[0].tenant, rows[0].holder
    wanted, oldest = {row.attempt_id: row.id for row in rows}, min(row.created_at for row in rows) - _SLACK_MS
    leases, found, before = set(wanted.values()), dict[str, Record](), _AFTER_ALL
    while len(found) < len(wanted):
        page = {"tenant": tenant, "holder": holder, "before": before, "limit": PORTION}
        records = view.all("holder_trail", page)
        for _, lease_id, body, _, mac, key_id in records:
            record = _ours(view, body, mac, key_id) if lease_id in leases else None
            if record is not None and record.type == EventType.LEASE_INTENT and record.attempt_id in wanted:
                found[record.attempt_id] = record
        if len(records) < PORTION or _written_before(records[-1][2], oldest):
            break
        before = records[-1][0]
    return found


def _ours(view: View, body: bytes, mac: object, key_id: object) -> Record | None:
    try:
        record = decode(body)
        return record if view.seal.holds_record(bytes.fromhex(record.prev), body, mac, key_id) else None
    except (Tampered, ValueError):
        return None


def _written_before(body: bytes, ms: int) -> bool:
    """Whether the search can end here. A damaged record does not end it."""
    try:
        return decode(body).at_ms < ms
    except Tampered:
        return False


def _present(view: View, lease: Lease, held: AllHoldings | None) -> Mapping[str, JsonValue]:
    """Of the situation, what can be told as it is now. What cannot be read is not told, and so is UNKNOWN."""
    told: dict[str, JsonValue] = {}
    try:
        origin = origin_of(view, lease.tenant, lease.id)
        delegators = [each.principal for each in parties(origin.chain)] if origin else []
        told |= {"plan": "confirmed" if lease.plan_id else "", "delegators": delegators}
        told["pending_count"] = access_ops.pending(view, lease.tenant, lease.holder)
        task = find_task(view, lease.tenant, lease.task_id)
        if task.trusted:
            human = task_of(task).on_behalf_of
            told |= {"task_type": task.task_type or "", "on_behalf_of": None if human is None else human.id}
        if held is not None:
            beside = held.beside(lease.request_id)
            told |= {"active_grants": sorted(beside.grants), "active_count": beside.count}
    except BrokerError:
        return told
    return told


def record_review(
    tx: Transaction,
    tenant: str,
    lease_id: str,
    attempt_id: str,
    tightened: Tightened | None,
    end: bool,
    actor: str,
    now: datetime,
) -> bool:
    """See ReviewStore.record_review."""
    raw = tx.one("lease_by_id", {"tenant": tenant, "lease_id": lease_id})
    row = None if raw is None else read_lease(raw, tx.seal)
    if row is None or row.state not in (State.ISSUING, State.ACTIVE) or row.attempt_id != attempt_id:
        return False
    before, now_ms = review_of(tx, tenant, lease_id), to_ms(now)
    if tightened is None:
        return before is not None and _loosened(tx, row, before, now_ms)
    known = before is not None and (before.attempt_id, before.deploy_digest) == (attempt_id, tightened.deploy_digest)
    if not known:
        put_review(tx, tenant, lease_id, attempt_id, tightened)
        _tell(tx, EventType.POLICY_TIGHTENED, row, now_ms, _about(row, tightened, end))
    if end:
        fields = {"tenant": tenant, "lease_id": lease_id, "task_id": "", "holder": "", "attempt_id": ""}
        end_selected(tx, "unended_by_lease", fields, EndCause.POLICY_TIGHTENED, actor, now_ms)
    return not known


def _loosened(tx: Transaction, row: LeaseRow, before: ReviewRow, now_ms: int) -> bool:
    tx.run("drop_review", {"tenant": row.tenant, "lease_id": row.id})
    _tell(tx, EventType.POLICY_LOOSENED, row, now_ms, {"outcome_before": before.outcome})
    return True


def _about(row: LeaseRow, tightened: Tightened, end: bool) -> dict[str, JsonValue]:
    """Both decisions: what granted it, and what would be said now."""
    granted_by: Any = orjson.loads(row.policies)
    return {
        "outcome": tightened.outcome.value,
        "reason_now": tightened.reason,
        "policies_now": list(tightened.policies),
        "why": tightened.why,
        "deploy_digest": tightened.deploy_digest,
        "policy_digest_now": tightened.policy_digest,
        "policies": granted_by,
        "policy_digest": row.policy_digest,
        "template": row.template,
        "environment": row.environment,
        "revoked": end,
    }


def _tell(tx: Transaction, event: EventType, row: LeaseRow, now_ms: int, data: dict[str, JsonValue]) -> None:
    about = AuditEvent(
        event,
        BROKER,
        Vouch.BROKER,
        tenant=row.tenant,
        task_id=row.task_id,
        lease_id=row.id,
        attempt_id=row.attempt_id,
        holder=row.holder,
        data=data,
    )
    tx.audit(about, now_ms)
