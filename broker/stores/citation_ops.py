"""What an intent rests on besides its own: checked in its transaction against the rows as they are, and consumed.

The rules are :mod:`broker.plan.execution` and :mod:`broker.delegation.delegation`; here is what only the ledger can
tell: that the lease it is a part of still lives, and that a step, or a delegation, is used once.
"""

from __future__ import annotations

from dataclasses import replace

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.delegation.delegation import check_redemption
from broker.errors import Reason, WrongState
from broker.plan.execution import check_execution
from broker.plan.roles import EXECUTOR, require_other, require_role
from broker.ports.intents import Citation, Intent
from broker.stores import delegation_ops, plan_ops
from broker.stores.origins import origin_of, reach_of_lease
from broker.stores.pipeline_rows import OriginRow, insert, written_chain
from broker.stores.rows import LeaseRow, Raw, read_lease, trust_lease
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction
from broker.stores.undelivered import came_to_nothing
from broker.stores.view import View


def check(view: View, intent: Intent, own: LeaseRow | None) -> None:
    """Refuse what the citation does not cover. ``own``: the lease that the intent's request id names already."""
    citation = intent.citation
    if citation is None:
        return
    if citation.delegation_id:
        _check_delegation(view, intent, citation)
        key = {"tenant": intent.tenant, "delegation_id": citation.delegation_id}
        _check_unused(view, view.one("lease_by_delegation", key), own, Reason.DELEGATION_USED, "the delegation")
    else:
        _check_plan(view, intent, citation)
        key = {"tenant": intent.tenant, "plan_id": citation.plan_id, "step": intent.request.step}
        step = f"step {intent.request.step} of plan {citation.plan_id}"
        _check_unused(view, view.one("lease_by_step", key), own, Reason.PLAN_STEP_USED, step)


def _check_plan(view: View, intent: Intent, citation: Citation) -> None:
    check_execution(
        plan_ops.find(view, intent.tenant, citation.plan_id),
        intent.request.task_id,
        intent.request.step,
        citation.party,
        citation.roles,
        citation.planned,
        citation.compared,
        intent.now,
    )


def _check_delegation(view: View, intent: Intent, citation: Citation) -> None:
    found = delegation_ops.redeemable(view, intent.tenant, citation.delegation_id, citation.party, intent.now)
    delegation, parent = found
    asked = replace(citation.reach, ends_at=intent.expires_at)
    whole = reach_of_lease(parent, delegation.further)
    check_redemption(delegation, intent.request.task_id, citation.party, whole, asked, citation.compared, intent.now)
    check_separation(view, parent, citation)


def check_separation(view: View, parent: LeaseRow, citation: Citation) -> None:
    """What the parent got by a plan, no planner or validator of it gets as a part, and nobody who is no executor."""
    origin = origin_of(view, parent.tenant, parent.id)
    if origin is not None and origin.plan_id:
        require_role(citation.party, citation.roles, EXECUTOR)
        require_other(plan_ops.find(view, parent.tenant, origin.plan_id), citation.party, EXECUTOR)


def _check_unused(view: View, raw: Raw | None, own: LeaseRow | None, reason: Reason, what: str) -> None:
    if raw is None:
        return
    used_by = trust_lease(read_lease(raw, view.seal))
    if (own is not None and own.id == used_by.id) or came_to_nothing(used_by):
        return
    raise WrongState(
        reason,
        f"{what} is used: a lease was opened for it.",
        hint="It serves once. Repeat the same request under its request id, or have a new one made.",
        metadata={"used": what},
    )


def record(tx: Transaction, intent: Intent, lease: LeaseRow) -> None:
    """Write what the new ``lease`` is granted by, which uses it up; nothing where it cites nothing."""
    citation = intent.citation
    if citation is None:
        return
    origin = _by_delegation(tx, citation, lease) if citation.delegation_id else _by_plan(citation, lease)
    insert(tx, "insert_origin", origin)
    event = EventType.DELEGATION_USED if citation.delegation_id else EventType.PLAN_STEP_USED
    told = {
        "plan_id": origin.plan_id,
        "step": origin.step,
        "delegation_id": origin.delegation_id,
        "part_of": origin.parent_lease_id,
        "used_for": lease.id,
        "principal": citation.party.principal,
    }
    about = {name: value for name, value in told.items() if value}
    tx.audit(
        AuditEvent(event, intent.holder, Vouch.BROKER, tenant=lease.tenant, task_id=lease.task_id, data=about),
        to_ms(intent.now),
    )


def _by_plan(citation: Citation, lease: LeaseRow) -> OriginRow:
    # How often it may be handed on is what operators allow when somebody asks for that, so it is not written here.
    return OriginRow(lease.tenant, lease.id, citation.plan_id, lease.step, "", "", written_chain(()), 0)


def _by_delegation(tx: Transaction, citation: Citation, lease: LeaseRow) -> OriginRow:
    row = delegation_ops.find(tx, lease.tenant, citation.delegation_id)
    above = origin_of(tx, row.tenant, row.lease_id)
    return OriginRow(
        tenant=lease.tenant,
        lease_id=lease.id,
        plan_id=above.plan_id if above else "",
        step=above.step if above else "",
        delegation_id=row.id,
        parent_lease_id=row.lease_id,
        chain=row.chain,
        further=row.further,
    )
