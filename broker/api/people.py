"""Who is asking, at the people's door: a person of people.yaml, by the ID token of a login.

Belongs here: the entrance that takes ID tokens. What a token proves is ``broker/identity/id_token.py``; who somebody
is to the broker, ``broker/identity/people.py``. A token is a bearer secret: it is never logged, told or audited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from broker.api import authorization
from broker.api.authorization import Allowed
from broker.api.bearer import Metadata, bearer_token
from broker.errors import BrokerError, Reason
from broker.identity.id_token import IdToken
from broker.identity.operator import LOGIN, Operator, RoleGrants
from broker.identity.people import check_enabled, find_person, with_groups_of
from broker.issuance.caller import OperatorCaller
from broker.issuance.id_tokens import IdTokens
from broker.ports.clock import Clock, by_either
from broker.ports.deploys import DeploySource

_HINT = "`broker login` logs you in; each call carries the ID token, once."


class PeopleEntrance:
    """People, by an ID token; enabled in the people.yaml in force, with a role for what they call."""

    serves = Allowed.OPERATOR
    anonymous = "anonymous people"

    def __init__(
        self, tokens: Callable[[], IdTokens], grants: RoleGrants, deploy: DeploySource, clock: Clock, tenant: str
    ) -> None:
        self._tokens = tokens
        self._grants = grants
        self._deploy = deploy
        self._clock = clock
        self._tenant = tenant

    def identify(self, auth_context: Mapping[str, Any], metadata: Metadata) -> IdToken:
        """Raises :class:`Unauthenticated` (ID_TOKEN_*), and NotReady (ISSUER_KEYS_UNAVAILABLE).

        The connection's own certificate, where there is one, is nobody's proof here.
        """
        token = bearer_token(metadata, Reason.ID_TOKEN_MISSING, _HINT)
        return by_either(self._clock, lambda now: self._tokens().identify(token, now))

    def name(self, who: IdToken) -> str:
        """The person's (issuer, subject)."""
        return "#".join(who.person_id)

    def admit(self, who: IdToken, method: str) -> OperatorCaller:
        """Raises :class:`Denied` (PERSON_UNKNOWN, OPERATOR_DISABLED, ROLE_REQUIRED), NotReady (CLOCK_DOUBTED)."""
        deploy, now = self._deploy.current, self._clock.now()
        authorization.check_in_doubt(method, who.expires_at, now)
        key, listed = find_person(deploy.people, *who.person_id)
        check_enabled(key, listed, now)
        person = with_groups_of(listed, who)
        roles = self._grants.of(person)
        authorization.check_roles(method, roles)
        return OperatorCaller(self._tenant, Operator(person, key, LOGIN), roles, deploy, now)

    def check_request(self, who: IdToken, method: str, request: Any) -> None:
        """Nothing beyond the field rules: each change has a request_id by them."""

    def check_welcome(self, who: IdToken) -> None:
        """What an operator did has happened, and the answer says so."""

    async def refused(self, guest: OperatorCaller, method: str, request: Message | None, failure: BrokerError) -> None:
        """Escalation is what agents are watched for."""
