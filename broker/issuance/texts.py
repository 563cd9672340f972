"""Agents' whole texts, for people: reading them is told in the trail, and so is erasing them."""

from __future__ import annotations

from collections.abc import Sequence

from broker.audit.claimed import Claimed
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.issuance.caller import OperatorCaller
from broker.ports.clock import Clock
from broker.ports.lease_store import LeaseStore
from broker.scope.blank import refuse_blank


class TextDesk:
    """What people do with the texts of a task."""

    def __init__(self, store: LeaseStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def read(self, caller: OperatorCaller, task_id: str) -> Sequence[Claimed]:
        """What was said, oldest first. Raises NotFound (TASK_NOT_FOUND); Tampered for what is not ours."""
        await self._store.get_task(caller.tenant, task_id)
        found = await self._store.claimed_texts(caller.tenant, task_id)
        # Told before it is shown: who reads what was said in confidence leaves a trace, or gets nothing.
        event = AuditEvent(
            EventType.TEXTS_READ,
            caller.id,
            Vouch.BROKER,
            tenant=caller.tenant,
            task_id=task_id,
            data={"texts": len(found)},
        )
        await self._store.append([event], self._clock.now())
        return found

    async def erase(self, caller: OperatorCaller, task_id: str, reason: str) -> bool:
        """Erase them; False if there are none. Raises NotFound (TASK_NOT_FOUND)."""
        refuse_blank("reason", reason)
        await self._store.get_task(caller.tenant, task_id)
        return await self._store.erase_texts(caller.tenant, task_id, caller.id, reason, self._clock.now())
