"""TLS material, wherever it comes from: checked before it is used, never lost to a bad successor.

Belongs here: the broker's own certificate and key as one checked pair, :class:`LastGood`, which holds
what an origin last said well, and the rule by which bundles that are good alone become a set. Does not
belong here: the origins (``tls_files.py``, ``tls_workload_api.py``), and serving (``tls.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, NoReturn, Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from broker.errors import BrokerError, InvalidInput, NotReady, Reason, Unauthenticated
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.certificate import CertificateUnreadable, read_certificates
from broker.identity.spiffe_id import SpiffeId
from broker.identity.svid import LEAF_RULES, MAX_INTERMEDIATES, one_canonical_id

# What could not be taken in is looked at again at most this often (seconds), so that a bad file is not costly.
RETRY_SECONDS = 1.0
# The part of its life after which an SVID should have been replaced. Authorities renew *at* half of it, SPIRE
# give or take a tenth of that half; an alarm at exactly half would ring at each renewal, and mean nothing.
RENEWED_BY = 0.6
# For clocks that are behind, authorities let a certificate begin before it was made: SPIRE by ten seconds.
BACKDATED = timedelta(seconds=10)

# What time, or a renewal, mends without anybody: a machine that starts before what renews its files has.
_FOR_NOW = (Reason.SVID_EXPIRED, Reason.SVID_NOT_YET_VALID)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The broker's own X.509-SVID with its key: parsed, matching, and valid when it was loaded."""

    spiffe_id: SpiffeId
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...]  # stock gRPC clients can only match these, never a SPIFFE ID
    fingerprint: str  # SHA-256 of the leaf's DER, hex

    def overdue(self, now: datetime) -> bool:
        """Whether it should have been renewed by now."""
        life = max(self.not_after - self.not_before - BACKDATED, timedelta())
        return now > self.not_after - life * (1 - RENEWED_BY)

    def ended(self, now: datetime) -> bool:
        """Whether no client accepts it any more."""
        return now > self.not_after


def server_identity(
    chain_pem: bytes, key_pem: bytes, *, trust_domain: str, now: datetime, chain_at: str, key_at: str, hint: str
) -> ServerIdentity:
    """The pair, if it is an X.509-SVID of ``trust_domain`` that may serve at ``now``.

    ``chain_at`` and ``key_at`` say where the two are from, for people. Raises :class:`InvalidInput`
    (CONFIG_INVALID), and :class:`NotReady` (OWN_SVID_EXPIRED) where it has ended or not begun; never tells the key.
    """

    def refuse(where: str, why: str) -> NoReturn:
        raise InvalidInput(Reason.CONFIG_INVALID, f"{where} {why}.", hint=hint, metadata={"file": where})

    try:
        chain = read_certificates(chain_pem, at_most=1 + MAX_INTERMEDIATES)
    except CertificateUnreadable as error:
        refuse(chain_at, f"cannot be read as a certificate chain ({error})")
    if not chain:
        refuse(chain_at, "is empty")
    leaf = chain[0]
    public_key = _public_key_of(key_pem)
    if public_key is None:
        refuse(key_at, "is not an unencrypted private key in PEM")
    if public_key != _public_key_in(leaf.certificate):
        refuse(chain_at, f"does not belong to the key in {key_at}")
    try:
        for rule in LEAF_RULES:
            rule(leaf, now)
        spiffe_id = one_canonical_id(leaf)
    except Unauthenticated as error:
        if error.reason in _FOR_NOW:
            raise NotReady(
                Reason.OWN_SVID_EXPIRED,
                f"{chain_at} cannot be served with at this time. {error.message}",
                hint=f"Is it renewed, and is this machine's clock right? {hint}",
                metadata={"file": chain_at},
            ) from None
        refuse(chain_at, f"is no X.509-SVID to serve with. {error.message.removesuffix('.')}")
    if spiffe_id.trust_domain != trust_domain:
        refuse(chain_at, f"is of the trust domain {spiffe_id.trust_domain}; the broker's own is {trust_domain}")
    return ServerIdentity(
        spiffe_id, chain_pem, key_pem, leaf.not_before, leaf.not_after, leaf.dns_names, leaf.fingerprint
    )


def _public_key_of(key_pem: bytes) -> bytes | None:
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's text is dropped on purpose: nothing about a key goes into a message.
        return None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public_key_in(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return b""  # of a kind that is not supported: no key equals it


class Origin(Protocol[T_co]):
    """Where one piece of material comes from."""

    def signature(self) -> object:
        """Differs from before when the material may. Cheap: it is asked each second. Raises nothing."""
        ...

    def load(self) -> T_co:
        """The material now. Raises :class:`BrokerError` for anything that must not be used."""
        ...


class LastGood(Generic[T]):
    """What ``origin`` last said well. Raises at construction, unless there is a ``fallback``; afterwards it keeps.

    The signature is taken *before* loading, so that a change during the load is seen the next time.
    After a failure it loads again even if the signature is the same, because a half-written file may have
    been finished within one tick of the file system's clock; at most once in ``RETRY_SECONDS`` of ``monotonic``.
    """

    def __init__(
        self, origin: Origin[T], monotonic: Callable[[], float], fallback: Callable[[], T] | None = None
    ) -> None:
        self._origin = origin
        self._monotonic = monotonic
        self._signature = origin.signature()
        self._tried_at = monotonic()
        self.error: BrokerError | None = None
        try:
            self.value = origin.load()
        except BrokerError as error:
            if fallback is None:
                raise
            self.value, self.error = fallback(), error

    def refresh(self) -> bool:
        """Load again if there is reason to; whether ``value`` is new. ``error`` tells of the last try."""
        signature = self._origin.signature()
        moment = self._monotonic()
        if signature == self._signature and (self.error is None or moment - self._tried_at < RETRY_SECONDS):
            return False
        self._signature = signature
        self._tried_at = moment
        try:
            self.value = self._origin.load()
        except BrokerError as error:
            self.error = error
            return False
        except Exception as error:  # noqa: BLE001 - whatever a parser comes up with, what serves goes on serving
            self.error = InvalidInput(
                Reason.CONFIG_INVALID, f"TLS material could not be taken in: {type(error).__name__}."
            )
            return False
        self.error = None
        return True


def compose(
    own: str, offered: Mapping[str, TrustBundle], before: Mapping[str, TrustBundle]
) -> tuple[Bundles, dict[str, BrokerError]]:
    """The set to put in force, and why some of what is ``offered`` is not in it.

    Two bundles that share a root key could stand for each other, so one of them must yield. The own trust
    domain never does, and what is unchanged since ``before`` does not yield to what is new: otherwise a
    partner who puts our root, or another partner's, into his bundle could hold up its removal or throw
    the other out. What yields keeps what it had before, or is left out: then nobody of it gets in.

    Raises :class:`InvalidInput` (CONFIG_INVALID) if nothing is offered.
    """
    chosen: dict[str, TrustBundle] = {}
    refused: dict[str, BrokerError] = {}
    for name in sorted(offered, key=lambda each: (each != own, before.get(each) is not offered[each])):
        for option in (offered[name], before.get(name)):
            if option is None:
                continue
            rival = next((other for other in chosen.values() if other.shares_key_with(option)), None)
            if rival is None:
                chosen[name] = option
                break
            refused.setdefault(name, _clash(name, rival.trust_domain))
    return Bundles(chosen[name] for name in offered if name in chosen), refused


def _clash(name: str, rival: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"The trust bundle of {name} shares a root key with the bundle of {rival}.",
        hint="Each trust domain has roots of its own; ask who put this one into both.",
        metadata={"trustDomain": name, "other": rival},
    )
