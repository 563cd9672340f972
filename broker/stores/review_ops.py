"""Living leases as they were granted, and what a review makes of them.

What a lease was decided on stands in the audit trail and nowhere else: in the ``lease.intent`` record of its latest
attempt. So a walk looks for it there, once for all living leases of a holder (``walked_holder.py``), and a review costs
what lives and not what ever was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

import orjson

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.errors import BrokerError, InvalidInput, Reason
from broker.lease.machine import State
from broker.ports.intents import Holdings
from broker.ports.leases import EndCause, Granted, Lease, Tightened
from broker.scope.canonical import JsonValue
from broker.stores import access_ops, replica_ops
from broker.stores.end_ops import end_selected
from broker.stores.origins import origin_of, with_origin
from broker.stores.pipeline_rows import parties
from broker.stores.review_rows import ReviewRow, put_review, review_of, with_review
from broker.stores.rows import LeaseRow, lease_of, read_lease, task_of
from broker.stores.task_ops import find_task
from broker.stores.times import from_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View
from broker.stores.walked_holder import WalkedHolder


class LivingWalk:
    """Pages of living leases by holder, each of which costs what is on it, however much its holder has.

    Used by one thread. Several walks at a time are right as well, and read more.
    """

    def __init__(self) -> None:
        self._at: WalkedHolder | None = None

    def page(self, view: View, tenant: str, after: str, limit: int) -> list[Granted]:
        """See ReviewStore.living_grants. Leases whose rows fail their MAC are left out: nothing can be said of them."""
        rows, found = _page(view, tenant, *_position(view, tenant, after), limit), list[Granted]()
        for holder, group in groupby(rows, lambda row: row.holder):
            at = self._come_to(view, tenant, holder)
            found += [_granted(view, row, at) for row in group]
        if not found:
            self._at = None  # the end
        return found

    def _come_to(self, view: View, tenant: str, holder: str) -> WalkedHolder:
        if self._at is None or not self._at.is_of(tenant, holder):
            self._at = None  # not beside the next one
            self._at = WalkedHolder(view, tenant, holder)
        else:
            self._at.follow(view)
        return self._at


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


def _granted(view: View, row: LeaseRow, holder: WalkedHolder) -> Granted:
    record = holder.intent(view, row.id, row.attempt_id)
    lease = with_review(view, with_origin(view, lease_of(row)))
    at = from_ms(row.created_at if record is None else record.at_ms)
    return Granted(lease, at, None if record is None else record.data, _present(view, lease, holder.beside(row.id)))


def _present(view: View, lease: Lease, beside: Holdings | None) -> Mapping[str, JsonValue]:
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
        if beside is not None:
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
    by: str = "",
) -> bool:
    """See ReviewStore.record_review."""
    replica_ops.check_in_force(tx, tenant, by)
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
