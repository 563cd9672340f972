"""Is the caller suspended? The one helper for every RPC of agents that begins something.

Granting needs no call of it: the intent transaction asks by itself, and it is what counts. This is for what is
not decided there (tasks, holds, streams), so that a suspended agent hears why before it waits for anything.
"""

from __future__ import annotations

from dataclasses import replace

from broker.issuance.caller import Caller
from broker.ports.lease_store import LeaseStore
from broker.scope.model import Scope
from broker.suspension.suspension import Subject


async def check_suspended(store: LeaseStore, caller: Caller, task_id: str = "", scope: Scope | None = None) -> None:
    """Raises Denied (SUSPENDED) where the caller, who answers for it, its task, what it asks for or everything is
    stopped.
    """
    agent = caller.agent
    subject = Subject(agent=caller.id, entry=agent.principal, owner=agent.owner.id, task=task_id)
    if scope is not None:
        asked = {"template": scope.template, "connector": scope.connector, "account": scope.account}
        subject = replace(subject, **asked)
    await store.check_suspended(caller.tenant, subject, caller.now)
