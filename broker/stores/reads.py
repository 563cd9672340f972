"""What the ledger answers without changing it: each function is one consistent read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import orjson

from broker.audit.record import decode
from broker.breakglass.reviews import OWED
from broker.errors import InvalidInput, Reason, Tampered
from broker.identity.behalf import Human
from broker.lease.machine import MAYBE_ALIVE, State
from broker.ports.figures import ExportBacklog, LedgerFigures
from broker.ports.leases import Attempt, Lease, LeaseEvent, LeaseFilter
from broker.ports.tasks import Task
from broker.scope.canonical import canonical_json
from broker.stores.break_glass_reviews import open_uses
from broker.stores.end_ops import lease_not_found
from broker.stores.origins import handed_on_by
from broker.stores.rows import LAST_MS, Raw, attempt_of, read_attempt, read_lease, task_of, trust_lease, trust_task
from broker.stores.suspension_rows import every_unlifted
from broker.stores.task_ops import find_task
from broker.stores.times import from_ms, to_ms
from broker.stores.view import View
from broker.stores.whole_lease import whole_lease

# Later than every stored time: the first page starts here.
_AFTER_ALL = 2**62


def get_task(view: View, tenant: str, task_id: str) -> Task:
    """See LeaseStore.get_task."""
    return task_of(trust_task(find_task(view, tenant, task_id)))


def get_lease(view: View, tenant: str, lease_id: str, holder: str) -> Lease:
    """See LeaseStore.get_lease."""
    raw = view.one("lease_of_holder", {"tenant": tenant, "lease_id": lease_id, "holder": holder})
    if raw is None and handed_on_by(view, tenant, lease_id, holder):
        raw = view.one("lease_by_id", {"tenant": tenant, "lease_id": lease_id})
    if raw is None:
        raise lease_not_found(lease_id)
    return _lease(view, raw)


def list_leases(view: View, filter_: LeaseFilter, after: str, limit: int) -> list[Lease]:
    """See LeaseStore.list_leases. Raises InvalidInput (PAGE_TOKEN_INVALID) for an ``after`` that is no such lease."""
    key = {"tenant": filter_.tenant, "holder": filter_.holder}
    after_ms = _AFTER_ALL
    if after:
        raw = view.one("lease_of_holder", {**key, "lease_id": after})
        if raw is None:
            raise InvalidInput(
                Reason.PAGE_TOKEN_INVALID,
                "the page token names no lease of yours.",
                hint="Start again from the first page.",
            )
        after_ms = to_ms(_lease(view, raw).created_at)
    page = {"after_ms": after_ms, "after_id": after, "limit": limit}
    narrowed = {"task_id": filter_.task_id, "living_only": filter_.living_only}
    return [_lease(view, raw) for raw in view.all("leases_of_holder", {**key, **narrowed, **page})]


def living_attempts(view: View, tenant: str, lease_id: str) -> list[Attempt]:
    """See LeaseStore.living_attempts. An attempt that fails its MAC counts as living."""
    rows = view.all("attempts_of_lease", {"tenant": tenant, "lease_id": lease_id})
    attempts = (read_attempt(raw, view.seal) for raw in rows)
    return [attempt_of(attempt) for attempt in attempts if State(attempt.state) in MAYBE_ALIVE]


def task_leases(view: View, tenant: str, task_id: str) -> list[Lease]:
    """See LeaseStore.task_leases."""
    return [_lease(view, raw) for raw in view.all("leases_of_task", {"tenant": tenant, "task_id": task_id})]


def lease_events(view: View, tenant: str, holder: str, after: int, limit: int) -> list[LeaseEvent]:
    """See LeaseStore.lease_events."""
    rows = view.all("holder_events", {"tenant": tenant, "holder": holder, "after": after, "limit": limit})
    if not rows:
        return []
    (previous,) = view.row("holder_event_before", {"tenant": tenant, "holder": holder, "upto": after})
    events = []
    for seq, body, *lease in rows:
        record = decode(body)
        events.append(LeaseEvent(seq, previous, from_ms(record.at_ms), record.type, _lease(view, tuple(lease))))
        previous = seq
    return events


def known_upstream(view: View, connector: str, names: Sequence[str]) -> frozenset[str]:
    """See LeaseStore.known_upstream. A row that fails its MAC vouches for nothing: its name stays unknown."""
    asked = {"connector": connector, "names": canonical_json(names).decode()}
    attempts = (read_attempt(raw, view.seal) for raw in view.all("attempts_by_upstream", asked))
    return frozenset(attempt.upstream for attempt in attempts if attempt.trusted and attempt.upstream is not None)


def living_holders(view: View, tenant: str) -> list[str]:
    """Who holds living leases."""
    return [holder for (holder,) in view.all("living_holders", {"tenant": tenant})]


def living_certificates(view: View, tenant: str) -> list[tuple[str, str]]:
    """Who holds living leases, with which certificates they asked for them."""
    return view.all("living_certificates", {"tenant": tenant})


def acted_for(view: View, tenant: str) -> dict[str, Human]:
    """Whom open tasks act for, by how a task's row says it; nobody where it says it in no form of ours."""
    found = {}
    for (stored,) in view.all("acted_for", {"tenant": tenant}):
        try:
            found[stored] = Human(*orjson.loads(stored))
        except (ValueError, TypeError):
            found[stored] = Human("", "", "")
    return found


