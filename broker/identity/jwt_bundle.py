"""JWT bundles: which keys sign JWT-SVIDs for which trust domain.

Belongs here: reading a JWK Set, in the form of a SPIFFE bundle or as the Workload API serves it, and the
set of all JWT bundles in force. A token is only ever verified with a key of the trust domain it claims,
and only with the algorithms that fit that key. Source: SPIFFE Trust Domain and Bundle, section 4;
JWT-SVID, section 6; RFC 7517. Reading one key is ``jwk.py``; reading files does not belong here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from broker.errors import InvalidInput, Reason
from broker.identity.jwk import EC_ALGORITHMS, RSA_ALGORITHMS, SigningKey, UnfitKey, signing_key
from broker.identity.spiffe_id import is_trust_domain
from broker.identity.strict_json import NotStrictJson, parse_object

MAX_KEYS = 64
USE = "jwt-svid"

# JWT-SVID, section 2.1: these and no others.
ALGORITHMS = RSA_ALGORITHMS | frozenset(EC_ALGORITHMS.values())


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
    try:
        return signing_key(jwk, ALGORITHMS)
    except UnfitKey as unfit:
        _refuse(trust_domain, str(unfit))


def _refuse(trust_domain: str, why: str) -> NoReturn:
    shown = ascii(trust_domain)[1:-1][:255]
    raise InvalidInput(
        Reason.CONFIG_INVALID,
        f"The JWT bundle of {shown} {why}.",
        hint=f"A JWT bundle is a JWK Set whose signing keys have a kid and the use {USE}; SPIRE writes it with "
        "`spire-server bundle show -format spiffe`.",
        metadata={"trustDomain": shown},
    )
