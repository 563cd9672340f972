"""A suspension: what it stops, and what the stopped are told.

Belongs here: the kinds, whether a suspension covers somebody, and the refusal. Does not belong here: who may
suspend (``broker/api/authorization.py``), and ending what lives (``broker/stores/suspension_ops.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from broker.errors import Denied, Reason


class Kind(StrEnum):
    """What is suspended; ``Suspension.value`` says which one."""

    AGENT = "AGENT"  # one SPIFFE ID
    ENTRY = "ENTRY"  # a registry entry: all its workloads
    OWNER = "OWNER"  # all agents that a person, by (issuer, subject), answers for
    TASK = "TASK"
    TEMPLATE = "TEMPLATE"
    CONNECTOR = "CONNECTOR"
    ACCOUNT = "ACCOUNT"
    TRUST_DOMAIN = "TRUST_DOMAIN"  # all agents of it
    EVERYTHING = "EVERYTHING"  # no value


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks for what, as far as a suspension looks at it; empty: not part of what is asked."""

    agent: str
    entry: str
    owner: str
    task: str = ""
    template: str = ""
    connector: str = ""
    account: str = ""

    def value(self, kind: Kind) -> str:
        """What a suspension of ``kind`` compares its value with."""
        if kind is Kind.TRUST_DOMAIN:
            return trust_domain_of(self.agent)
        return "" if kind is Kind.EVERYTHING else str(getattr(self, kind.value.lower()))


def trust_domain_of(spiffe_id: str) -> str:
    """Of a SPIFFE ID that was validated when it came in."""
    return spiffe_id.removeprefix("spiffe://").partition("/")[0]


@dataclass(frozen=True, slots=True)
class Lift:
    """One person's word that a suspension shall end. ``by`` is (issuer, subject), or ``broker`` where time ended it."""

    by: str
    name: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Suspension:
    """One suspension. ``trusted`` False: its row fails its MAC, so that nobody knows what it stopped."""

    tenant: str
    id: str
    kind: Kind
    value: str
    reason: str
    author: str
    author_name: str
    created_at: datetime
    until: datetime | None  # None: until somebody lifts it
    first: Lift | None  # where two people are needed: the first
    lifted: Lift | None
    trusted: bool = True

    def in_force(self, now: datetime) -> bool:
        """Whether it stops anybody at ``now``. One that cannot be believed does, whatever it says."""
        if not self.trusted:
            return True
        return self.lifted is None and (self.until is None or now < self.until)

    def covers(self, subject: Subject) -> bool:
        """Whether ``subject`` is stopped by it. One that cannot be believed may have been about anybody."""
        if not self.trusted or self.kind is Kind.EVERYTHING:
            return True
        return bool(self.value) and subject.value(self.kind) == self.value

    @property
    def needs_two(self) -> bool:
        """Whether two people must lift it: it stops everything, or nobody knows what it stops."""
        return self.kind is Kind.EVERYTHING or not self.trusted


def suspended(by: Suspension) -> Denied:
    """What is said to who is stopped by ``by``: which suspension, why, until when, and whom to ask."""
    if not by.trusted:
        return Denied(
            Reason.SUSPENDED,
            f"suspension {by.id} is in force, and its record was changed by something other than the broker.",
            hint="Ask the operators of this broker; until they have looked at it, nothing is granted.",
            metadata={"suspensionId": by.id},
        )
    what = "everything" if by.kind is Kind.EVERYTHING else f"{by.kind.value.lower().replace('_', ' ')} {by.value}"
    ends = "" if by.until is None else f" until {by.until.isoformat()}"
    metadata = {"suspensionId": by.id, "kind": by.kind.value, "ask": by.author_name}
    return Denied(
        Reason.SUSPENDED,
        f"{what} is suspended{ends}: {by.reason}",
        hint=f"Ask {by.author_name}. Asking again is of no use before.",
        metadata=metadata | ({"until": by.until.isoformat()} if by.until is not None else {}),
    )
