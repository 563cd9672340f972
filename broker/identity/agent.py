"""Who an agent is to the broker: a registered workload with an accountable owner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from broker.errors import Denied, Reason
from broker.identity.spiffe_id import SpiffeId


class Tier(StrEnum):
    """Autonomy tiers (R12)."""

    ADVISORY = "advisory"
    SEMI_AUTONOMOUS = "semi-autonomous"
    AUTONOMOUS = "autonomous"


@dataclass(frozen=True, slots=True)
class Person:
    """A human, named by (issuer, subject); e-mail is for display only."""

    issuer: str
    subject: str
    display_name: str
    email: str = ""
    groups: frozenset[str] = frozenset()
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much an agent may hold at a time."""

    live_leases: int
    open_tasks: int


@dataclass(frozen=True, slots=True)
class Agent:
    """One entry of the registry."""

    spiffe_id: SpiffeId
    owner: Person
    tier: Tier
    roles: frozenset[str]
    environments: frozenset[str]
    quotas: Quotas
    description: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """A validated SVID: what TLS and our own rules together proved about the other end."""

    spiffe_id: SpiffeId
    not_before: datetime
    not_after: datetime
    serial: int
    fingerprint: str  # SHA-256 of the leaf's DER, hex


class Registry:
    """The agents of one deploy set, by exact SPIFFE ID."""

    def __init__(self, agents: Iterable[Agent]) -> None:
        self._by_id: Mapping[SpiffeId, Agent] = {agent.spiffe_id: agent for agent in agents}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, spiffe_id: object) -> bool:
        return spiffe_id in self._by_id

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._by_id.values())

    def find(self, spiffe_id: SpiffeId) -> Agent:
        """The agent of this id. Raises :class:`Denied` (AGENT_NOT_REGISTERED)."""
        try:
            return self._by_id[spiffe_id]
        except KeyError:
            raise Denied(
                Reason.AGENT_NOT_REGISTERED,
                f"{spiffe_id} is not a registered agent.",
                hint="An operator registers agents in the deploy set (agents/*.yaml), each with an owner.",
                metadata={"spiffeId": str(spiffe_id)},
            ) from None
