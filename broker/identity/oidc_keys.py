"""The keys with which one OpenID provider signs its ID tokens.

Belongs here: which keys of a provider's JWK Set are taken. A provider's set has keys for other purposes and of
types we do not use; RFC 7517 (section 5) says to ignore what one does not understand, so those are left out,
where a SPIFFE bundle would be refused whole. Fetching a set is an adapter's work (``broker/oidc/``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from broker.identity.jwk import PrivateKeyPublished, SigningKey, UnfitKey, signing_key
from broker.identity.strict_json import NotStrictJson, parse_object

# No SHA-1, no HMAC, no `none`; of RSA and ECDSA what providers sign with.
ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "ES384", "EdDSA"})
# Large providers publish a handful. Each costs a little to read.
MAX_LISTED = 256
MAX_KEYS = 64


class UnfitKeySet(ValueError):
    """The document is no JWK Set that could be used. Says why, quoting no key."""


class KeySet:
    """The keys of one provider, by key id. Never empty; immutable."""

    __slots__ = ("keys", "version")

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        """Raises :class:`UnfitKeySet` for none, too many, or two keys of one id."""
        self.keys: dict[str, SigningKey] = {}
        for key in keys:
            if key.key_id in self.keys:
                raise UnfitKeySet(f"has the key id {ascii(key.key_id)[:80]} twice")
            self.keys[key.key_id] = key
        if not self.keys:
            raise UnfitKeySet(f"has no key that signs with one of {', '.join(sorted(ALGORITHMS))}")
        if len(self.keys) > MAX_KEYS:
            raise UnfitKeySet(f"has {len(self.keys)} signing keys; at most {MAX_KEYS} are read")
        told = sorted((key.key_id, key.digest) for key in self.keys.values())
        self.version = hashlib.sha256(ascii(told).encode()).hexdigest()  # a digest of exactly these keys

    @classmethod
    def from_jwks(cls, document: bytes) -> KeySet:
        """The keys of a JWK Set. Raises :class:`UnfitKeySet`, for any bytes whatever."""
        try:
            listed = parse_object(document).get("keys")
        except NotStrictJson as error:
            raise UnfitKeySet(str(error)) from None
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise UnfitKeySet("has no list of keys")
        if len(listed) > MAX_LISTED:
            raise UnfitKeySet(f"lists {len(listed)} keys; at most {MAX_LISTED} are read")
        return cls(key for each in listed if (key := _taken(each)) is not None)


def _taken(jwk: dict[str, Any]) -> SigningKey | None:
    """The key, if it verifies signatures. A private key among them spoils the set: anybody could have signed."""
    if jwk.get("use") not in ("sig", None):
        return None
    try:
        return signing_key(jwk, ALGORITHMS)
    except PrivateKeyPublished as error:
        raise UnfitKeySet(str(error)) from None
    except UnfitKey:
        return None
