"""Is the caller suspended? The one helper for every RPC of agents that begins something.

Granting needs no call of it: the intent transaction asks by itself, and it is what counts. This is for what is
not decided there (tasks, holds, streams), so that a suspended agent hears why before it waits for anything.
"""

from __future__ import annotations

from broker.issuance.caller import Caller
from broker.ports import LeaseStore
from broker.suspension.suspension import Subject


async def check_suspended(store: LeaseStore, caller: Caller, task_id: str = "") -> None:
    """Raises Denied (SUSPENDED) where the caller, who answers for it, its task or everything is stopped."""
    agent = caller.agent
    subject = Subject(agent=caller.id, entry=agent.principal, owner=agent.owner.id, task=task_id)
    await store.check_suspended(caller.tenant, subject, caller.now)
