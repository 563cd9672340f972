"""An OpenID provider for development: it believes whoever says who they are. Nothing else may trust it.

Real in everything but that: ID tokens as OpenID Connect Core has them, signed (ES256) with keys that rotate. It asks
for no password and keeps nobody logged in, so every login is a fresh one. Belongs here: people, keys and tokens, for
tests and the demo without HTTP; ``identity_provider_http.py`` serves it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from broker.errors import InvalidInput, Reason

if TYPE_CHECKING:
    from broker.identity.agent import Person
    from broker.ports.clock import Clock

DISCLAIMER = (
    "For development only: whoever comes is believed to be who they say, without any proof. "
    "A deployment uses an identity provider of its own (docs/people.md)."
)
# What people's tokens are for, and what those are for with which somebody lets an agent act for them.
CLIENT_ID = "jit-broker"
ON_BEHALF_OF = "jit-broker-on-behalf-of"
# It says itself how people log in, so that nobody takes it for more.
ACR, AMR = "development", ("development",)
ALGORITHM = "ES256"
LIFE = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class _Key:
    key_id: str
    private: ec.EllipticCurvePrivateKey


class IdentityProvider:
    """One provider at ``url``. Its clients are public ones (no secret): PKCE or a device code binds what they get."""

    def __init__(self, url: str, people: Iterable[Person], clock: Clock) -> None:
        """Of each of ``people`` it knows the subject, the name and the groups."""
        self.url = url
        self._clock = clock
        self._people: Mapping[str, Person] = {}
        self._keys: list[_Key] = []
        self.know(people)
        self.rotate()

    @property
    def people(self) -> Mapping[str, Person]:
        """By subject."""
        return self._people

    def know(self, people: Iterable[Person]) -> None:
        """From now on it knows exactly these people."""
        self._people = {person.subject: person for person in people}

    def rotate(self, *, withdraw: bool = False) -> None:
        """Sign with a new key from now on. The last one stays published beside it, unless it is withdrawn."""
        fresh = _Key(secrets.token_hex(8), ec.generate_private_key(ec.SECP256R1()))
        self._keys = [fresh] if withdraw else [fresh, *self._keys[:1]]

    def jwks(self) -> dict[str, Any]:
        """The published key set."""
        return {"keys": [_published(key) for key in self._keys]}

    def jwks_document(self) -> bytes:
        """The same as it is served."""
        return json.dumps(self.jwks()).encode()

    def id_token(
        self,
        subject: str,
        audience: str = CLIENT_ID,
        nonce: str = "",
        *,
        auth_time: datetime | None = None,
        life: timedelta = LIFE,
        acr: str = ACR,
        amr: Iterable[str] = AMR,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """An ID token of somebody it knows, who logged in at ``auth_time`` (None: now).

        ``claims`` replace others (None removes one). Raises :class:`InvalidInput` for a subject it does not know.
        """
        person, now = self.person(subject), self._clock.now()
        told = {
            "iss": self.url,
            "sub": subject,
            "aud": audience,
            "iat": int(now.timestamp()),
            "exp": int((now + life).timestamp()),
            "auth_time": int((auth_time or now).timestamp()),
            "nonce": nonce or None,
            "acr": acr,
            "amr": list(amr),
            "name": person.display_name,
            "groups": sorted(person.groups),
            **(claims or {}),
        }
        key = self._keys[0]
        payload = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(payload, key.private, ALGORITHM, headers={"kid": key.key_id})

    def person(self, subject: str) -> Person:
        """Somebody it knows. Raises :class:`InvalidInput`."""
        try:
            return self._people[subject]
        except KeyError:
            raise InvalidInput(
                Reason.FIELD_INVALID,
                f"The development identity provider knows no {subject!a}.",
                hint=f"It knows: {', '.join(sorted(self._people))}.",
                metadata={"subject": subject[:80]},
            ) from None


def _published(key: _Key) -> dict[str, Any]:
    members = ECAlgorithm.to_jwk(key.private.public_key(), as_dict=True)
    return {**members, "kid": key.key_id, "use": "sig", "alg": ALGORITHM}
