"""Whether an id that somebody named is somebody else's: the one question whose answer no agent hears."""

from __future__ import annotations

import orjson

from broker.stores.rows import read_lease, read_task
from broker.stores.view import View


def is_someone_elses(view: View, tenant: str, who: str, task_id: str, lease_id: str) -> bool:
    """See LeaseStore.is_someone_elses. A row that fails its MAC says nothing about anybody."""
    return _task(view, tenant, who, task_id) or _lease(view, tenant, who, lease_id)


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
