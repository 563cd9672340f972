"""Who may approve, as the trail tells it: somebody who has no part in it; and each approval is used once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.issuance.world import PEOPLE
from tests.simulation.broken import Broken


@dataclass
class Approvals:
    """Of one run, whatever a ledger has forgotten. ``owners``: of each agent, by SPIFFE ID, its owner's id."""

    told: Counter[str]
    owners: Mapping[str, str]
    _sponsors: dict[str, str] = field(default_factory=dict)  # by task, the id of the person it names
    _chains: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by delegation, who handed the right on
    _asking: dict[str, frozenset[str]] = field(default_factory=dict)  # by access request, everybody with a part in it
    _said_yes: set[str] = field(default_factory=set)  # access requests
    _used: set[str] = field(default_factory=set)

    def take(self, record: dict[str, Any]) -> None:
        """A record about a task, a delegation or an access request."""
        kind, data = record["type"], record["data"]
        if kind == "task.started":
            self._sponsors[record["task_id"]] = (
                PEOPLE[sponsor].id if (sponsor := data["sponsor"]) in PEOPLE else sponsor
            )
        elif kind == "delegation.given":
            self._chains[data["delegation_id"]] = tuple(spiffe_id for spiffe_id, _ in data["chain"])
        elif kind == "access.requested":
            agents = (record["holder"], *self._chains.get(data.get("delegation_id", ""), ()))
            self.told["approval asked for what was handed on"] += len(agents) > 1
            owners = [self.owners[agent] for agent in agents]
            self._asking[data["access_request"]] = frozenset((*owners, self._sponsors[record["task_id"]]))
        elif kind == "access.voted" and data["vote"] == "yes":
            self._voted(data["access_request"], record["actor"])
        elif kind == "access.redeemed":
            self._redeemed(data["access_request"])

    def _voted(self, access_request: str, person: str) -> None:
        if person in self._asking[access_request]:
            raise Broken(f"I6: {person} has a part in {access_request}, and a say in it")
        self._said_yes.add(access_request)

    def _redeemed(self, access_request: str) -> None:
        if access_request in self._used:
            raise Broken(f"I5: the approval of {access_request} was used twice")
        self._used.add(access_request)
        if access_request not in self._said_yes:
            raise Broken(f"I6: {access_request} is redeemed, and nobody has said yes")
