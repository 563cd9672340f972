"""Taking a JWT-SVID apart, before anything in it is believed.

Belongs here: the one form a token may have. Compact JWS (RFC 7515, section 7.1), strict base64url, JSON
objects whose members stand once, and a header with ``alg``, ``kid``, ``typ`` and nothing else, so that no
token can bring its own key or ask for rules of its own. Source: JWT-SVID, section 2. Does not belong
here: keys, signatures and claims (``jwt_svid.py``).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from broker.errors import Reason, Unauthenticated
from broker.identity.jwt_bundle import ALGORITHMS, MAX_KEY_ID
from broker.identity.strict_json import NotStrictJson, parse_object

# SPIRE's tokens have some 400 to 900 bytes.
MAX_TOKEN_BYTES = 8 * 1024
_HEADERS = frozenset({"alg", "kid", "typ"})
_TYPES = ("JWT", "JOSE")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says, with nothing verified. It never shows its own text."""

    algorithm: str
    key_id: str
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)  # header and payload, as they were signed
    signature: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what is signed.

        Not of the whole token: from an ECDSA signature (r, s) anybody makes (r, n - s), which verifies
        too, and one token would have two names.
        """
        return hashlib.sha256(self.signed).hexdigest()

    @classmethod
    def parse(cls, text: str) -> Token:
        """The token written as ``text``. Raises :class:`Unauthenticated` (JWT_SVID_*), for any text whatever."""
        if len(text) > MAX_TOKEN_BYTES:
            _malformed(f"has {len(text)} bytes; at most {MAX_TOKEN_BYTES} are read")
        parts = text.split(".")
        if len(parts) != 3:
            _malformed(f"has {len(parts)} parts; a compact JWS has three")
        header, payload, signature = (_decoded(part) for part in parts)
        members = _object(header, "header")
        _check_header(members)
        return cls(
            algorithm=_algorithm(members),
            key_id=_key_id(members),
            claims=_object(payload, "payload"),
            signed=f"{parts[0]}.{parts[1]}".encode("ascii"),
            signature=signature,
        )


def _decoded(part: str) -> bytes:
    """Base64url without padding, in its one spelling (RFC 4648, 3.5: the unused last bits are zero)."""
    if not _BASE64URL.match(part) or len(part) % 4 == 1:
        _malformed("has a part that is empty or not base64url without padding")
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != part:
        _malformed("has a part that is not in base64url's canonical form")
    return data


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        return parse_object(data)
    except NotStrictJson as error:
        _malformed(f"has a {name} that {error}")


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


def _malformed(why: str) -> NoReturn:
    raise Unauthenticated(
        Reason.JWT_SVID_MALFORMED,
        f"The JWT-SVID {why}.",
        hint="Send the token as the SPIFFE Workload API gave it: three base64url parts, two dots, nothing else.",
    )
