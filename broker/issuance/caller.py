"""Who is asking, as established once per RPC, with the deploy set in force at that moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.identity.agent import Agent, Peer
from broker.identity.operator import Operator, Role
from broker.ports.deploys import DeploySet


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

    @property
    def is_broker(self) -> bool:
        """Whether it is the broker itself, which asks for a canary's lease."""
        return self.agent is self.deploy.registry.own

    @property
    def counted(self) -> str:
        """In whose budget a refusal is: all workloads of one registry entry share one."""
        return self.agent.principal


@dataclass(frozen=True, slots=True)
class OperatorCaller:
    """An authenticated person, at the people's door."""

    tenant: str
    operator: Operator
    roles: frozenset[Role]
    deploy: DeploySet
    now: datetime  # as for :class:`Caller`

    @property
    def id(self) -> str:
        """The person's (issuer, subject), as stored and compared everywhere."""
        return self.operator.id

    @property
    def counted(self) -> str:
        """In whose budget a refusal is: each person has one."""
        return self.operator.id
