"""What policy may know about one request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.identity.agent import Agent, Delivery, Person
from broker.identity.behalf import Wanted
from broker.lease.credential import Contract
from broker.scope.model import Scope
from broker.scope.request import AccessRequest


@dataclass(frozen=True, slots=True)
class Situation:
    """What the ledger knows around one request, as the broker established it. The default: nothing is known."""

    task_type: str = ""  # claimed by the task's creator
    approvals: frozenset[str] = frozenset()  # the approvals held for exactly this request, by name
    plan: str = ""  # of the plan this request is a step of: "registered", "confirmed", or "" without one
    delegators: tuple[str, ...] = ()  # principals (registry entries), the one who held the right first at the front
    on_behalf_of: Person | None = None  # proven by that person's own token, not claimed
    active_grants: frozenset[str] = (
        frozenset()
    )  # what the caller holds alive: "TEMPLATE" and "ACCESS:ENVIRONMENT" of each
    active_count: int = 0  # living leases of the caller
    pending_count: int = 0  # requests of the caller that wait for people
    latest_end: datetime | None = None  # when what it is a part of ends at the latest; nothing granted lives longer


NOTHING_KNOWN = Situation()


def wanted(scope: Scope) -> Wanted:
    """What ``scope`` is to whoever it is wanted for."""
    return Wanted(scope.template, scope.environment, scope.access.value)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """One request at the moment of deciding: who, what exactly, in which circumstances."""

    agent: Agent
    request: AccessRequest
    scope: Scope
    contract: Contract  # of the connector: how, and how fast, what it issues can be ended
    now: datetime
    delivery: Delivery = Delivery.DIRECT
    situation: Situation = NOTHING_KNOWN
