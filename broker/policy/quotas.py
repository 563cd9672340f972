"""How much may be going on at once, and how often it may be asked, counted by one property of a request.

Belongs here: what a quota is, which quotas one request falls under, and by what it is counted there. The
counting is elsewhere: living leases in the ledger, inside the intent transaction (``stores/quota_ops.py``);
requests by a rate in memory (``rate.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from broker.errors import BrokerError
from broker.identity.agent import Agent, Person, Registry, Tier
from broker.identity.spiffe_id import SpiffeId


class Per(StrEnum):
    """What a quota is counted by."""

    AGENT = "agent"  # one SPIFFE ID
    ENTRY = "entry"  # one entry of the registry: all that its pattern matches together
    OWNER = "owner"  # all agents that one person answers for
    TASK = "task"
    TEMPLATE = "template"
    CONNECTOR = "connector"


# Kinds whose subjects are agents, so that a quota can be for some tiers only.
OF_AGENTS = frozenset({Per.AGENT, Per.ENTRY})


@dataclass(frozen=True, slots=True)
class Rate:
    """``requests`` at once, and after that one more each ``within / requests``."""

    requests: int
    within: timedelta

    @property
    def interval(self) -> timedelta:
        """The time in which one request is earned back."""
        return self.within / self.requests


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota as operators wrote it. ``only`` and ``tiers``: for these alone; empty: for every subject.

    ``only`` holds names of entries (for an agent: of its entry), :func:`person_key` of owners, names of templates
    or of connectors.
    """

    name: str
    per: Per
    live_leases: int | None = None  # None: does not bound them
    rate: Rate | None = None
    only: frozenset[str] = frozenset()
    tiers: frozenset[Tier] = frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is counted by."""

    agent: Agent
    task_id: str
    template: str
    connector: str


@dataclass(frozen=True, slots=True)
class Counted:
    """One quota that a request falls under. ``subject`` is whose count it is; ``shown`` is how people call that."""

    quota: Quota
    subject: str
    shown: str


def person_key(person: Person) -> str:
    """(issuer, subject) as one text; neither holds a space."""
    return f"{person.issuer} {person.subject}"


def counted(quotas: Iterable[Quota], asked: Asked) -> tuple[Counted, ...]:
    """The quotas that ``asked`` falls under, in the order they are written."""
    return tuple(Counted(quota, *_subject(quota.per, asked)) for quota in quotas if _for_these(quota, asked))


def belongs(registry: Registry, per: Per, subject: str) -> Callable[[str], bool]:
    """Whether a holder (a SPIFFE ID as the ledger has it) is of the entry, or the owner, ``subject``.

    By the registry as it is now: who left it belongs to nobody, and who changed hands to the new owner.
    """

    def of_subject(holder: str) -> bool:
        try:
            agent = registry.find(SpiffeId.parse(holder))
        except BrokerError:
            return False
        return (agent.principal if per is Per.ENTRY else person_key(agent.owner)) == subject

    return of_subject


def _for_these(quota: Quota, asked: Asked) -> bool:
    if quota.tiers and asked.agent.tier not in quota.tiers:
        return False
    if not quota.only:
        return True
    name = asked.agent.principal if quota.per is Per.AGENT else _subject(quota.per, asked)[0]
    return name in quota.only


def _subject(per: Per, asked: Asked) -> tuple[str, str]:
    match per:
        case Per.AGENT:
            return str(asked.agent.spiffe_id), str(asked.agent.spiffe_id)
        case Per.ENTRY:
            return asked.agent.principal, asked.agent.principal
        case Per.OWNER:
            return person_key(asked.agent.owner), asked.agent.owner.display_name
        case Per.TASK:
            return asked.task_id, asked.task_id
        case Per.TEMPLATE:
            return asked.template, asked.template
        case Per.CONNECTOR:
            return asked.connector, asked.connector
