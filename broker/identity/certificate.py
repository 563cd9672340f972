"""Reading X.509 certificates somebody else wrote.

Belongs here: limits on what is parsed at all, and the facts the SVID rules ask about, read once and
eagerly, so that everything a hostile encoding can raise is raised here and as one type. Does not
belong here: which facts are acceptable (``svid.py`` for peers, ``bundle.py`` for roots).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

# An SVID with RSA-4096 keys on both sides is about 2.3 KiB of PEM. What is far beyond that is not parsed.
MAX_CERTIFICATE_BYTES = 16 * 1024

_DER_SEQUENCE = b"\x30"
_T = TypeVar("_T", bound=x509.ExtensionType)

# Everything `cryptography` is known to raise on a malformed or unsupported encoding; its parse errors are
# ValueErrors, the others derive from Exception directly.
_UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class CertificateUnreadable(ValueError):
    """The bytes are not a certificate this broker can read. Callers turn it into their own refusal."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one certificate says of itself. Nothing here is verified.

    The fingerprint is for people and logs: anybody can turn an ECDSA signature (r, s) into (r, n - s),
    which verifies too, so that one signed content has several fingerprints. No deny list may use it.
    """

    certificate: x509.Certificate
    fingerprint: str  # SHA-256 of the DER, hex
    serial: int
    not_before: datetime
    not_after: datetime
    has_subject: bool
    names_critical: bool  # of the subject alternative names
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    is_ca: bool
    key_usage: x509.KeyUsage | None
    key_usage_critical: bool
    extended_key_usage: frozenset[x509.ObjectIdentifier] | None
    public_key: CertificatePublicKeyTypes

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Facts:
        """The facts of ``certificate``. Raises :class:`CertificateUnreadable`."""
        try:
            return cls._read(certificate)
        except _UNREADABLE as error:
            raise CertificateUnreadable(brief(error)) from None

    @classmethod
    def _read(cls, certificate: x509.Certificate) -> Facts:
        _check_signature_bits(certificate)
        extensions = certificate.extensions
        names = _extension(extensions, x509.SubjectAlternativeName)
        constraints = _extension(extensions, x509.BasicConstraints)
        usage = _extension(extensions, x509.KeyUsage)
        purposes = _extension(extensions, x509.ExtendedKeyUsage)
        return cls(
            certificate=certificate,
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            serial=certificate.serial_number,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            has_subject=len(certificate.subject.rdns) > 0,
            names_critical=names.critical if names else False,
            uris=tuple(names.value.get_values_for_type(x509.UniformResourceIdentifier)) if names else (),
            dns_names=tuple(names.value.get_values_for_type(x509.DNSName)) if names else (),
            is_ca=constraints.value.ca if constraints else False,
            key_usage=usage.value if usage else None,
            key_usage_critical=usage.critical if usage else False,
            extended_key_usage=frozenset(purposes.value) if purposes else None,
            public_key=certificate.public_key(),
        )


def read_certificates(data: bytes, *, at_most: int) -> tuple[Facts, ...]:
    """The certificates in ``data``: one in DER, or any number of PEM blocks; none for no bytes.

    Raises :class:`CertificateUnreadable`, also for more than ``at_most`` certificates and for more
    bytes than ``at_most`` reasonable certificates have.
    """
    if not data:
        return ()
    if len(data) > at_most * MAX_CERTIFICATE_BYTES:
        raise CertificateUnreadable(f"{len(data)} bytes; at most {at_most * MAX_CERTIFICATE_BYTES} are read")
    try:
        parsed = (
            [x509.load_der_x509_certificate(data)]
            if data.startswith(_DER_SEQUENCE)
            else x509.load_pem_x509_certificates(data)
        )
    except _UNREADABLE as error:
        raise CertificateUnreadable(brief(error)) from None
    if len(parsed) > at_most:
        raise CertificateUnreadable(f"{len(parsed)} certificates; at most {at_most} are read")
    return tuple(Facts.of(certificate) for certificate in parsed)


def _check_signature_bits(certificate: x509.Certificate) -> None:
    """The signature is whole bytes (RFC 5280, 4.1.1.3, of every algorithm in use).

    `cryptography` ignores the octet that counts unused bits, the last one before the signature; a
    second encoding of one certificate, which other libraries refuse, is refused here as well.
    """
    unused_bits = certificate.public_bytes(Encoding.DER)[-len(certificate.signature) - 1]
    if unused_bits:
        raise CertificateUnreadable(f"its signature has {unused_bits} unused bits")


def _extension(extensions: x509.Extensions, kind: type[_T]) -> x509.Extension[_T] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def brief(error: Exception) -> str:
    """What a library says, which may quote the certificate: ASCII and short, so that it can stand in a log line."""
    return ascii(str(error))[1:-1][:200] or type(error).__name__