def any_task_due(view: View, now: datetime) -> bool:
    """Whether :func:`broker.stores.task_ops.end_due_tasks` has anything to do."""
    return bool(view.row("any_task_due", {"now": to_ms(now)})[0])


def next_due(view: View, connector: str) -> datetime | None:
    """See LeaseStore.next_due."""
    (ms,) = view.row("next_due", {"connector": connector})
    return None if ms is None else from_ms(min(max(ms, 0), LAST_MS))


def connectors_in_use(view: View) -> frozenset[str]:
    """See LeaseStore.connectors_in_use."""
    return frozenset(row[0] for row in view.all("connectors_in_use", {}))


def audit_since(view: View, after: int, limit: int) -> list[bytes]:
    """See LeaseStore.audit_since."""
    return [row[0] for row in view.all("audit_bodies", {"after": after, "limit": limit})]


def figures(view: View, now: datetime) -> LedgerFigures:
    """See LeaseStore.figures."""
    overdue, oldest = view.row("owed_figures", {"now": to_ms(now)})
    backlog = export_backlog(view, now)
    suspended = [each for each in every_unlifted(view) if each.in_force(now)]
    uses = open_uses(view)
    return LedgerFigures(
        live_by_class=dict(view.all("living_figures", {})),
        open_tasks=view.row("open_task_figure", {})[0],
        overdue=overdue,
        oldest_overdue=timedelta(0) if oldest is None else now - from_ms(oldest),
        stuck=view.row("stuck_figure", {})[0],
        audit_head=backlog.head,
        audit_exported=backlog.exported,
        oldest_unexported=backlog.oldest,
        suspensions=Counter(each.kind.value for each in suspended),
        suspensions_tampered=sum(not each.trusted for each in suspended),
        tightened=dict(view.all("tightened_figure", {})),
        break_glass_live=sum(each.ended_at is None for each in uses),
        reviews=Counter(state.value for each in uses if (state := each.review_state(now)) in OWED),
    )


def export_backlog(view: View, now: datetime) -> ExportBacklog:
    """See LeaseStore.export_backlog."""
    head, unexported = view.one("audit_head", {}), view.one("first_unexported", {})
    oldest = timedelta(0) if unexported is None else now - _written_at(unexported[0], now)
    return ExportBacklog(0 if head is None else head[0], view.row("exported", {})[0], oldest)


def _lease(view: View, raw: Raw) -> Lease:
    if raw[0] is None:
        raise Tampered(Reason.ROW_MAC_MISMATCH, "an audit event names a lease that is not in the ledger.")
    return whole_lease(view, trust_lease(read_lease(raw, view.seal)))


def _written_at(body: bytes, now: datetime) -> datetime:
    """When a record was written; a damaged one counts as just now (verification tells, not a gauge)."""
    try:
        return from_ms(decode(body).at_ms)
    except Tampered:
        return now
