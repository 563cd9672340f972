"""What policy may know about one request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.identity.agent import Agent, Delivery
from broker.scope.model import Scope
from broker.scope.request import AccessRequest


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """One request at the moment of deciding: who, what exactly, in which circumstances."""

    agent: Agent
    request: AccessRequest
    scope: Scope
    contract_class: str  # of the connector: IMMEDIATE, BY_POLICY, EXPIRY_ONLY, STATIC
    now: datetime
    delivery: Delivery = Delivery.DIRECT
