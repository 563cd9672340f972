"""Who is asking, at the people's door: a person of people.yaml, by a bearer credential that operators were given.

Belongs here: the credentials that brokerd's configuration names, and the entrance that takes them. A credential
is a bearer secret: it is never kept in clear, logged, told or audited, and what comes is compared with every one
there is, in constant time. This serves on loopback, until people log in with OpenID Connect.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from broker.api import authorization
from broker.api.authorization import Allowed
from broker.api.bearer import Metadata, bearer_token
from broker.errors import BrokerError, Denied, Reason, Unauthenticated
from broker.identity.operator import LOCAL_CREDENTIAL, Operator, RoleGrants
from broker.issuance.caller import OperatorCaller
from broker.ports import Clock, DeploySource
from broker.secret import Secret

_HINT = "Set BROKER_OPERATOR_CREDENTIAL to the file with your credential; each call carries it, once."
# Longer than any credential; hashing more would only be work for whoever guesses.
_LONGEST = 1024


class Credentials:
    """Whose each credential is. Immutable; holds keyed digests only."""

    def __init__(self, credentials: Mapping[str, Secret], key: bytes) -> None:
        """``credentials`` by the person's key in people.yaml; ``key`` is random, and this process's own."""
        self._key = key
        self._digests = [(self._digest(secret.reveal()), whose) for whose, secret in credentials.items()]

    def whose(self, token: str) -> str | None:
        """The person's key; None if it is nobody's. Looks at all of them, whichever fits."""
        digest, found = self._digest(token[: _LONGEST + 1]), None
        for known, whose in self._digests:
            if hmac.compare_digest(known, digest):
                found = whose
        return found

    def _digest(self, token: str) -> bytes:
        return hmac.new(self._key, token.encode(), hashlib.sha256).digest()


class PeopleEntrance:
    """People, by a credential; enabled in the people.yaml in force, with a role for what they call."""

    serves = Allowed.OPERATOR
    anonymous = "anonymous operators"

    def __init__(
        self,
        credentials: Callable[[], Credentials],
        grants: RoleGrants,
        deploy: DeploySource,
        clock: Clock,
        tenant: str,
    ) -> None:
        self._credentials = credentials
        self._grants = grants
        self._deploy = deploy
        self._clock = clock
        self._tenant = tenant

    def identify(self, auth_context: Mapping[str, Any], metadata: Metadata) -> Operator:
        """Raises :class:`Unauthenticated` (OPERATOR_CREDENTIAL_*), and :class:`Denied` for who is listed no more.

        The connection's own certificate, where there is one, is nobody's proof here.
        """
        token = bearer_token(metadata, Reason.OPERATOR_CREDENTIAL_MISSING, _HINT)
        key = self._credentials().whose(token)
        if key is None:
            raise Unauthenticated(
                Reason.OPERATOR_CREDENTIAL_INVALID,
                "The bearer credential is nobody's.",
                hint="Was it replaced? brokerd reads the files that `operators` names at its start and at each reload.",
            )
        person = self._deploy.current.people.get(key)
        if person is None:
            raise _disabled(key, "is not in people.yaml any more")
        return Operator(person, key, LOCAL_CREDENTIAL)

    def name(self, who: Operator) -> str:
        """The person's (issuer, subject)."""
        return who.id

    def admit(self, who: Operator, method: str) -> OperatorCaller:
        """Raises :class:`Denied` (OPERATOR_DISABLED, ROLE_REQUIRED)."""
        if who.person.disabled:
            raise _disabled(who.key, "is disabled in people.yaml")
        roles = self._grants.of(who.person)
        authorization.check_roles(method, roles)
        return OperatorCaller(self._tenant, who, roles, self._deploy.current, self._clock.now())

    def check_request(self, who: Operator, method: str, request: Any) -> None:
        """Nothing beyond the field rules: each change has a request_id by them."""

    def check_welcome(self, who: Operator) -> None:
        """What an operator did has happened, and the answer says so."""

    async def refused(self, guest: Operator, method: str, request: Message | None, failure: BrokerError) -> None:
        """Escalation is what agents are watched for."""


def _disabled(key: str, why: str) -> Denied:
    return Denied(
        Reason.OPERATOR_DISABLED,
        f"The person {key!a} {why}.",
        hint="Who keeps people.yaml says who may operate this broker.",
        metadata={"person": key},
    )
