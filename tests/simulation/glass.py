"""What break-glass owes, as the trail tells it: it is announced, rare, and reviewed by others, or blocks the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from broker.breakglass.rules import BreakGlassRule
from broker.stores.times import span_ms
from tests.issuance.world import PEOPLE
from tests.simulation.broken import Broken

RULE = BreakGlassRule(
    frozenset({"sre"}),
    max_ttl=timedelta(minutes=5),
    review_within=timedelta(seconds=40),
    max_uses=5,
    per=timedelta(seconds=15),
)
USERS = tuple(sorted(key for key, person in PEOPLE.items() if person.groups & RULE.groups and not person.disabled))


@dataclass
class Use:
    """One, by its lease."""

    person: str  # issuer#subject
    request: str
    at_ms: int
    review_due_ms: int
    owner: str = ""  # of the agent that it is for: issuer#subject
    ended: bool = False  # and that was told
    reviewed: bool = False


@dataclass
class Glass:
    """What one ledger has told of it."""

    uses: dict[str, Use] = field(default_factory=dict)
    untold: dict[str, str] = field(default_factory=dict)  # leases that were intended, and their request ids

    def copy(self) -> Glass:
        """That nothing changes any more."""
        return Glass({lease: replace(use) for lease, use in self.uses.items()})

    def intended(self, record: dict[str, Any]) -> None:
        """An attempt of an emergency; another one of a lease that is known is a retry."""
        if record["lease_id"] not in self.uses:
            self.untold[record["lease_id"]] = record["data"]["request_id"]

    def used(self, record: dict[str, Any], owner: str, void: frozenset[str]) -> None:
        """``void``: leases of which it is proved that nothing was issued. Raises Broken."""
        lease, data, at = record["lease_id"], record["data"], record["at_ms"]
        use = Use(record["actor"], self.untold.pop(lease, ""), at, data["review_due_ms"], owner)
        earlier = {name: each for name, each in self.uses.items() if name not in void}
        for name, each in earlier.items():
            if not each.reviewed and each.review_due_ms <= at:
                raise Broken(f"T21: {lease} is an emergency, and {name}, whose review is overdue, is one of that group")
        since = at - span_ms(RULE.per)
        others = {(e.person, e.request) for e in earlier.values() if e.at_ms > since} - {(use.person, use.request)}
        if len(others) >= RULE.max_uses:
            raise Broken(f"T21: {lease} is an emergency after {len(others)} others, of {RULE.max_uses} that may be")
        if use.person not in {PEOPLE[key].id for key in USERS} or not (data["reason"] and data["incident"]):
            raise Broken(f"T21: {lease} is an emergency of {use.person}, who may not, or says nothing of it")
        self.uses[lease] = use

    def ended(self, lease: str) -> None:
        """It was told that it is over. Raises Broken."""
        if self.uses[lease].ended:
            raise Broken(f"T21: the end of {lease} was told twice")
        self.uses[lease].ended = True

    def reviewed(self, lease: str, reviewer: str, *, living: bool) -> None:
        """Raises Broken."""
        use = self.uses[lease]
        if reviewer in (use.person, use.owner) or use.reviewed or living:
            raise Broken(f"T21: {lease} is reviewed by {reviewer}, who has a part in it, or again, or while it is used")
        use.reviewed = True

    def look(self) -> None:
        """Between two commits: what was intended was announced with it. Raises Broken."""
        if self.untold:
            raise Broken(f"T21: nobody was told of {sorted(self.untold)}")

    def left(self) -> list[str]:
        """Leases whose end was not told."""
        return [lease for lease, use in self.uses.items() if not use.ended]
