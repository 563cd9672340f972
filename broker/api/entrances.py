"""Who comes in at which door: what the doors differ in, behind one port of :class:`broker.api.door.Door`.

An entrance says who is asking (by certificate, token or credential), whether that one may come in at all, and
what must be asked again while a call lasts. Everything that happens to a call afterwards is the door's, and the
same for all. Here: the port, and the entrance of agents; the people's is ``people.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from broker.api import authorization
from broker.api.authorization import Allowed
from broker.api.bearer import Metadata
from broker.api.sightings import named_by
from broker.errors import BrokerError
from broker.identity.agent import Peer
from broker.identity.own import refuse_own
from broker.issuance.caller import Caller
from broker.issuance.escalation import Watch
from broker.ports.clock import Clock
from broker.ports.deploys import DeploySource

# Of gRPC's auth context and the call's metadata.
Identify = Callable[[Mapping[str, Any], Metadata], Peer]


class Admitted(Protocol):
    """Whom a handler is called for."""

    @property
    def id(self) -> str:
        """Who, as logs and the audit trail name it."""
        ...

    @property
    def counted(self) -> str:
        """In whose budget its refusals are."""
        ...


Who = TypeVar("Who")
Guest = TypeVar("Guest", bound=Admitted)
Guest_co = TypeVar("Guest_co", bound=Admitted, covariant=True)


class Entrance(Protocol[Who, Guest_co]):
    """One way in. ``Who`` is a proven identity, ``Guest`` what a handler gets to know of it."""

    @property
    def serves(self) -> Allowed:
        """The kind of caller that comes in here; methods for others are not served."""
        ...

    @property
    def anonymous(self) -> str:
        """In whose budget refusals are of those who proved nothing."""
        ...

    def identify(self, auth_context: Mapping[str, Any], metadata: Metadata) -> Who:
        """Who is asking, proven. Raises :class:`Unauthenticated`."""
        ...

    def name(self, who: Who) -> str:
        """How logs and the audit trail name it."""
        ...

    def admit(self, who: Who, method: str) -> Guest_co:
        """Let it in to call ``method``. Raises :class:`Denied`."""
        ...

    def check_request(self, who: Who, method: str, request: Any) -> None:
        """What this way in demands of a request beyond its field rules. Raises :class:`InvalidInput`."""
        ...

    def check_welcome(self, who: Who) -> None:
        """Asked once more before an answer goes out. Raises :class:`Denied`."""
        ...

    async def refused(self, guest: Any, method: str, request: Message | None, failure: BrokerError) -> None:
        """One who was let in is being refused; ``request`` is None where it could not be read. Changes no answer."""
        ...


class AgentsEntrance:
    """Agents, by whichever proof ``identify`` takes; registered, and not denied."""

    serves = Allowed.REGISTERED_AGENT
    anonymous = "anonymous"

    def __init__(self, identify: Identify, deploy: DeploySource, watch: Watch, clock: Clock, tenant: str) -> None:
        self.identify = identify
        self._deploy = deploy
        self._watch = watch
        self._clock = clock
        self._tenant = tenant

    def name(self, who: Peer) -> str:
        """The SPIFFE ID."""
        return str(who.spiffe_id)

    def admit(self, who: Peer, method: str) -> Caller:
        """Raises :class:`Denied` (AGENT_DENIED, AGENT_NOT_REGISTERED), :class:`NotReady` (CLOCK_DOUBTED)."""
        deploy, now = self._deploy.current, self._clock.now()
        authorization.check_in_doubt(method, who.not_after, now)
        deploy.denied.check(who, now)
        refuse_own(who.spiffe_id)
        return Caller(self._tenant, deploy.registry.find(who.spiffe_id), who, deploy, now)

    def check_request(self, who: Peer, method: str, request: Any) -> None:
        """Through a proxy, each change has a request_id; who cools down asks for nothing.

        Raises :class:`InvalidInput` (REQUEST_ID_REQUIRED) or :class:`Exhausted` (COOLING_DOWN).
        """
        authorization.check_request_id(method, request, who.delivery)
        if method in authorization.GRANTS:
            self._watch.check(str(who.spiffe_id), self._clock.now())

    def check_welcome(self, who: Peer) -> None:
        """Raises :class:`Denied` (AGENT_DENIED)."""
        self._deploy.current.denied.check(who, self._clock.now())

    async def refused(self, guest: Caller, method: str, request: Message | None, failure: BrokerError) -> None:
        """For whoever watches for escalation attempts."""
        await self._watch.refused(failure, method, guest, named_by(request))
