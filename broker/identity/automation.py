"""Operators' automation: a workload that looks and stops on behalf of those who run the broker. Never one that decides.

Registered in people.yaml by its exact SPIFFE ID, with a person who answers for it and the roles it has. Which RPCs it
may call with them is in the authorization table; what takes a fresh login takes a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.identity.agent import Person
from broker.identity.operator import Operator, Role
from broker.identity.spiffe_id import SpiffeId

# How it was proven who it is.
SVID = "x509-svid"


@dataclass(frozen=True, slots=True)
class Automation:
    """One registered workload."""

    spiffe_id: SpiffeId
    owner: Person
    roles: frozenset[Role]
    description: str = ""
    until: datetime | None = None  # from then on as if it were not registered

    def operator(self) -> Operator:
        """As who it comes in. It is nobody of people.yaml, in no group, and answers to no one's name but its own."""
        named = f"{self.description or self.spiffe_id} (automation of {self.owner.display_name})"
        return Operator(Person("", str(self.spiffe_id), named), "", SVID, workload=str(self.spiffe_id))
