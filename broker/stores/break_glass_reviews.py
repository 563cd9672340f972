"""What comes after a use of break-glass: its end told, its review, its being overdue, and words that pass over that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.breakglass.reviews import (
    OVERRIDES_FOR_REVIEW,
    OVERRIDES_FOR_SUSPENSION,
    OverrideKind,
    Use,
    blocked_groups,
    check_reviewable,
    check_reviewer,
)
from broker.errors import Conflict, Denied, InvalidInput, NotFound, Reason, WrongState
from broker.lease.machine import MAYBE_ALIVE, State
from broker.ports.break_glass import NewOverride, OverrideGiven, Tended
from broker.ports.leases import EndCause, Lease
from broker.ports.reviews import NewFindings
from broker.scope.canonical import JsonValue
from broker.stores import break_glass_rows as rows
from broker.stores.break_glass_ops import find_row, tell, unused_words
from broker.stores.break_glass_rows import OverrideRow, UseRow, sound, trusted, use_of
from broker.stores.end_ops import end_selected
from broker.stores.origins import with_origin
from broker.stores.proof_ops import keep_proof
from broker.stores.rows import LeaseRow, lease_of, read_lease, trust_lease
from broker.stores.suspension_rows import read_suspension, suspension_of
from broker.stores.times import from_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

_AFTER_ALL = 2**62


# --------------------------------------------------------------------------- reading


def get(view: View, tenant: str, lease_id: str) -> tuple[Use, Lease]:
    """See BreakGlassStore.get_use."""
    row = _found(view, tenant, lease_id)
    return use_of(row), with_origin(view, lease_of(_lease(view, row)))


def page(view: View, tenant: str, unsettled: bool, after: str, limit: int) -> list[tuple[Use, Lease]]:
    """See BreakGlassStore.uses."""
    after_ms = _AFTER_ALL
    if after:
        row = find_row(view, tenant, after)
        if row is None:
            raise InvalidInput(
                Reason.PAGE_TOKEN_INVALID,
                "the page token names no use of break-glass.",
                hint="Start again from the first page.",
            )
        after_ms = row.created_at
    asked = {"tenant": tenant, "all": not unsettled, "after_ms": after_ms, "after_id": after, "limit": limit}
    found = (trusted(UseRow, raw, view.seal) for raw in view.all("uses_page", asked))
    return [(use_of(row), with_origin(view, lease_of(_lease(view, row)))) for row in found]


def blocked(view: View, tenant: str, groups: frozenset[str], now: datetime) -> dict[str, str]:
    """See BreakGlassStore.blocked. A row that fails its MAC may be of anybody's group, and blocks them all."""
    raws = view.all("uses_unreviewed", {"tenant": tenant, "due": to_ms(now)})
    found = [(str(raw[1]), sound(UseRow, raw, view.seal)) for raw in raws]
    blocking = blocked_groups([use_of(row) for _, row in found if row is not None], groups, now)
    damaged = next((lease_id for lease_id, row in found if row is None), "")
    return {**{group: damaged for group in groups if damaged}, **blocking}


def _found(view: View, tenant: str, lease_id: str) -> UseRow:
    row = find_row(view, tenant, lease_id)
    if row is None:
        raise NotFound(
            Reason.BREAK_GLASS_NOT_FOUND,
            f"{lease_id!a} is no use of break-glass.",
            hint="`broker break-glass list --all` shows them; the id is that of the lease.",
            metadata={"leaseId": lease_id},
        )
    return row


def _lease(view: View, row: UseRow) -> LeaseRow:
    raw = view.row("lease_by_id", {"tenant": row.tenant, "lease_id": row.lease_id})
    return trust_lease(read_lease(raw, view.seal))


# --------------------------------------------------------------------------- reviews


