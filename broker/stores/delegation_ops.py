"""Operations on delegations, each inside one write transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.delegation.delegation import Delegation, check_hand_over, delegation_ended, delegation_not_found, handed
from broker.errors import Conflict, Denied, Reason
from broker.identity.party import Party
from broker.plan.roles import EXECUTOR, require_other
from broker.ports.leases import EndCause
from broker.ports.pipelines import NewDelegation
from broker.scope.canonical import JsonValue, canonical_json
from broker.stores import plan_ops
from broker.stores.end_ops import end_selected, lease_ended, lease_not_found
from broker.stores.origins import is_live, origin_of, reach_of_lease
from broker.stores.pipeline_rows import (
    DelegationRow,
    delegation_of,
    insert,
    parties,
    trusted,
    update_revoked,
    written_chain,
)
from broker.stores.rows import LeaseRow, read_lease, trust_lease
from broker.stores.task_limits import limit_reached
from broker.stores.task_ops import takes_part
from broker.stores.times import from_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View


def delegate(tx: Transaction, new: NewDelegation) -> Delegation:
    """See PipelineStore.delegate. Everything is decided before anything is written."""
    key = {"tenant": new.tenant, "delegator": new.delegator.id, "request_id": new.request_id}
    raw = tx.one("delegation_by_request", key)
    if raw is not None:
        return _repeated(trusted(DelegationRow, raw, tx.seal), new)
    lease = held(tx, new.tenant, new.lease_id, new.delegator.id)
    if not is_live(lease, new.created_at):
        raise lease_ended(lease.id)
    task = plan_ops.open_task(tx, new.tenant, lease.task_id, new.delegator, new.created_at)
    if not takes_part(task, new.delegate.id):
        raise _no_participant(new.delegate, task.id)
    made = _decided(tx, new, lease)
    _check_limits(tx, new, lease)
    row = _row(new, made)
    insert(tx, "insert_delegation", row)
    about: dict[str, JsonValue] = {
        "delegate": made.delegate.id,
        "delegate_principal": made.delegate.principal,
        "chain": [[each.id, each.principal] for each in made.chain],
        "resource": made.resource,
        "parameters": dict(made.parameters),
        "further": made.further,
        "expires_ms": row.expires_at,
        "request_id": new.request_id,
    }
    _tell(tx, EventType.DELEGATION_GIVEN, row, new.delegator.id, row.created_at, about)
    return made


def held(view: View, tenant: str, lease_id: str, holder: str) -> LeaseRow:
    """The lease, if ``holder`` holds it. Raises NotFound (LEASE_NOT_FOUND), Tampered."""
    raw = view.one("lease_of_holder", {"tenant": tenant, "lease_id": lease_id, "holder": holder})
    if raw is None:
        raise lease_not_found(lease_id)
    return trust_lease(read_lease(raw, view.seal))


def _decided(tx: Transaction, new: NewDelegation, lease: LeaseRow) -> Delegation:
    origin = origin_of(tx, lease.tenant, lease.id)
    before = () if origin is None else parties(origin.chain)
    remaining = origin.further if origin is not None and origin.delegation_id else new.limits.delegation_depth
    whole = reach_of_lease(lease, remaining - 1)
    made = Delegation(
        tenant=new.tenant,
        id=new.id,
        task_id=lease.task_id,
        lease_id=lease.id,
        chain=(*before, new.delegator),
        delegate=new.delegate,
        resource=new.resource,
        parameters=new.parameters,
        further=new.further,
        created_at=new.created_at,
        expires_at=new.expires_at or from_ms(lease.expires_at),
    )
    part = replace(handed(made, whole), template_digest=new.template_digest)
    check_hand_over(made, whole, part, new.compared, new.limits.delegation_depth)
    if origin is not None and origin.plan_id:
        require_other(plan_ops.find(tx, new.tenant, origin.plan_id), new.delegate, EXECUTOR)
    return made


def _check_limits(tx: Transaction, new: NewDelegation, lease: LeaseRow) -> None:
    for query, key, most, what in (
        ("count_delegations_of_lease", "lease_id", new.limits.delegations_per_lease, f"lease {lease.id}"),
        ("count_delegations_of_task", "task_id", new.limits.delegations_per_task, f"task {lease.task_id}"),
    ):
        named = {"lease_id": lease.id, "task_id": lease.task_id}
        if tx.row(query, {"tenant": new.tenant, key: named[key], "most": most})[0] >= most:
            hint = "Have the agents ask for themselves."
            raise limit_reached(Reason.LIMIT_DELEGATIONS, f"{what} has had {most} delegations", hint, most)


def _no_participant(delegate_: Party, task_id: str) -> Denied:
    return Denied(
        Reason.DELEGATE_NOT_PARTICIPANT,
        f"{delegate_.id} has no part in task {task_id}.",
        hint="A task's creator names its participants when it starts it.",
        metadata={"taskId": task_id, "delegate": delegate_.id},
    )


def _row(new: NewDelegation, made: Delegation) -> DelegationRow:
    return DelegationRow(
        tenant=new.tenant,
        id=new.id,
        task_id=made.task_id,
        lease_id=made.lease_id,
        delegator=new.delegator.id,
        request_id=new.request_id,
        request_digest=new.request_digest,
        chain=written_chain(made.chain),
        delegate=made.delegate.id,
        delegate_principal=made.delegate.principal,
        resource=made.resource,
        parameters=canonical_json(made.parameters).decode(),
        further=made.further,
        created_at=to_ms(made.created_at),
        expires_at=to_ms(made.expires_at),
        revoked_at=None,
    )


def _repeated(row: DelegationRow, new: NewDelegation) -> Delegation:
    if row.request_digest != new.request_digest:
        raise Conflict(
            Reason.REQUEST_ID_REUSED,
            f"request id {new.request_id!r} already names delegation {row.id}, which says something else.",
            hint="Use a fresh request id for a new delegation.",
            metadata={"requestId": new.request_id, "delegationId": row.id},
        )
    return delegation_of(row)


def find(view: View, tenant: str, delegation_id: str) -> DelegationRow:
    """The delegation's row. Raises NotFound (DELEGATION_NOT_FOUND), Tampered."""
    raw = view.one("delegation_by_id", {"tenant": tenant, "delegation_id": delegation_id})
    if raw is None:
        raise delegation_not_found(delegation_id)
    return trusted(DelegationRow, raw, view.seal)


