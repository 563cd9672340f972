"""What takes a login of its own: the door to fresh proofs, for the RPCs of break-glass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from broker.breakglass.rules import BY_LOGIN
from broker.issuance.break_glass import Proven
from broker.issuance.caller import OperatorCaller


class FreshLogins(Protocol):
    """Proves that a caller has logged in for exactly one act."""

    async def prove(self, caller: OperatorCaller, token: str, action: str, fields: Mapping[str, str]) -> Proven:
        """Raises Denied (FRESH_LOGIN_*) or Unauthenticated (ID_TOKEN_*) where it is no proof of that."""
        ...


class SeamUntilPeopleLogIn:
    """SEAM (branch oidc replaces it): whoever the door has authenticated counts as freshly logged in.

    There are no ID tokens at the door yet, so there is nothing a token could be held against. A template that demands
    ``strong`` is refused, because no strength is proven.
    """

    async def prove(self, caller: OperatorCaller, token: str, action: str, fields: Mapping[str, str]) -> Proven:
        """The caller, as the door knows them."""
        return Proven(BY_LOGIN)
