"""Taking a JWT-SVID apart, before anything in it is believed.

Belongs here: a header with ``alg``, ``kid``, ``typ`` and nothing else, so that no token can bring its own key
or ask for rules of its own. Source: JWT-SVID, section 2. Does not belong here: the form of any token
(``jws.py``); keys, signatures and claims (``jwt_svid.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.errors import Reason, Unauthenticated
from broker.identity.jwk import MAX_KEY_ID
from broker.identity.jws import CompactJws, NotCompactJws
from broker.identity.jwt_bundle import ALGORITHMS

# SPIRE's tokens have some 400 to 900 bytes.
MAX_TOKEN_BYTES = 8 * 1024
_HEADERS = frozenset({"alg", "kid", "typ"})
_TYPES = ("JWT", "JOSE")


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says, with nothing verified. It never shows its own text."""

    algorithm: str
    key_id: str
    jws: CompactJws = field(repr=False)

    @property
    def claims(self) -> Mapping[str, Any]:
        """What it says of its bearer."""
        return self.jws.claims

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what is signed."""
        return self.jws.digest

    @classmethod
    def parse(cls, text: str) -> Token:
        """The token written as ``text``. Raises :class:`Unauthenticated` (JWT_SVID_*), for any text whatever."""
        try:
            jws = CompactJws.parse(text, MAX_TOKEN_BYTES)
        except NotCompactJws as error:
            raise Unauthenticated(
                Reason.JWT_SVID_MALFORMED,
                f"The JWT-SVID {error}.",
                hint="Send the token as the SPIFFE Workload API gave it: three base64url parts and two dots.",
            ) from None
        _check_header(jws.header)
        return cls(_algorithm(jws.header), _key_id(jws.header), jws)


def _check_header(members: Mapping[str, Any]) -> None:
    """Section 2: other headers SHOULD NOT be there. A key or a rule of its own must not, so none may."""
    others = sorted(set(members) - _HEADERS)
    if others:
        raise Unauthenticated(
            Reason.JWT_SVID_HEADER,
            f"The JWT-SVID has headers that are not allowed: {ascii(others)[1:-1][:200]}.",
            hint="A JWT-SVID has the headers alg, kid and typ; keys come from the trust domain's bundle only.",
        )
    if "typ" in members and members["typ"] not in _TYPES:
        raise Unauthenticated(
            Reason.JWT_SVID_HEADER,
            f"The JWT-SVID's typ is {_shown(members['typ'])}.",
            hint="The header typ is JWT or JOSE, or absent (JWT-SVID, section 2.3).",
        )


def _algorithm(members: Mapping[str, Any]) -> str:
    algorithm = members.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Unauthenticated(
            Reason.JWT_SVID_ALGORITHM,
            f"The JWT-SVID's alg is {_shown(algorithm)}.",
            hint=f"Allowed are {', '.join(sorted(ALGORITHMS))} (JWT-SVID, section 2.1).",
        )
    return algorithm


def _key_id(members: Mapping[str, Any]) -> str:
    key_id = members.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        raise Unauthenticated(
            Reason.JWT_SVID_KEY_UNKNOWN,
            "The JWT-SVID does not name its key.",
            hint="The header kid names one key of the trust domain's JWT bundle.",
        )
    return key_id


def _shown(value: object) -> str:
    return "missing" if value is None else ascii(value)[:80]
