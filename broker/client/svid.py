"""Where the SDK's own SVID comes from, and what one channel needs of it.

Belongs here: :class:`Material` (an SVID with its key and the roots of *its own* trust domain, no
others) and its two sources: the SPIFFE Workload API, which every agent should use, and explicit files,
for CI. Every source blocks with a time limit; the channel calls it in a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.errors import Reason, Unauthenticated
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.certificate import CertificateUnreadable, Facts, read_certificates
from broker.identity.doctor import Verdict, judge_svid
from broker.identity.spiffe_id import SpiffeId
from broker.identity.svid import MAX_INTERMEDIATES, one_canonical_id


@dataclass(frozen=True)
class Material:
    """One SVID, its key, and the bundle of its trust domain: what one mTLS channel is made of."""

    spiffe_id: SpiffeId
    leaf: Facts
    chain_pem: bytes  # the leaf, then its intermediates
    key_pem: bytes = field(repr=False)
    bundle: TrustBundle
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, chain_pem: bytes, key_pem: bytes, bundle: Callable[[str], TrustBundle]) -> Material:
        """Put together from PEM; ``bundle`` answers for the trust domain the leaf names.

        Raises :class:`Unauthenticated` (``SVID_*``) if there is no SVID in ``chain_pem``, or if the key is not
        its key: TLS would then fail without a word, and blame nobody.
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
        return cls(spiffe_id, leaf, chain_pem, key_pem, bundle(spiffe_id.trust_domain), leaf.not_before, leaf.not_after)

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
        """What a broker of the same trust domain would say of this SVID, rule by rule."""
        end = b"-----END CERTIFICATE-----"
        leaf, marker, rest = self.chain_pem.partition(end)
        return judge_svid(leaf + marker, rest.strip(), Bundles([self.bundle]), now)


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
        """The SVID now; blocks for a bounded time. Raises :class:`Unauthenticated` (``SVID_*``)."""
        ...

    def subscribe(self, changed: Callable[[], None]) -> None:
        """``changed`` is called, from any thread, when :meth:`current` has something new."""
        ...

    def close(self) -> None:
        """Let go of threads and connections."""
        ...


@dataclass(frozen=True)
class FileSource:
    """PEM files, for places without a Workload API, such as a CI job. Replaced files are taken up within a second."""

    certificate: Path
    key: Path
    bundle: Path
    poll_seconds: float = 1.0

    @property
    def endpoint(self) -> str:
        """The three paths."""
        return f"files {self.certificate}, {self.key}, {self.bundle}"

    def current(self) -> Material:
        """What the files say now."""
        chain, key, roots = (_read(path) for path in (self.certificate, self.key, self.bundle))
        return Material.of(chain, key, lambda trust_domain: TrustBundle.from_pem(trust_domain, roots))

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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(Reason.SVID_MISSING, f"{path} cannot be read: {error.strerror}.", file=str(path)) from None


def _unusable(reason: Reason, message: str, **metadata: str) -> Unauthenticated:
    return Unauthenticated(
        reason, message, hint="`broker doctor` shows, step by step, where the SVID comes from.", metadata=metadata
    )