def review(tx: Transaction, new: NewFindings) -> Use:
    """See BreakGlassStore.review_use."""
    row = _found(tx, new.tenant, new.lease_id)
    if (row.reviewer, row.review_request_id) == (new.reviewer, new.request_id):
        if row.findings != new.findings:
            raise _reused(new.request_id, f"the review of {row.lease_id}")
        return use_of(row)
    lease = _lease(tx, row)
    if row.ended_at is None and State(lease.state) not in MAYBE_ALIVE:
        _tell_ended(tx, row, lease, to_ms(new.now))  # no tick has, yet
    use = use_of(row)
    check_reviewer(use, new.reviewer)
    check_reviewable(use, living=lease.state in (State.ISSUING, State.ACTIVE))
    overdue = new.now >= use.review_due
    row.reviewer, row.reviewer_name, row.review_request_id = new.reviewer, new.reviewer_name, new.request_id
    row.findings, row.review_proof, row.reviewed_at = new.findings, new.proof.digest, to_ms(new.now)
    keep_proof(tx, new.tenant, new.proof, row.reviewed_at)
    rows.update(tx, row)
    about: dict[str, JsonValue] = {
        "findings": new.findings,
        "overdue": overdue,
        "review_fresh_login": new.proof.digest,
    }
    tell(tx, EventType.BREAK_GLASS_REVIEWED, row, new.reviewer, row.reviewed_at, about)
    return use_of(row)


# --------------------------------------------------------------------------- overrides


def override(tx: Transaction, new: NewOverride) -> OverrideGiven:
    """See BreakGlassStore.override."""
    raw = tx.one("override_by_request", {"tenant": new.tenant, "by": new.by, "request_id": new.request_id})
    if raw is not None:
        row = trusted(OverrideRow, raw, tx.seal)
        if row.request_digest != new.request_digest:
            raise _reused(new.request_id, f"override {row.id}")
        return _given(tx, row, new.now)
    if new.by == new.person:
        raise Denied(
            Reason.SECOND_PERSON_REQUIRED,
            "nobody passes over what stands in their own way by their own word.",
            hint="Another person runs this command for you.",
            metadata={"person": new.person},
        )
    _needed(tx, new.tenant, new.kind, new.subject, new.now)
    row = OverrideRow(
        tenant=new.tenant,
        id=new.id,
        kind=new.kind.value,
        subject=new.subject,
        person=new.person,
        by=new.by,
        by_name=new.by_name,
        reason=new.reason,
        proof=new.proof.digest,
        request_id=new.request_id,
        request_digest=new.request_digest,
        created_at=to_ms(new.now),
        expires_at=to_ms(new.expires_at),
    )
    keep_proof(tx, new.tenant, new.proof, row.created_at)
    rows.insert(tx, row)
    about: dict[str, JsonValue] = {
        "override": row.id,
        "kind": row.kind,
        "subject": row.subject,
        "person": row.person,
        "reason": row.reason,
        "expires_ms": row.expires_at,
        "fresh_login": row.proof,
    }
    event = AuditEvent(EventType.BREAK_GLASS_OVERRIDE, new.by, Vouch.BROKER, tenant=new.tenant, data=about)
    tx.audit(event, row.created_at)
    return _given(tx, row, new.now)


def _given(view: View, row: OverrideRow, now: datetime) -> OverrideGiven:
    now_ms, wanted = to_ms(now), (row.kind, row.subject)
    words = [each for each in unused_words(view, row.tenant, row.person) if (each.kind, each.subject) == wanted]
    by = sorted({each.by for each in words if now_ms < each.expires_at})
    try:
        needed = _needed(view, row.tenant, OverrideKind(row.kind), row.subject, now)
    except WrongState:
        needed = 0  # nothing stands in the way any more; the word was good when it was given
    return OverrideGiven(row.id, tuple(by), needed, from_ms(row.expires_at))


def _needed(view: View, tenant: str, kind: OverrideKind, subject: str, now: datetime) -> int:
    """How many words it takes. Raises WrongState (BREAK_GLASS_NOTHING_TO_OVERRIDE)."""
    if kind is OverrideKind.REVIEW and blocked(view, tenant, frozenset({subject}), now):
        return OVERRIDES_FOR_REVIEW
    if kind is OverrideKind.SUSPENSION:
        raw = view.one("suspension_by_id", {"tenant": tenant, "id": subject})
        found = None if raw is None else suspension_of(read_suspension(raw, view.seal))
        if found is not None and found.in_force(now):
            return OVERRIDES_FOR_REVIEW if found.needs_two else OVERRIDES_FOR_SUSPENSION
    no_such = f"no suspension {subject!a} is in force"
    what = no_such if kind is OverrideKind.SUSPENSION else f"{subject!a} is not blocked"
    raise WrongState(
        Reason.BREAK_GLASS_NOTHING_TO_OVERRIDE,
        f"{what}, so there is nothing to override.",
        hint="`broker suspensions` and `broker break-glass list` show what stands in the way.",
        metadata={"kind": kind.value, "subject": subject},
    )


