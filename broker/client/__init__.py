"""The SDK agents import: ``broker.client.connect()`` and what it returns.

::

    async with broker.client.connect() as client:
        async with client.task("reconcile yesterday's orders") as task:
            login = await task.request(
                "orders-readonly", account="shop", environment="dev", resource="orders", ttl="5m"
            )
            connection = await psycopg.AsyncConnection.connect(login.conninfo())

Scripts without asyncio use :mod:`broker.client.sync` the same way. Failures are the types of
:mod:`broker.errors`.
"""

from broker.audit.report import Artifact, Mutation, TaskReport
from broker.client.approval import ApprovalNeeded
from broker.client.client import AsyncClient
from broker.client.connect import connect
from broker.client.model import (
    AccessRequest,
    AccessRequestEvent,
    ApprovalStatus,
    BreakGlass,
    Completion,
    Decision,
    Delegation,
    Grant,
    Identity,
    Lease,
    LeaseEvent,
    ParameterSpec,
    Plan,
    PlannedAction,
    RevocationContract,
    ScopeTemplate,
    TaskFacts,
)
from broker.client.task import Ask, Task

__all__ = [
    "AccessRequest",
    "AccessRequestEvent",
    "ApprovalNeeded",
    "ApprovalStatus",
    "Artifact",
    "Ask",
    "AsyncClient",
    "BreakGlass",
    "Completion",
    "Decision",
    "Delegation",
    "Grant",
    "Identity",
    "Lease",
    "LeaseEvent",
    "Mutation",
    "ParameterSpec",
    "Plan",
    "PlannedAction",
    "RevocationContract",
    "ScopeTemplate",
    "Task",
    "TaskFacts",
    "TaskReport",
    "connect",
]
