"""Where the SDK's own SVID comes from, and what one channel needs of it.

Belongs here: :class:`Material` (an SVID with its key, and the roots of the *one* trust domain that the broker
is believed to be of) and the shape of its sources, of which explicit files, for CI, are here too; the SPIFFE
Workload API, which every agent should use, is ``workload_api.py``. Every source blocks with a time limit; the
channel calls it in a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.errors import InvalidInput, NotReady, Reason, Unauthenticated
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.certificate import CertificateUnreadable, Facts, read_certificates
from broker.identity.doctor import CHAIN, Verdict, judge_svid
from broker.identity.spiffe_id import SpiffeId
from broker.identity.svid import MAX_INTERMEDIATES, one_canonical_id

FILE_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Material:
    """One SVID, its key, and the bundle of the broker's trust domain: what one mTLS channel is made of."""

    spiffe_id: SpiffeId
    leaf: Facts
    chain_pem: bytes  # the leaf, then its intermediates
    key_pem: bytes = field(repr=False)
    bundle: TrustBundle  # the broker is verified against these roots, and against no others
    own_bundle: TrustBundle | None  # of our own trust domain; None: the broker's is another, and ours not at hand
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(
        cls,
        chain_pem: bytes,
        key_pem: bytes,
        bundle: Callable[[str], TrustBundle],
        own_bundle: Callable[[str], TrustBundle] | None = None,
    ) -> Material:
        """Put together from PEM. Both callables are given the trust domain that the leaf names.

        ``bundle`` answers with the bundle of the broker's trust domain; ``own_bundle`` is asked only where that
        is another one than the leaf's.

        Raises :class:`Unauthenticated` (``SVID_*``) if there is no SVID in ``chain_pem``, or if the key is not
        its key: TLS would then fail without a word, and blame nobody. Raises :class:`InvalidInput`
        (CONFIG_INVALID) if one root would speak for the broker's trust domain and for ours, and what the
        callables raise; ``spiffeId`` in the metadata then says whose SVID was found nevertheless.
        """
        try:
            chain = read_certificates(chain_pem, at_most=1 + MAX_INTERMEDIATES)
        except CertificateUnreadable as error:
            raise _unusable(Reason.SVID_MALFORMED, f"Our own SVID cannot be read: {error}.") from None
        if not chain:
            raise _unusable(Reason.SVID_MISSING, "Our own SVID is empty.")
        leaf = chain[0]
        spiffe_id = one_canonical_id(leaf)
        _check_key(leaf, key_pem)
        try:
            trusted, own = _bundles(spiffe_id.trust_domain, bundle, own_bundle)
        except (InvalidInput, NotReady) as error:
            error.metadata.setdefault("spiffeId", str(spiffe_id))
            raise
        return cls(spiffe_id, leaf, chain_pem, key_pem, trusted, own, leaf.not_before, leaf.not_after)

    @property
    def federated(self) -> bool:
        """Whether the broker is of another trust domain than we are."""
        return self.bundle.trust_domain != self.spiffe_id.trust_domain

    @cached_property
    def digest(self) -> bytes:
        """Tells one material from another: a channel is rebuilt when, and only when, this changes."""
        digest = hashlib.sha256()
        for part in (self.chain_pem, self.key_pem, self.bundle.pem):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()

    def valid_at(self, now: datetime) -> bool:
        """Whether TLS would accept the leaf's validity at ``now``."""
        return self.not_before <= now <= self.not_after

    def verdicts(self, now: datetime) -> list[Verdict]:
        """What a broker that has our own trust domain's bundle would say of this SVID, rule by rule.

        Without that bundle at hand there is no verdict on the chain: no other bundle may speak for it.
        """
        end = b"-----END CERTIFICATE-----"
        leaf, marker, rest = self.chain_pem.partition(end)
        verdicts = judge_svid(leaf + marker, rest.strip(), Bundles([self.own_bundle or self.bundle]), now)
        return [each for each in verdicts if self.own_bundle or each.rule != CHAIN]


