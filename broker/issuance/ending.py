"""Ending leases and tasks, and waiting for the proof: the same for whoever may, at every door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta

from broker.audit.report import TaskReport
from broker.issuance.waiting import only_time_ends, until
from broker.lease.machine import TERMINAL
from broker.ports.clock import Clock
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause, Lease, Selector
from broker.ports.tasks import Task, TaskState
from broker.scope.canonical import JsonValue


class Ending:
    """What desks end things by. Whether the caller may is decided before. ``kick`` wakes a connector's revoker."""

    def __init__(self, store: LeaseStore, kick: Callable[[str], None], clock: Clock) -> None:
        self._store = store
        self._kick = kick
        self._clock = clock

    async def lease(
        self,
        selector: Selector,
        cause: EndCause,
        actor: str,
        wait: timedelta,
        read: Callable[[], Awaitable[Lease]],
        audit: Mapping[str, JsonValue] | None = None,
    ) -> Lease:
        """End the one lease that is selected; its state, as ``read`` tells it, after at most ``wait``."""
        await self._store.end_leases(selector, cause, actor, self._clock.now(), audit)
        lease = await read()
        if lease.state in TERMINAL:
            return lease
        self._kick(lease.connector)

        async def ended() -> bool:
            nonlocal lease
            lease = await read()
            return lease.state in TERMINAL or only_time_ends(lease)

        await until(ended, self._store, wait.total_seconds())
        return lease

    async def task(
        self,
        tenant: str,
        task_id: str,
        cause: EndCause,
        actor: str,
        wait: timedelta,
        report: TaskReport | None = None,
        audit: Mapping[str, JsonValue] | None = None,
    ) -> tuple[Task, Sequence[Lease]]:
        """Complete a task and end its leases; their states after at most ``wait``. What is over stays as it is."""
        try:
            task = await self._store.end_task(
                tenant, task_id, TaskState.COMPLETED, cause, actor, self._clock.now(), report, audit
            )
        finally:  # also where only the report is refused
            leases = await self._store.task_leases(tenant, task_id)
            for connector in {lease.connector for lease in leases if lease.state not in TERMINAL}:
                self._kick(connector)

        async def all_ended() -> bool:
            nonlocal leases
            leases = await self._store.task_leases(tenant, task_id)
            return all(lease.state in TERMINAL or only_time_ends(lease) for lease in leases)

        await until(all_ended, self._store, wait.total_seconds())
        return task, leases
