"""For whom a task acts, asked by every request. Nothing of it ever changes, so what was read once is kept."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from broker.errors import NotFound
from broker.identity.behalf import Human
from broker.issuance.caller import Caller
from broker.ports.lease_store import LeaseStore

# Tasks of which it is kept, about half a kilobyte each.
MOST = 4_096


class _Fixed(NamedTuple):
    """Of a task, what was fixed when it began."""

    participants: frozenset[str]
    human: Human | None


class Humans:
    """Looks up for whom tasks act. The intent transaction checks the task's row anew, its MAC included."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self._known: OrderedDict[tuple[str, str], _Fixed] = OrderedDict()

    async def human(self, caller: Caller, task_id: str) -> Human | None:
        """None, too, for a task that is not there or not the caller's: the intent refuses both in the same words."""
        key = (caller.tenant, task_id)
        fixed = self._known.get(key)
        if fixed is None:
            try:
                task = await self._store.get_task(caller.tenant, task_id)
            except NotFound:
                return None
            fixed = self._known[key] = _Fixed(task.participants, task.on_behalf_of)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        return fixed.human if caller.id in fixed.participants else None
