"""Trust bundles: which roots speak for which trust domain.

Belongs here: the roots of one trust domain, and the set of all bundles that is in force at one
time. A chain is only ever verified against the bundle of the trust domain its leaf claims, so a
bundle that mixes trust domains up is refused when it is loaded, not when it is exploited.
Source: SPIFFE Trust Domain and Bundle, and X509-SVID sections 3.2 and 6. Reading files does not
belong here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import Store

from broker.errors import InvalidInput, Reason
from broker.identity.certificate import CertificateUnreadable, Facts, read_certificates
from broker.identity.spiffe_id import is_trust_domain

# A rotating SPIRE server publishes two or three roots; a bundle with hundreds is a CA store by mistake.
MAX_ROOTS = 64


class TrustBundle:
    """The roots of one trust domain, never empty, duplicates dropped, in the order given."""

    __slots__ = ("_by_key", "roots", "store", "trust_domain")

    def __init__(self, trust_domain: str, roots: Iterable[Facts]) -> None:
        """Raises :class:`InvalidInput` (CONFIG_INVALID) for anything that cannot be a root of ``trust_domain``."""
        if not is_trust_domain(trust_domain):
            _refuse(trust_domain, "is not the name of a trust domain")
        self.trust_domain = trust_domain
        self.roots = tuple({root.fingerprint: root for root in roots}.values())
        if not self.roots:
            _refuse(trust_domain, "has no certificate")
        for root in self.roots:
            _check_root(trust_domain, root)
        self.store = Store([root.certificate for root in self.roots])
        self._by_key = frozenset(_key_digest(trust_domain, root) for root in self.roots)

    @classmethod
    def from_pem(cls, trust_domain: str, pem: bytes) -> TrustBundle:
        """The bundle in ``pem``: only certificates, at least one. Raises :class:`InvalidInput` (CONFIG_INVALID)."""
        if b"PRIVATE KEY" in pem:
            _refuse(trust_domain, "contains a private key, which belongs in no bundle")
        try:
            return cls(trust_domain, read_certificates(pem, at_most=MAX_ROOTS))
        except CertificateUnreadable as error:
            _refuse(trust_domain, f"cannot be read ({error})")

    @property
    def pem(self) -> bytes:
        """The roots as PEM, for a TLS library."""
        return b"".join(root.certificate.public_bytes(Encoding.PEM) for root in self.roots)

    def shares_key_with(self, other: TrustBundle) -> bool:
        """Whether one key could sign for both trust domains."""
        return not self._by_key.isdisjoint(other._by_key)


class Bundles(Mapping[str, TrustBundle]):
    """All bundles in force, by trust domain. Immutable; ``version`` is a digest of exactly these roots."""

    __slots__ = ("_by_domain", "version")

    def __init__(self, bundles: Iterable[TrustBundle]) -> None:
        """Raises :class:`InvalidInput` (CONFIG_INVALID) if empty, or if two bundles could stand for each other."""
        self._by_domain: dict[str, TrustBundle] = {}
        for bundle in bundles:
            self._add(bundle)
        if not self._by_domain:
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                "There is no trust bundle, so nobody could be authenticated.",
                hint="Configure the bundle of at least the broker's own trust domain.",
            )
        self.version = self._digest()

    def _add(self, bundle: TrustBundle) -> None:
        if bundle.trust_domain in self._by_domain:
            _refuse(bundle.trust_domain, "is given twice")
        for other in self._by_domain.values():
            if bundle.shares_key_with(other):
                # Either domain's authority could then mint ids of the other, and no check here would see it.
                _refuse(bundle.trust_domain, f"shares a root key with the bundle of {other.trust_domain}")
        self._by_domain[bundle.trust_domain] = bundle

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for trust_domain in sorted(self._by_domain):
            for fingerprint in sorted(root.fingerprint for root in self._by_domain[trust_domain].roots):
                digest.update(f"{trust_domain} {fingerprint}\n".encode())
        return digest.hexdigest()

    def __getitem__(self, trust_domain: str) -> TrustBundle:
        return self._by_domain[trust_domain]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_domain)

    def __len__(self) -> int:
        return len(self._by_domain)

    @property
    def pem(self) -> bytes:
        """Every root as PEM. What a TLS library accepts with these is *not yet* bound to a trust domain."""
        return b"".join(bundle.pem for bundle in self._by_domain.values())


def _check_root(trust_domain: str, root: Facts) -> None:
    shown = f"{root.fingerprint[:16]}..."
    if not root.is_ca or root.key_usage is None or not root.key_usage.key_cert_sign:
        _refuse(trust_domain, f"has a certificate that is no CA (sha256 {shown}): CA:TRUE and keyCertSign are needed")
    if any(uri != f"spiffe://{trust_domain}" for uri in root.uris):
        _refuse(trust_domain, f"has a root that names something else (sha256 {shown}: {ascii(root.uris)[:200]})")


def _key_digest(trust_domain: str, root: Facts) -> bytes:
    try:
        key = root.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        _refuse(trust_domain, f"has a root whose key cannot be read (sha256 {root.fingerprint[:16]}...)")
    return hashlib.sha256(key).digest()


def _refuse(trust_domain: str, why: str) -> NoReturn:
    shown = ascii(trust_domain)[1:-1][:255]
    raise InvalidInput(
        Reason.CONFIG_INVALID,
        f"The trust bundle of {shown} {why}.",
        hint="A bundle is a PEM file with the CA certificates of one trust domain, and nothing else.",
        metadata={"trustDomain": shown},
    )
