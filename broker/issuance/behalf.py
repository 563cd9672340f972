"""From the ID token that comes with a task to the human it acts for."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

from broker.approval.intent_digest import task_nonce
from broker.errors import InvalidInput, Reason
from broker.identity.behalf import Human, person_behind
from broker.identity.id_token import IdToken
from broker.issuance.caller import Caller
from broker.secret import Secret


class Proofs(Protocol):
    """What verifies the token: ``broker/issuance/id_tokens.py``."""

    def on_behalf_of(self, token: str, now: datetime, *, nonce: str) -> IdToken:
        """Raises Unauthenticated for whatever is wrong with it, and NotReady."""
        ...


class Behind(NamedTuple):
    """Who is behind a task, and the digest of the token that proved it."""

    human: Human
    token_digest: str


def behind(caller: Caller, request_id: str, token: Secret, proofs: Proofs | None) -> Behind:
    """The human that ``token`` proves, for exactly the task that ``caller`` starts under ``request_id``.

    Its audience is not the people's door's; its login is younger than MAX_AGE; its nonce names this agent and this
    request. Raises :class:`Unauthenticated` (ID_TOKEN_*), :class:`Denied` (ON_BEHALF_OF_NOBODY) and
    :class:`InvalidInput` (ON_BEHALF_OF_NOT_TAKEN) where this broker takes nobody's token.
    """
    if proofs is None:
        raise InvalidInput(
            Reason.ON_BEHALF_OF_NOT_TAKEN,
            "this broker takes nobody's ID token to act on their behalf.",
            hint="Operators set people.issuers.<url>.on_behalf_of_audience; without it, leave the token out.",
            metadata={"field": "on_behalf_of_token"},
        )
    nonce = task_nonce(caller.id, request_id)
    proven = proofs.on_behalf_of(token.reveal(), caller.now, nonce=nonce)
    person = person_behind(*proven.person_id, caller.deploy.people, caller.now)
    return Behind(Human(person.issuer, person.subject, person.display_name), proven.digest)