def of_task(view: View, tenant: str, task_id: str, agent: str) -> list[Delegation]:
    """See PipelineStore.task_delegations."""
    rows = view.all("delegations_of_task", {"tenant": tenant, "task_id": task_id, "agent": agent})
    return [delegation_of(trusted(DelegationRow, raw, view.seal)) for raw in rows]


def redeemable(
    view: View, tenant: str, delegation_id: str, delegate_: Party, now: datetime
) -> tuple[Delegation, LeaseRow]:
    """See PipelineStore.redeemable."""
    row = find(view, tenant, delegation_id)
    if row.delegate != delegate_.id:
        raise delegation_not_found(delegation_id)
    made = delegation_of(row)
    raw = view.one("lease_by_id", {"tenant": tenant, "lease_id": row.lease_id})
    parent = None if raw is None else trust_lease(read_lease(raw, view.seal))
    if made.revoked_at is not None or now >= made.expires_at or parent is None or not is_live(parent, now):
        raise delegation_ended(made)
    return made, parent


def revoke(tx: Transaction, tenant: str, delegation_id: str, delegator: str, now: datetime) -> Delegation:
    """See PipelineStore.revoke_delegation."""
    row = find(tx, tenant, delegation_id)
    if all(each.id != delegator for each in parties(row.chain)):
        raise delegation_not_found(delegation_id)
    if row.revoked_at is None:
        row.revoked_at = to_ms(now)
        update_revoked(tx, row)
        by = {"tenant": tenant, "delegation_id": delegation_id}
        ended = end_selected(tx, "unended_by_delegation", by, EndCause.DELEGATION_REVOKED, delegator, row.revoked_at)
        _tell(tx, EventType.DELEGATION_REVOKED, row, delegator, row.revoked_at, {"attempts_ended": ended})
    return delegation_of(row)


def _tell(
    tx: Transaction, event: EventType, row: DelegationRow, actor: str, now_ms: int, data: dict[str, JsonValue]
) -> None:
    about: dict[str, JsonValue] = {"delegation_id": row.id, "part_of": row.lease_id, **data}
    tx.audit(AuditEvent(event, actor, Vouch.BROKER, tenant=row.tenant, task_id=row.task_id, data=about), now_ms)