class SvidSource(Protocol):
    """One place an SVID comes from."""

    @property
    def endpoint(self) -> str:
        """Where it is, for people: the Workload API's address, or files."""
        ...

    @property
    def poll_seconds(self) -> float:
        """Look again after this many seconds, even if nobody called back."""
        ...

    def current(self) -> Material:
        """The SVID now; blocks for a bounded time.

        Raises :class:`Unauthenticated` (``SVID_*``); :class:`NotReady` (BROKER_BUNDLE_MISSING) if the bundle of
        the broker's trust domain is not, or no longer, given; :class:`InvalidInput` (CONFIG_INVALID) for a bundle
        that is none.
        """
        ...

    def subscribe(self, changed: Callable[[], None]) -> None:
        """``changed`` is called, from any thread, when :meth:`current` has something new."""
        ...

    def close(self) -> None:
        """Let go of threads and connections."""
        ...


@dataclass(frozen=True)
class FileSource:
    """PEM files, for places without a Workload API, such as a CI job. Replaced files are taken up within a second.

    ``bundle`` has the roots of the broker's trust domain, ``trust_domain``; empty: the one that the SVID names.
    """

    certificate: Path
    key: Path
    bundle: Path
    trust_domain: str = ""
    poll_seconds: float = FILE_POLL_SECONDS

    @property
    def endpoint(self) -> str:
        """The three paths."""
        return f"files {self.certificate}, {self.key}, {self.bundle}"

    def current(self) -> Material:
        """What the files say now."""
        chain, key, roots = (read_pem(path) for path in (self.certificate, self.key, self.bundle))
        return Material.of(chain, key, lambda own: TrustBundle.from_pem(self.trust_domain or own, roots))

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Files do not call back; ``poll_seconds`` is their only signal."""

    def close(self) -> None:
        """Nothing is held open."""


def _check_key(leaf: Facts, key_pem: bytes) -> None:
    try:
        matches = load_pem_private_key(key_pem, password=None).public_key() == leaf.public_key
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's text is dropped on purpose: nothing about a key goes into a message.
        raise _unusable(
            Reason.SVID_MALFORMED, "The key of our own SVID is not an unencrypted private key in PEM."
        ) from None
    if not matches:
        raise _unusable(Reason.SVID_MALFORMED, "Our own SVID does not belong to the key beside it.")


def _bundles(
    own: str, bundle: Callable[[str], TrustBundle], own_bundle: Callable[[str], TrustBundle] | None
) -> tuple[TrustBundle, TrustBundle | None]:
    """The broker's bundle, and ours."""
    trusted = bundle(own)
    if trusted.trust_domain == own:
        return trusted, trusted
    if own_bundle is None:
        return trusted, None
    ours = own_bundle(own)
    # Refuses a root that is in both: our own authority could then pose as the broker.
    Bundles([ours, trusted])
    return trusted, ours


def bundle_missing(wanted: str, own: str, at_hand: Iterable[str], endpoint: str) -> NotReady:
    """The Workload API did not give the bundle that the broker is to be verified against."""
    given = ", ".join(sorted(at_hand)) or "none"
    return NotReady(
        Reason.BROKER_BUNDLE_MISSING,
        f"There is no bundle to verify a broker of {wanted} against: the SPIFFE Workload API at {endpoint} gives "
        f"this workload of {own} the bundles of: {given}.",
        hint=f"Have this workload's SPIRE entry say -federatesWith spiffe://{wanted} (federatesWith), and the SPIRE "
        "server have that bundle; give it as a file (--bundle); or correct BROKER_TRUST_DOMAIN (--trust-domain).",
        metadata={"trustDomain": wanted, "ownTrustDomain": own, "bundles": given, "workloadApi": endpoint},
    )


def read_pem(path: Path) -> bytes:
    """What the file says now. Raises :class:`Unauthenticated` (SVID_MISSING)."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(Reason.SVID_MISSING, f"{path} cannot be read: {error.strerror}.", file=str(path)) from None


def _unusable(reason: Reason, message: str, **metadata: str) -> Unauthenticated:
    return Unauthenticated(
        reason, message, hint="`broker doctor` shows, step by step, where the SVID comes from.", metadata=metadata
    )
