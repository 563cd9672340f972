"""Who is asking, where operators' automation comes in: a workload of people.yaml, by the X.509-SVID of its connection.

A listener of its own, because there a client certificate is demanded, and people have none. It serves what the people's
door serves, less what takes a person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from broker.api import authorization
from broker.api.authorization import Allowed
from broker.api.bearer import Metadata, refuse_token
from broker.errors import BrokerError, Denied, Reason
from broker.identity.agent import Peer
from broker.issuance.caller import OperatorCaller
from broker.ports.clock import Clock
from broker.ports.deploys import DeploySource


class AutomationEntrance:
    """Workloads registered as automation in the people.yaml in force, and not denied."""

    serves = Allowed.OPERATOR
    anonymous = "anonymous automation"

    def __init__(
        self, certified: Callable[[Mapping[str, Any]], Peer], deploy: DeploySource, clock: Clock, tenant: str
    ) -> None:
        self._certified = certified
        self._deploy = deploy
        self._clock = clock
        self._tenant = tenant

    def identify(self, auth_context: Mapping[str, Any], metadata: Metadata) -> Peer:
        """Raises :class:`Unauthenticated` (SVID_*, JWT_SVID_UNEXPECTED): a token is no second way in here."""
        refuse_token(metadata)
        return self._certified(auth_context)

    def name(self, who: Peer) -> str:
        """The SPIFFE ID."""
        return str(who.spiffe_id)

    def admit(self, who: Peer, method: str) -> OperatorCaller:
        """Raises :class:`Denied` (AGENT_DENIED, AUTOMATION_UNKNOWN, PERSON_REQUIRED, ROLE_REQUIRED), :class:`NotReady`
        (CLOCK_DOUBTED).
        """
        deploy, now = self._deploy.current, self._clock.now()
        authorization.check_in_doubt(method, who.not_after, now)
        deploy.denied.check(who, now)
        found = deploy.automation.get(who.spiffe_id)
        if found is None or not found.owner.enabled(now) or (found.until is not None and now >= found.until):
            raise Denied(
                Reason.AUTOMATION_UNKNOWN,
                f"{who.spiffe_id} is not registered as automation, or whoever answers for it is disabled.",
                hint="Operators register it under automation in people.yaml. Agents call the agents' port.",
                metadata={"spiffeId": str(who.spiffe_id)},
            )
        authorization.check_automation(method)
        authorization.check_roles(method, found.roles)
        return OperatorCaller(self._tenant, found.operator(), found.roles, deploy, now)

    def check_request(self, who: Peer, method: str, request: Any) -> None:
        """Nothing beyond the field rules: each change has a request_id by them."""

    def check_welcome(self, who: Peer) -> None:
        """Raises :class:`Denied` (AGENT_DENIED)."""
        self._deploy.current.denied.check(who, self._clock.now())

    async def refused(self, guest: OperatorCaller, method: str, request: Message | None, failure: BrokerError) -> None:
        """Escalation is what agents are watched for."""
