"""What policy may know about one request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from broker.identity.agent import Agent, Delivery, Person
from broker.identity.behalf import Wanted
from broker.lease.credential import Contract
from broker.scope.model import AccessClass, Scope
from broker.scope.request import AccessRequest

_CHANGES = frozenset(each.value for each in AccessClass if each is not AccessClass.READ)


def names_of_grant(template: str, access: str, environment: str) -> tuple[str, ...]:
    """What policies call a living lease of this kind. The group of its action is one of the names (the schema's)."""
    return (template, *_with_group(f"{access}:{environment}"))


def with_groups(names: Iterable[str]) -> frozenset[str]:
    """``names`` of grants, with the groups that they are in: from where only template and kind are said."""
    return frozenset(each for name in names for each in _with_group(name))


def _with_group(name: str) -> tuple[str, ...]:
    access, colon, environment = name.partition(":")
    return (name, f"change:{environment}") if colon and access in _CHANGES else (name,)


@dataclass(frozen=True, slots=True)
class Situation:
    """What the ledger knows around one request, as the broker established it. The default: nothing is known."""

    task_type: str = ""  # claimed by the task's creator
    approvals: frozenset[str] = frozenset()  # the approvals held for exactly this request, by name
    plan: str = ""  # of the plan this request is a step of: "registered", "confirmed", or "" without one
    delegators: tuple[str, ...] = ()  # principals (registry entries), the one who held the right first at the front
    on_behalf_of: Person | None = None  # proven by that person's own token, not claimed
    active_grants: frozenset[str] = frozenset()  # what the caller holds alive, by the names of each (names_of_grant)
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
