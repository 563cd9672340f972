"""Taking a compact JWS apart, before anything in it is believed.

Belongs here: the one form a token may have. Compact serialisation (RFC 7515, section 7.1), strict base64url,
JSON objects whose members stand once, so that two readers cannot differ about a token. Does not belong here:
which headers, keys and claims are acceptable (``jwt_token.py`` for agents, ``id_token.py`` for people).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from broker.identity.jwk import PublicKey
from broker.identity.strict_json import NotStrictJson, parse_object

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z", re.ASCII)
_JWS = jwt.PyJWS()


class NotCompactJws(ValueError):
    """The text is no compact JWS. Callers turn it into their own refusal; it never quotes the text."""


@dataclass(frozen=True, slots=True)
class CompactJws:
    """What a token says, with nothing verified. It never shows its own text."""

    header: Mapping[str, Any] = field(repr=False)
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
    def parse(cls, text: str, at_most: int) -> CompactJws:
        """The token written as ``text``, of ``at_most`` bytes. Raises :class:`NotCompactJws`, for any text whatever."""
        if len(text) > at_most:
            raise NotCompactJws(f"has {len(text)} bytes; at most {at_most} are read")
        parts = text.split(".")
        if len(parts) != 3:
            raise NotCompactJws(f"has {len(parts)} parts; a compact JWS has three")
        header, payload, signature = (_decoded(part) for part in parts)
        signed = f"{parts[0]}.{parts[1]}".encode("ascii")
        return cls(_object(header, "header"), _object(payload, "payload"), signed, signature)

    def is_signed_by(self, key: PublicKey, algorithm: str) -> bool:
        """Whether the signature is ``key``'s, made by ``algorithm``, which the caller has allowed for this key."""
        try:
            made = _JWS.get_algorithm_by_name(algorithm)
            return bool(made.verify(self.signed, made.prepare_key(key), self.signature))
        except (jwt.PyJWTError, ValueError, TypeError):
            return False


def _decoded(part: str) -> bytes:
    """Base64url without padding, in its one spelling (RFC 4648, 3.5: the unused last bits are zero)."""
    if not _BASE64URL.match(part) or len(part) % 4 == 1:
        raise NotCompactJws("has a part that is empty or not base64url without padding")
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != part:
        raise NotCompactJws("has a part that is not in base64url's canonical form")
    return data


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        return parse_object(data)
    except NotStrictJson as error:
        raise NotCompactJws(f"has a {name} that {error}") from None
