"""One side of something that two must do: the workload that did it, and the registry entry it came by."""

from __future__ import annotations

from dataclasses import dataclass

from broker.identity.agent import Agent


@dataclass(frozen=True, slots=True)
class Party:
    """Who did something, as established when it was done."""

    id: str  # SPIFFE ID
    principal: str  # the registry entry

    def is_same_as(self, other: Party) -> bool:
        """Whether the two count as one: all workloads of one entry do, and one workload whose entry was renamed."""
        return self.id == other.id or self.principal == other.principal


def party(agent: Agent) -> Party:
    """``agent`` as a party."""
    return Party(str(agent.spiffe_id), agent.principal)
