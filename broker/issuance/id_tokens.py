"""Who a person is, by the ID token of a configured provider.

The one way for the people's door, for fresh logins, and for agents that act on somebody's behalf. Belongs here:
choosing provider, keys and audience. The rules of a token are ``broker/identity/id_token.py``; who the subject is to
the broker is the caller's question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from broker.errors import Reason, Unauthenticated
from broker.identity.behalf import MAX_AGE
from broker.identity.fresh_proof import FreshProof, prove
from broker.identity.id_claims import shown
from broker.identity.id_token import IdToken, Issuer, claimed_issuer, claimed_key, verify
from broker.identity.oidc_keys import KeySet
from broker.ports.keys import IssuerKeys


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """One provider, and the two audiences that its tokens may have here: they are never taken for each other."""

    issuer: Issuer
    audience: str  # of people who log in themselves
    on_behalf_of_audience: str = ""  # of people whom an agent acts for; empty: that is not taken from this issuer


class IdTokens:
    """Verifies ID tokens by the keys in force. Pure but for the keys, which are asked of the port."""

    def __init__(self, issuers: Mapping[str, TrustedIssuer], keys: IssuerKeys) -> None:
        """``issuers`` by URL, exactly as in the claim iss."""
        self._issuers = dict(issuers)
        self._keys = keys

    def identify(self, token: str, now: datetime) -> IdToken:
        """Of somebody who is logged in. Raises as :func:`verify`, and NotReady (ISSUER_KEYS_UNAVAILABLE)."""
        trusted, keys = self._found(token)
        return verify(token, trusted.issuer, keys, now, audience=trusted.audience, nonce=None, max_age=None)

    def on_behalf_of(self, token: str, now: datetime, *, nonce: str) -> IdToken:
        """Of the person an agent acts for, in the task that ``nonce`` names. Raises as :meth:`identify`."""
        trusted, keys = self._found(token)
        audience = trusted.on_behalf_of_audience
        if not audience:
            raise Unauthenticated(
                Reason.ID_TOKEN_AUDIENCE,
                f"From {shown(trusted.issuer.url)} no token is taken to act on somebody's behalf.",
                hint="Operators set people.issuers.<url>.on_behalf_of_audience.",
                metadata={"issuer": trusted.issuer.url},
            )
        return verify(token, trusted.issuer, keys, now, audience=audience, nonce=nonce, max_age=MAX_AGE)

    def fresh(
        self, token: str, now: datetime, *, nonce: str, not_before: datetime | None, person: tuple[str, str]
    ) -> FreshProof:
        """Of ``person`` who has just logged in for what ``nonce`` says. Raises as :func:`prove`."""
        trusted, keys = self._found(token)
        return prove(
            token,
            trusted.issuer,
            keys,
            now,
            audience=trusted.audience,
            nonce=nonce,
            not_before=not_before,
            person=person,
        )

    def _found(self, token: str) -> tuple[TrustedIssuer, KeySet]:
        url = claimed_issuer(token)
        trusted = self._issuers.get(url)
        if trusted is None:
            _unknown(url)
        return trusted, self._keys.current(url, claimed_key(token))


def _unknown(url: str) -> NoReturn:
    raise Unauthenticated(
        Reason.ID_TOKEN_ISSUER_UNKNOWN,
        f"The ID token is from {shown(url)}, which is no issuer of this broker.",
        hint="Log in at one of those that operators configured (people.issuers), spelt exactly as there.",
        metadata={"issuer": shown(url)},
    )
