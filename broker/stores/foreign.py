"""Whether an id that somebody named is somebody else's: the one question whose answer no agent hears."""

from __future__ import annotations

from contextlib import suppress

import orjson

from broker.errors import Tampered
from broker.ports.leases import NamedIds
from broker.stores.access_rows import read_request
from broker.stores.pipeline_rows import DelegationRow, PlanRow, parties, trusted
from broker.stores.rows import read_lease, read_task
from broker.stores.view import View


def is_someone_elses(view: View, tenant: str, who: str, ids: NamedIds) -> bool:
    """See LeaseStore.is_someone_elses. A row that fails its MAC says nothing about anybody."""
    return (
        _task(view, tenant, who, ids.task_id)
        or _lease(view, tenant, who, ids.lease_id)
        or _access_request(view, tenant, who, ids.access_request_id)
        or _plan(view, tenant, who, ids.plan_id)
        or _delegation(view, tenant, who, ids.delegation_id)
    )


def _task(view: View, tenant: str, who: str, task_id: str) -> bool:
    raw = view.one("task_by_id", {"tenant": tenant, "task_id": task_id}) if task_id else None
    if raw is None:
        return False
    task = read_task(raw, view.seal)
    return task.trusted and who not in orjson.loads(task.participants)


def _lease(view: View, tenant: str, who: str, lease_id: str) -> bool:
    raw = view.one("lease_by_id", {"tenant": tenant, "lease_id": lease_id}) if lease_id else None
    if raw is None:
        return False
    lease = read_lease(raw, view.seal)
    return lease.trusted and lease.holder != who


def _access_request(view: View, tenant: str, who: str, access_request_id: str) -> bool:
    raw = view.one("access_request_by_id", {"tenant": tenant, "id": access_request_id}) if access_request_id else None
    if raw is None:
        return False
    row = read_request(raw, view)
    return row.trusted and row.holder != who


def _plan(view: View, tenant: str, who: str, plan_id: str) -> bool:
    raw = view.one("plan_by_id", {"tenant": tenant, "plan_id": plan_id}) if plan_id else None
    if raw is None:
        return False
    with suppress(Tampered):
        return _task(view, tenant, who, trusted(PlanRow, raw, view.seal).task_id)
    return False


def _delegation(view: View, tenant: str, who: str, delegation_id: str) -> bool:
    raw = view.one("delegation_by_id", {"tenant": tenant, "delegation_id": delegation_id}) if delegation_id else None
    if raw is None:
        return False
    with suppress(Tampered):
        row = trusted(DelegationRow, raw, view.seal)
        return who not in {row.delegate, *(each.id for each in parties(row.chain))}
    return False
