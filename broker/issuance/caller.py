"""Who is asking, as established once per RPC, with the deploy set in force at that moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.identity.agent import Agent, Peer
from broker.ports import DeploySet


@dataclass(frozen=True, slots=True)
class Caller:
    """A validated SVID of a registered agent.

    One deploy set serves the whole request, so that a reload cannot change the rules half-way.
    """

    tenant: str
    agent: Agent
    peer: Peer
    deploy: DeploySet
    now: datetime  # when it was established; the time of this request's decisions

    @property
    def id(self) -> str:
        """The SPIFFE ID, as stored and compared everywhere."""
        return str(self.agent.spiffe_id)
