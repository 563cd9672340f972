"""One public key somebody publishes to verify signatures with, and which algorithms it may be used with.

Belongs here: reading a JSON Web Key (RFC 7517, RFC 7518, RFC 8037) that verifies, and the rule that a key has
its algorithms from its own type, so that no token chooses how a key is used (RFC 8725, section 3.1). Does not
belong here: which keys of a set are taken (``jwt_bundle.py`` for workloads, ``oidc_keys.py`` for people).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAX_KEY_ID = 256
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # the cost of a verification grows with the square

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
# An EC key has exactly one of them (RFC 7518, section 3.4).
EC_ALGORITHMS: Mapping[str, str] = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
# Members that stand for a private or symmetric key (RFC 7518, section 6).
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class UnfitKey(ValueError):
    """The key cannot be used. Says why, never quoting the key; callers turn it into their own refusal."""


class PrivateKeyPublished(UnfitKey):
    """The key is private or symmetric: whoever published it can be imitated by every reader."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key of an authority, with the algorithms that its signatures may have."""

    key_id: str
    key: PublicKey
    algorithms: frozenset[str]
    digest: str  # SHA-256 of the SubjectPublicKeyInfo, hex


def signing_key(jwk: Mapping[str, Any], allowed: frozenset[str]) -> SigningKey:
    """The key in ``jwk``, for those of its algorithms that are ``allowed``. Raises :class:`UnfitKey`."""
    key_id = jwk.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        raise UnfitKey("has a key without a key id (kid)")
    shown = ascii(key_id)[:80]
    if not _PRIVATE.isdisjoint(jwk):
        raise PrivateKeyPublished(f"has a private or symmetric key ({shown}), which belongs in no bundle")
    try:
        key = jwt.PyJWK({name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}).key
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        # The library's text is dropped: it quotes the key.
        raise UnfitKey(f"has a key that cannot be read ({shown})") from None
    algorithms = _algorithms_of(key, shown) & allowed
    if not algorithms:
        raise UnfitKey(f"has a key that is neither of a type nor on a curve that is used here ({shown})")
    named = jwk.get("alg")
    if named is not None:
        if not isinstance(named, str) or named not in algorithms:
            raise UnfitKey(f"has a key whose algorithm does not fit its type ({shown})")
        algorithms = frozenset({named})
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(key_id, key, algorithms, hashlib.sha256(der).hexdigest())


def _algorithms_of(key: object, shown: str) -> frozenset[str]:
    """All that could be, by the key's type; none for a type that is never used."""
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise UnfitKey(
                f"has an RSA key of {key.key_size} bits ({shown}); {MIN_RSA_BITS} to {MAX_RSA_BITS} are used"
            )
        if key.public_numbers().e < 65537:
            raise UnfitKey(f"has an RSA key with a public exponent below 65537 ({shown})")
        return RSA_ALGORITHMS
    if isinstance(key, ed25519.Ed25519PublicKey):
        return frozenset({"EdDSA"})
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in EC_ALGORITHMS:
        return frozenset({EC_ALGORITHMS[key.curve.name]})
    return frozenset()