def _reused(request_id: str, what: str) -> Conflict:
    return Conflict(
        Reason.REQUEST_ID_REUSED,
        f"request id {request_id!r} already names {what}, with other content.",
        hint="Use a fresh request id.",
        metadata={"requestId": request_id},
    )


# --------------------------------------------------------------------------- by time


def needs_tending(view: View, tenant: str, enabled: Callable[[str], bool], now: datetime) -> bool:
    """Whether :func:`tend` would change anything; told by reading alone."""
    for row in _unended(view, tenant):
        living = State(_lease(view, row).state)
        if living not in MAYBE_ALIVE or (living is not State.REVOKING and not enabled(row.person)):
            return True
    return any(row.overdue_at is None for row in _overdue(view, tenant, now))


def tend(tx: Transaction, tenant: str, enabled: Callable[[str], bool], now: datetime) -> Tended:
    """See BreakGlassStore.tend_uses. A row that fails its MAC is left for the alarm that reading it raises."""
    now_ms, ended, overdue, connectors = to_ms(now), list[str](), list[str](), set[str]()
    for row in _unended(tx, tenant):
        lease = _lease(tx, row)
        if State(lease.state) not in MAYBE_ALIVE:
            _tell_ended(tx, row, lease, now_ms)
            ended.append(row.lease_id)
        elif lease.state != State.REVOKING and not enabled(row.person):
            selected = {"tenant": tenant, "lease_id": row.lease_id, "task_id": "", "holder": "", "attempt_id": ""}
            end_selected(tx, "unended_by_lease", selected, EndCause.HOLDER_UNREGISTERED, BROKER, now_ms)
            connectors.add(lease.connector)
    for row in _overdue(tx, tenant, now):
        if row.overdue_at is None:
            row.overdue_at = now_ms
            rows.update(tx, row)
            tell(tx, EventType.BREAK_GLASS_REVIEW_OVERDUE, row, BROKER, now_ms, {"blocked": list(_groups(row))})
            overdue.append(row.lease_id)
    return Tended(tuple(ended), tuple(overdue), frozenset(connectors))


def _tell_ended(tx: Transaction, row: UseRow, lease: LeaseRow, now_ms: int) -> None:
    row.ended_at = now_ms
    row.void = int(lease.state == State.VOID)
    rows.update(tx, row)
    about: dict[str, JsonValue] = {"state": lease.state, "cause": lease.cause, "ended_ms": lease.ended_at}
    tell(tx, EventType.BREAK_GLASS_ENDED, row, BROKER, now_ms, about)
    if not row.void and row.reviewed_at is None:
        tell(tx, EventType.BREAK_GLASS_REVIEW_DUE, row, BROKER, now_ms, {})


def _unended(view: View, tenant: str) -> list[UseRow]:
    found = (sound(UseRow, raw, view.seal) for raw in view.all("uses_unended", {"tenant": tenant}))
    return [row for row in found if row is not None]


def _overdue(view: View, tenant: str, now: datetime) -> list[UseRow]:
    raws = view.all("uses_unreviewed", {"tenant": tenant, "due": to_ms(now)})
    return [row for row in (sound(UseRow, raw, view.seal) for raw in raws) if row is not None]


def _groups(row: UseRow) -> tuple[str, ...]:
    return rows.read_list(row.groups)


def open_uses(view: View) -> list[Use]:
    """What is alive or not reviewed, of every tenant, for the figures; a row that fails its MAC is left out."""
    found = (sound(UseRow, raw, view.seal) for raw in view.all("uses_open_everywhere", {}))
    return [use_of(row) for row in found if row is not None]
