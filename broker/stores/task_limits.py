"""Retries and chains have an end: what one lease, and one task, may come to in all."""

from __future__ import annotations

from broker.errors import Exhausted, Reason
from broker.ports.intents import Intent
from broker.stores.images import counted
from broker.stores.rows import LeaseRow
from broker.stores.view import View


def check_attempts(lease: LeaseRow, intent: Intent) -> None:
    """Raises Exhausted (LIMIT_ATTEMPTS_PER_LEASE) where the lease has been retried often enough."""
    most = intent.limits.attempts_per_lease
    if lease.attempts >= most:
        raise Exhausted(
            Reason.LIMIT_ATTEMPTS_PER_LEASE,
            f"lease {lease.id} has had {lease.attempts} attempts; {most} is all that one request may have.",
            hint="Find out why none arrived, and ask under a fresh request id.",
            metadata={"leaseId": lease.id, "limit": str(most)},
        )


def check_leases(view: View, intent: Intent) -> None:
    """Raises Exhausted (LIMIT_LEASES_PER_TASK) where the task has had as many leases as it may."""
    most, task = intent.limits.leases_per_task, intent.request.task_id
    images, key = view.images, (intent.tenant, task)
    if images is not None and images.of_task.get(key, most) < most:
        return
    (count,) = view.row("count_leases_of_task", (intent.tenant, task, most))
    if images is not None and count < most:
        counted(images.of_task, key, count)
    if count >= most:
        raise limit_reached(
            Reason.LIMIT_LEASES_PER_TASK, f"task {task} has had {most} leases", "Start a new task.", most
        )


def limit_reached(reason: Reason, what: str, hint: str, limit: int) -> Exhausted:
    """The error for one of these limits; operators set them in the configuration's section ``limits``."""
    return Exhausted(reason, f"{what}, which is the limit.", hint=hint, metadata={"limit": str(limit)})
