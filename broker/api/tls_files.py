"""TLS material on disk: read with suspicion, re-read when it changes, never lost to a bad write.

Belongs here: opening a file only if nobody else could read (a key) or write (anything) it, the
broker's own certificate and key as one checked pair, and :class:`LastGood`, which holds what was last
loaded whole. What the material is used for is ``tls.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from broker.errors import BrokerError, InvalidInput, Reason
from broker.files.guarded import Unfit, read_bytes
from broker.identity.certificate import CertificateUnreadable, read_certificates
from broker.identity.svid import MAX_INTERMEDIATES

MAX_FILE_BYTES = 1024 * 1024
# A broken pair is looked at again at most this often (seconds), so that handshakes cannot make it costly.
RETRY_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The broker's own certificate chain with its key: parsed, matching, and valid when it was loaded."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...]  # stock gRPC clients can only match these, never a SPIFFE ID
    fingerprint: str  # SHA-256 of the leaf's DER, hex


def load_server_identity(certificate: Path, key: Path, now: datetime) -> ServerIdentity:
    """The pair in these two files. Raises :class:`InvalidInput` (CONFIG_INVALID); never tells the key."""
    chain_pem = read_guarded(certificate, private=False)
    key_pem = read_guarded(key, private=True)
    try:
        chain = read_certificates(chain_pem, at_most=1 + MAX_INTERMEDIATES)
    except CertificateUnreadable as error:
        _refuse(certificate, f"cannot be read as a certificate chain ({error})")
    if not chain:
        _refuse(certificate, "is empty")
    leaf = chain[0]
    if _public_key_of(key, key_pem) != _public_key_in(certificate, leaf.certificate):
        _refuse(certificate, f"does not belong to the key in {key}")
    if leaf.is_ca:
        _refuse(certificate, "is a CA; a CA never serves TLS")
    if not leaf.not_before <= now <= leaf.not_after:
        window = f"{leaf.not_before.isoformat()} to {leaf.not_after.isoformat()}"
        _refuse(certificate, f"is valid from {window}; it is {now.isoformat()}")
    return ServerIdentity(chain_pem, key_pem, leaf.not_before, leaf.not_after, leaf.dns_names, leaf.fingerprint)


def read_guarded(path: Path, *, private: bool) -> bytes:
    """The file's bytes, if it is a regular file that only its owner may write (and, if private, read).

    Raises :class:`InvalidInput` (CONFIG_INVALID).
    """
    try:
        return read_bytes(path, private=private, at_most=MAX_FILE_BYTES)
    except Unfit as unfit:
        _refuse(path, str(unfit))


def _public_key_of(path: Path, key_pem: bytes) -> bytes:
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's text is dropped on purpose: nothing about a key goes into a message.
        _refuse(path, "is not an unencrypted private key in PEM")
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public_key_in(path: Path, certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        _refuse(path, "has a public key of a kind that is not supported")


class LastGood(Generic[T]):
    """What ``load`` last returned for some files. Raises at construction; afterwards never, it keeps.

    ``refresh`` is cheap while nothing changed: one ``stat`` a file. The signature is taken *before*
    loading, so a write during the load is seen the next time. After a failure it loads again even if
    the files look the same, because a half-written file may have been finished within one tick of
    the file system's clock; at most once in ``RETRY_SECONDS`` of ``monotonic``.
    """

    def __init__(self, paths: tuple[Path, ...], load: Callable[[], T], monotonic: Callable[[], float]) -> None:
        self._paths = paths
        self._load = load
        self._monotonic = monotonic
        self._signature = _signature(paths)
        self._tried_at = monotonic()
        self.value = load()
        self.error: BrokerError | None = None

    def refresh(self) -> bool:
        """Load again if there is reason to; whether ``value`` is new. ``error`` tells of the last try."""
        signature = _signature(self._paths)
        moment = self._monotonic()
        if signature == self._signature and (self.error is None or moment - self._tried_at < RETRY_SECONDS):
            return False
        self._signature = signature
        self._tried_at = moment
        try:
            self.value = self._load()
        except BrokerError as error:
            self.error = error
            return False
        self.error = None
        return True


def _signature(paths: tuple[Path, ...]) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # loading it tells what is wrong
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)


def _refuse(path: Path, why: str) -> NoReturn:
    raise InvalidInput(
        Reason.CONFIG_INVALID,
        f"{path} {why}.",
        hint="Write TLS files whole, beside their place, and rename them into it.",
        metadata={"file": str(path)},
    )
