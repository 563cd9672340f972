"""What a lease was granted by: written with its intent, shown with the lease, asked by whoever handed it on."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import orjson

from broker.lease.machine import State
from broker.ports.leases import Lease
from broker.scope.containment import Reach
from broker.stores.break_glass_rows import UseRow, use_of
from broker.stores.break_glass_rows import trusted as trusted_use
from broker.stores.moves import by_break_glass
from broker.stores.pipeline_rows import OriginRow, parties, trusted
from broker.stores.rows import LeaseRow
from broker.stores.times import from_ms, to_ms
from broker.stores.view import View


def origin_of(view: View, tenant: str, lease_id: str) -> OriginRow | None:
    """What the lease was granted by; None for one that is nobody's part and no plan's. Raises Tampered."""
    if view.images is not None and (tenant, lease_id) in view.images.plain:
        return None
    raw = view.one("origin_of_lease", (tenant, lease_id))
    return None if raw is None else trusted(OriginRow, raw, view.seal)


def with_origin(view: View, lease: Lease) -> Lease:
    """``lease`` with what it was granted by."""
    if by_break_glass(lease.request_id):
        raw = view.one("use_of_lease", (lease.tenant, lease.id))
        return lease if raw is None else replace(lease, break_glass=use_of(trusted_use(UseRow, raw, view.seal)))
    origin = origin_of(view, lease.tenant, lease.id)
    if origin is None:
        return lease
    return replace(
        lease,
        plan_id=origin.plan_id,
        parent_lease_id=origin.parent_lease_id,
        delegation_id=origin.delegation_id,
    )


def handed_on_by(view: View, tenant: str, lease_id: str, agent: str) -> bool:
    """Whether the lease is a part of what ``agent`` held, and handed on."""
    origin = origin_of(view, tenant, lease_id)
    return origin is not None and any(each.id == agent for each in parties(origin.chain))


def is_live(lease: LeaseRow, now: datetime) -> bool:
    """Whether its holder has it now: issued, not ended, and not due to end."""
    now_ms = to_ms(now)
    return (
        lease.state == State.ACTIVE
        and now_ms < lease.expires_at
        and (lease.confirm_by is None or now_ms < lease.confirm_by)
    )


def reach_of_lease(lease: LeaseRow, further: int) -> Reach:
    """What a live lease reaches."""
    return Reach(
        template=lease.template,
        template_digest=lease.template_digest,
        connector=lease.connector,
        account=lease.account,
        environment=lease.environment,
        resource=lease.resource,
        access=lease.access,
        actions=frozenset(orjson.loads(lease.actions)),
        parameters=orjson.loads(lease.parameters),
        ends_at=from_ms(lease.expires_at),
        further=further,
    )
