"""What takes a login of its own: the one place where such an act gets its proof, or is refused.

Being logged in is not enough to approve, to resume, to break glass or to review. The refusal tells the nonce that
the login must be asked for with, so that a client needs to know nothing but how to log in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from broker.approval.intent_digest import nonce_of
from broker.errors import Denied, Reason
from broker.identity.operator import FRESH_LOGIN
from broker.identity.people import with_groups_of
from broker.issuance.caller import OperatorCaller
from broker.issuance.id_tokens import IdTokens
from broker.ports.clock import Clock
from broker.ports.proofs import ProofRecord


class FreshLogins:
    """Turns the ``fresh_id_token`` of a request into a proof."""

    def __init__(self, tokens: IdTokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    def demand(
        self,
        caller: OperatorCaller,
        token: str,
        action: str,
        fields: Mapping[str, str],
        *,
        about: str,
        not_before: datetime | None = None,
    ) -> ProofRecord:
        """The proof that ``caller`` has just logged in for ``action`` with exactly ``fields``.

        ``about`` is the id of what it is about; ``not_before`` is when that came to be, where the caller of this
        knows. Nothing is used up here: the record goes into the transaction of the act, which takes it once.

        Raises :class:`Denied` (FRESH_LOGIN_*) and :class:`Unauthenticated` (ID_TOKEN_*).
        """
        nonce = nonce_of(action, fields)
        if not token:
            raise _required(action, nonce)
        person = caller.operator.person
        proof = self._tokens.fresh(
            token, self._clock.now(), nonce=nonce, not_before=not_before, person=(person.issuer, person.subject)
        )
        return ProofRecord(proof, action, about)


def proven(caller: OperatorCaller, record: ProofRecord) -> OperatorCaller:
    """``caller`` as that login proves them: with no group that its provider does not confirm now."""
    operator = caller.operator
    person = with_groups_of(operator.person, record.proof.id_token)
    return replace(caller, operator=replace(operator, person=person, how=FRESH_LOGIN))


def _required(action: str, nonce: str) -> Denied:
    return Denied(
        Reason.FRESH_LOGIN_REQUIRED,
        f"{action} takes a login of its own, for exactly this.",
        hint="Log in with max_age=0 and this nonce, and send the ID token as fresh_id_token; `broker` does it.",
        metadata={"action": action, "nonce": nonce},
    )
