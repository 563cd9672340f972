"""What a person asks for who breaks the glass, how they have proven who they are, and the request that it makes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from broker.breakglass.intent import use_fields
from broker.breakglass.rules import BY_CODE, BY_LOGIN
from broker.identity.agent import Agent
from broker.issuance.caller import OperatorCaller
from broker.ports.break_glass import BREAK_GLASS_REQUEST
from broker.ports.proofs import ProofRecord
from broker.ports.tasks import NewTask
from broker.scope.request import AccessRequest

# How much longer than its credential a person's own task is open, so that a retry fits in.
_TASK_SLACK = timedelta(minutes=10)
# A person's own tasks that are open at a time. What bounds uses is the rate.
_MAX_OPEN = 100


@dataclass(frozen=True, slots=True)
class Proven:
    """How a person has proven, just now, who they are: a fresh login, or a sealed code whose secret was compared."""

    record: ProofRecord | None = None  # of the login
    code_id: str = ""  # of the code

    @property
    def how(self) -> str:
        """BY_LOGIN, BY_CODE."""
        return BY_CODE if self.record is None else BY_LOGIN


@dataclass(frozen=True, slots=True)
class BreakGlassOrder:
    """What a person asks for. Neither ``agent`` nor ``task_id``: for themselves."""

    request_id: str
    template: str
    account: str
    environment: str
    resource: str
    ttl: timedelta
    reason: str
    incident: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    task_id: str = ""  # of an agent
    agent: str = ""  # its SPIFFE ID; empty with a task: who started that
    plan: str = ""  # where policy demands one of the agent


def fields_of(order: BreakGlassOrder) -> dict[str, str]:
    """What a login for this order is for."""
    return use_fields(
        template=order.template,
        parameters=order.parameters,
        account=order.account,
        environment=order.environment,
        resource=order.resource,
        ttl=order.ttl,
        reason=order.reason,
        incident=order.incident,
        task_id=order.task_id,
        agent=order.agent,
        plan=order.plan,
    )


def request_of(caller: OperatorCaller, order: BreakGlassOrder, agent: Agent | None) -> AccessRequest:
    """As a request of ``agent``'s task, or of the person's own."""
    return AccessRequest(
        # In its holder's requests, where an agent could else ask for the same under the same id.
        request_id=BREAK_GLASS_REQUEST + order.request_id,
        template=order.template,
        task_id=order.task_id if agent is not None else _task_id(caller.id, order.request_id),
        account=order.account,
        environment=order.environment,
        resource=order.resource,
        ttl=order.ttl,
        parameters=order.parameters,
        intent=order.reason,
        reason=order.reason,
        plan=order.plan,
        ticket=order.incident,
    )


def _task_id(person: str, request_id: str) -> str:
    """The same for a retry, which must find the task that the first try started."""
    return "task-" + hashlib.sha256(f"{person} {request_id}".encode()).hexdigest()[:34]


def own_task(caller: OperatorCaller, order: BreakGlassOrder, request: AccessRequest) -> NewTask:
    """The task of a person who asks for themselves."""
    return NewTask(
        tenant=caller.tenant,
        id=request.task_id,
        request_id=request.request_id,
        request_digest=request.digest(),
        creator=caller.id,
        participants=frozenset({caller.id}),
        purpose=order.reason,
        ticket=order.incident,
        sponsor=caller.id,
        created_at=caller.now,
        deadline=caller.now + order.ttl + _TASK_SLACK,
        max_open=_MAX_OPEN,
        task_type="break-glass",
    )
