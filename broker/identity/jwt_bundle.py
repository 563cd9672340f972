"""JWT bundles: which keys sign JWT-SVIDs for which trust domain.

Belongs here: reading a JWK Set, in the form of a SPIFFE bundle or as the Workload API serves it, and the
set of all JWT bundles in force. A token is only ever verified with a key of the trust domain it claims,
and only with the algorithms that fit that key. Source: SPIFFE Trust Domain and Bundle, section 4;
JWT-SVID, section 6; RFC 7517, RFC 7518. Reading files does not belong here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.errors import InvalidInput, Reason
from broker.identity.spiffe_id import is_trust_domain
from broker.identity.strict_json import NotStrictJson, parse_object

MAX_KEYS = 64
MAX_KEY_ID = 256
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # the cost of a verification grows with the square
USE = "jwt-svid"

# JWT-SVID, section 2.1: these and no others. An EC key has exactly one of them (RFC 7518, section 3.4).
RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_EC_ALGORITHM: Mapping[str, str] = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ALGORITHMS = RSA_ALGORITHMS | frozenset(_EC_ALGORITHM.values())

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
# Members that stand for a private or symmetric key (RFC 7518, section 6).
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key of an authority, with the algorithms that its signatures may have."""

    key_id: str
    key: PublicKey
    algorithms: frozenset[str]
    digest: str  # SHA-256 of the SubjectPublicKeyInfo, hex


class JwtBundle:
    """The keys that sign JWT-SVIDs of one trust domain, by key id. Never empty."""

    __slots__ = ("keys", "trust_domain")

    def __init__(self, trust_domain: str, keys: Iterable[SigningKey]) -> None:
        """Raises :class:`InvalidInput` (CONFIG_INVALID) for none, too many, or two keys of one id."""
        if not is_trust_domain(trust_domain):
            _refuse(trust_domain, "is not the name of a trust domain")
        self.trust_domain = trust_domain
        self.keys: dict[str, SigningKey] = {}
        for key in keys:
            if key.key_id in self.keys:
                _refuse(trust_domain, f"has the key id {ascii(key.key_id)[:80]} twice")
            self.keys[key.key_id] = key
        if not self.keys:
            _refuse(trust_domain, f"has no key with use {USE}")
        if len(self.keys) > MAX_KEYS:
            _refuse(trust_domain, f"has {len(self.keys)} keys; at most {MAX_KEYS} are read")

    @classmethod
    def from_jwks(cls, trust_domain: str, document: bytes, *, workload_api: bool = False) -> JwtBundle:
        """The bundle in a JWK Set. Raises :class:`InvalidInput` (CONFIG_INVALID).

        A SPIFFE bundle marks each key with its use, and what has another use (``x509-svid``) or none is
        ignored, as the standard says (section 4.2.2). The Workload API serves sets with JWT keys only,
        unmarked: with ``workload_api`` a key without a use is one of them.
        """
        try:
            listed = parse_object(document).get("keys")
        except NotStrictJson as error:
            _refuse(trust_domain, str(error))
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            _refuse(trust_domain, "has no list of keys")
        uses = (USE, None) if workload_api else (USE,)
        return cls(trust_domain, [_signing_key(trust_domain, each) for each in listed if each.get("use") in uses])

    def shares_key_with(self, other: JwtBundle) -> bool:
        """Whether one key could sign for both trust domains."""
        mine = {key.digest for key in self.keys.values()}
        return not mine.isdisjoint(key.digest for key in other.keys.values())


class JwtBundles(Mapping[str, JwtBundle]):
    """All JWT bundles in force, by trust domain. Immutable; ``version`` is a digest of exactly these keys."""

    __slots__ = ("_by_domain", "version")

    def __init__(self, bundles: Iterable[JwtBundle]) -> None:
        """Raises :class:`InvalidInput` (CONFIG_INVALID) if empty, or if two bundles could stand for each other."""
        self._by_domain: dict[str, JwtBundle] = {}
        for bundle in bundles:
            if bundle.trust_domain in self._by_domain:
                _refuse(bundle.trust_domain, "is given twice")
            for other in self._by_domain.values():
                if bundle.shares_key_with(other):
                    _refuse(bundle.trust_domain, f"shares a key with the bundle of {other.trust_domain}")
            self._by_domain[bundle.trust_domain] = bundle
        if not self._by_domain:
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                "There is no JWT bundle, so no agent could come through a proxy.",
                hint="Configure the JWT bundle of at least one trust domain under proxies.jwt_bundles.",
            )
        digest = hashlib.sha256()
        for name, bundle in sorted(self._by_domain.items()):
            for key in sorted(bundle.keys.values(), key=lambda each: each.key_id):
                # The key id is quoted: it is anybody's text, and must not be able to imitate the separators.
                digest.update(f"{name} {key.key_id!a} {key.digest}\n".encode())
        self.version = digest.hexdigest()

    def __getitem__(self, trust_domain: str) -> JwtBundle:
        return self._by_domain[trust_domain]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_domain)

    def __len__(self) -> int:
        return len(self._by_domain)


def _signing_key(trust_domain: str, jwk: Mapping[str, Any]) -> SigningKey:
    key_id = jwk.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        _refuse(trust_domain, "has a key without a key id (kid)")
    shown = ascii(key_id)[:80]
    if not _PRIVATE.isdisjoint(jwk):
        _refuse(trust_domain, f"has a private or symmetric key ({shown}), which belongs in no bundle")
    try:
        key = jwt.PyJWK({name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}).key
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        # The library's text is dropped: it quotes the key.
        _refuse(trust_domain, f"has a key that cannot be read ({shown})")
    algorithms = _algorithms_of(trust_domain, shown, key)
    named = jwk.get("alg")
    if named is not None:
        if not isinstance(named, str) or named not in algorithms:
            _refuse(trust_domain, f"has a key whose algorithm does not fit its type ({shown})")
        algorithms = frozenset({named})
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(key_id, key, algorithms, hashlib.sha256(der).hexdigest())


def _algorithms_of(trust_domain: str, shown: str, key: object) -> frozenset[str]:
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            _refuse(
                trust_domain,
                f"has an RSA key of {key.key_size} bits ({shown}); {MIN_RSA_BITS} to {MAX_RSA_BITS} are used",
            )
        if key.public_numbers().e < 65537:
            _refuse(trust_domain, f"has an RSA key with a public exponent below 65537 ({shown})")
        return RSA_ALGORITHMS
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _EC_ALGORITHM:
        _refuse(trust_domain, f"has a key that is neither RSA nor on P-256, P-384 or P-521 ({shown})")
    return frozenset({_EC_ALGORITHM[key.curve.name]})


def _refuse(trust_domain: str, why: str) -> NoReturn:
    shown = ascii(trust_domain)[1:-1][:255]
    raise InvalidInput(
        Reason.CONFIG_INVALID,
        f"The JWT bundle of {shown} {why}.",
        hint=f"A JWT bundle is a JWK Set whose signing keys have a kid and the use {USE}; SPIRE writes it with "
        "`spire-server bundle show -format spiffe`.",
        metadata={"trustDomain": shown},
    )
