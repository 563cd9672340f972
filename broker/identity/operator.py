"""Who operates the broker: a person, how it was proven that it is that person, and the roles that follow.

Belongs here: roles, and which groups of people give them. Does not belong here: which role an RPC takes
(``broker/api/authorization.py``), and how a credential is checked (``broker/api/people.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from broker.identity.agent import Person
from broker.secret import Secret

# How it was proven who somebody is.
LOGIN = "id-token"  # of a login at an OpenID provider
FRESH_LOGIN = "fresh-id-token"  # of one for exactly this act


class Role(StrEnum):
    """What a person may be to the broker. None contains another: who shall be two things is given both."""

    VIEWER = "viewer"  # looks
    APPROVER = "approver"  # decides on requests
    OPERATOR = "operator"  # runs it: stops and starts
    SECURITY = "security"  # answers for incidents: stops and starts
    AUDITOR = "auditor"  # looks, at the trail above all


EVERY_ROLE = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Operator:
    """An authenticated person, with the groups that count now.

    ``key`` is the person's in people.yaml, for display; identity is the person's id.
    """

    person: Person
    key: str
    how: str
    code: Secret | None = None  # a sealed code of break-glass, that nobody has looked at yet
    workload: str = ""  # of automation: its SPIFFE ID, which it is instead of a person

    @property
    def id(self) -> str:
        """As stored and compared everywhere."""
        return self.workload or self.person.id


class RoleGrants:
    """Which groups of people.yaml give which role."""

    def __init__(self, groups: Mapping[Role, frozenset[str]]) -> None:
        self._groups = dict(groups)

    def of(self, person: Person) -> frozenset[Role]:
        """The roles of ``person``: each that one of its groups gives."""
        return frozenset(role for role, groups in self._groups.items() if groups & person.groups)
