"""Everybody's leases and tasks, for people: looking at them, and ending them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.errors import NotFound, Reason
from broker.issuance.caller import OperatorCaller
from broker.issuance.ending import Ending
from broker.ports.leases import EndCause, Lease, Selector
from broker.ports.ledger import Ledger
from broker.ports.tasks import Task
from broker.ports.views import LeaseSearch, TaskSearch
from broker.scope.canonical import JsonValue


@dataclass(frozen=True, slots=True)
class EndOrder:
    """What an operator says to end something."""

    request_id: str
    reason: str
    wait: timedelta  # for the proof

    def audit(self) -> Mapping[str, JsonValue]:
        """What the trail says of it, beside who it was."""
        return {"request_id": self.request_id, "reason": self.reason}


class EverybodysDesk:
    """What people see and end of the leases and tasks of their tenant."""

    def __init__(self, store: Ledger, ending: Ending) -> None:
        self._store = store
        self._ending = ending

    async def lease(self, caller: OperatorCaller, lease_id: str) -> Lease:
        """One lease, whoever holds it. Raises NotFound (LEASE_NOT_FOUND), Tampered."""
        return await self._store.lease(caller.tenant, lease_id)

    async def leases(self, search: LeaseSearch, after: str, limit: int) -> tuple[Sequence[Lease], str]:
        """A page, newest first, and the id to continue after (empty: the end)."""
        found = await self._store.search_leases(search, after, limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else ""

    async def revoke(self, caller: OperatorCaller, lease_id: str, order: EndOrder) -> Lease:
        """End one lease; its state after at most ``order.wait``. Repeating it is harmless.

        It is ended before it is read: also where its row cannot be believed (Tampered). Raises NotFound.
        """
        return await self._ending.lease(
            Selector(caller.tenant, lease_id=lease_id),
            EndCause.REVOKED_BY_OPERATOR,
            caller.id,
            order.wait,
            lambda: self.lease(caller, lease_id),
            order.audit(),
        )

    async def task(self, caller: OperatorCaller, task_id: str) -> Task:
        """One task. Raises NotFound (TASK_NOT_FOUND), Tampered."""
        try:
            return await self._store.get_task(caller.tenant, task_id)
        except NotFound:
            raise _not_found(task_id) from None

    async def tasks(self, search: TaskSearch, after: str, limit: int) -> tuple[Sequence[Task], str]:
        """A page, newest first, and the id to continue after (empty: the end)."""
        found = await self._store.search_tasks(search, after, limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else ""

    async def complete(self, caller: OperatorCaller, task_id: str, order: EndOrder) -> tuple[Task, Sequence[Lease]]:
        """End a task and its leases; their states after at most ``order.wait``. Repeating it is harmless.

        Raises NotFound (TASK_NOT_FOUND).
        """
        try:
            return await self._ending.task(
                caller.tenant,
                task_id,
                EndCause.COMPLETED_BY_OPERATOR,
                caller.id,
                order.wait,
                audit=order.audit(),
            )
        except NotFound:
            raise _not_found(task_id) from None


def _not_found(task_id: str) -> NotFound:
    return NotFound(
        Reason.TASK_NOT_FOUND,
        f"there is no task {task_id!a}.",
        hint="`broker admin tasks` lists everybody's.",
        metadata={"taskId": task_id},
    )
