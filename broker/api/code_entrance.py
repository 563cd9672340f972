"""The people's entrance, and beside it the narrow one of sealed codes, for when nobody can log in.

Who comes with a code has proven nothing yet: the entrance only reads whom they say they are, lets them call the three
RPCs that break-glass itself takes, and hands the code on to be proven where it is used up. It is sent as
``authorization: Bearer break-glass-code:KEY:CODE``, KEY of people.yaml; no other token has a colon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.message import Message

from broker.api.authorization import Allowed
from broker.api.bearer import Metadata
from broker.api.entrances import Entrance
from broker.breakglass.codes import code_invalid
from broker.breakglass.rules import BY_CODE
from broker.errors import BrokerError, Denied, Reason
from broker.identity.id_token import IdToken
from broker.identity.operator import Operator
from broker.identity.people import check_enabled
from broker.issuance.caller import OperatorCaller
from broker.ports.clock import Clock
from broker.ports.deploys import DeploySource
from broker.secret import Secret

SCHEME: Final = "break-glass-code:"
_BEARER = "Bearer "
TAKEN: Final = frozenset(
    f"/broker.api.v1.AdminService/{name}" for name in ("BreakGlass", "ConfirmBreakGlass", "EndBreakGlass")
)
_LONGEST = 256


class CodeEntrance:
    """Lets in who comes with a code, and sends everybody else to ``people``."""

    serves = Allowed.OPERATOR
    anonymous = "anonymous people"

    def __init__(
        self, people: Entrance[IdToken, OperatorCaller], deploy: DeploySource, clock: Clock, tenant: str
    ) -> None:
        self._people = people
        self._deploy = deploy
        self._clock = clock
        self._tenant = tenant

    def identify(self, auth_context: Mapping[str, Any], metadata: Metadata) -> IdToken | Operator:
        """Whom they say they are. Raises Unauthenticated (BREAK_GLASS_CODE_INVALID), and what ``people`` raises."""
        claimed = _claimed(metadata)
        if claimed is None:
            return self._people.identify(auth_context, metadata)
        key, code = claimed
        person = self._deploy.current.people.get(key)
        if person is None:
            raise code_invalid()
        return Operator(person, key, BY_CODE, code)

    def name(self, who: IdToken | Operator) -> str:
        """The person's (issuer, subject); with a code, whom they say they are."""
        return who.id if isinstance(who, Operator) else self._people.name(who)

    def admit(self, who: IdToken | Operator, method: str) -> OperatorCaller:
        """Raises Denied (OPERATOR_DISABLED, ROLE_REQUIRED)."""
        if not isinstance(who, Operator):
            return self._people.admit(who, method)
        now = self._clock.now()
        check_enabled(who.key, who.person, now)
        if method not in TAKEN:
            raise Denied(
                Reason.ROLE_REQUIRED,
                f"{method.rpartition('/')[2]} is not for who comes with a sealed code.",
                hint="A code breaks glass, confirms the delivery and ends it; for everything else log in.",
                metadata={"needed": "a login", "roles": ""},
            )
        return OperatorCaller(self._tenant, who, frozenset(), self._deploy.current, now)

    def check_request(self, who: IdToken | Operator, method: str, request: Any) -> None:
        """As for everybody."""
        if not isinstance(who, Operator):
            self._people.check_request(who, method, request)

    def check_welcome(self, who: IdToken | Operator) -> None:
        """As for everybody."""
        if not isinstance(who, Operator):
            self._people.check_welcome(who)

    async def refused(self, guest: OperatorCaller, method: str, request: Message | None, failure: BrokerError) -> None:
        """As for everybody."""
        await self._people.refused(guest, method, request, failure)


def _claimed(metadata: Metadata) -> tuple[str, Secret] | None:
    """The key and the code; None where this is not how the call authenticates."""
    values = [value for name, value in metadata if name == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].startswith(_BEARER + SCHEME):
        return None
    key, _, code = values[0].removeprefix(_BEARER + SCHEME).partition(":")
    if not key or not code or len(values[0]) > _LONGEST:
        raise code_invalid()
    return key, Secret(code)
