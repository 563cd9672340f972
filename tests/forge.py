"""A forger of X.509-SVIDs, good and hostile, for every test that needs one.

``authority("example.org").svid("spiffe://example.org/agent/one")`` is a good SVID; every further argument is
one defect. Nothing here checks anything: checking is what is under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

# The instant of tests that are about rules; tests over real TLS pass the real time to authority().
NOW = datetime(2031, 5, 1, 12, 0, 0, tzinfo=UTC)
BOTH_PURPOSES = (Purpose.SERVER_AUTH, Purpose.CLIENT_AUTH)
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_SAN = x509.ObjectIdentifier("2.5.29.17")


@dataclass(frozen=True)
class Forged:
    """A certificate, its key, and what its holder sends along (without the root)."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @cached_property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @cached_property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @cached_property
    def chain_pem(self) -> bytes:
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.chain)

    @cached_property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class Authority(Forged):
    """A CA: issues SVIDs and further CAs. ``at`` is the instant its lifetimes are counted from."""

    at: datetime = NOW

    def svid(self, *uris: str, ends: timedelta = timedelta(hours=1), **defects: object) -> Forged:
        """A leaf with ``uris``; ``defects`` are arguments of :func:`forge`."""
        sent = (self.certificate, *self.chain) if self.is_intermediate else ()
        made = forge(uris=uris, issuer=self, at=self.at, ends=ends, **defects)  # type: ignore[arg-type]
        return Forged(made.certificate, made.key, sent)

    def intermediate(self, name: str = "intermediate", *uris: str, **defects: object) -> Authority:
        """A CA under this one; ``defects`` are arguments of :func:`forge`."""
        settings = {**_CA_SETTINGS, "ends": timedelta(hours=12), **defects}
        made = forge(uris=uris, issuer=self, at=self.at, subject=name, **settings)  # type: ignore[arg-type]
        sent = (self.certificate, *self.chain) if self.is_intermediate else ()
        return Authority(made.certificate, made.key, sent, self.at)

    @property
    def is_intermediate(self) -> bool:
        return self.certificate.issuer != self.certificate.subject


_CA_SETTINGS = {"ca": True, "usage": ("key_cert_sign", "crl_sign"), "purposes": None}


def authority(trust_domain: str, *, at: datetime = NOW, name: str = "", **defects: object) -> Authority:
    """A self-signed root of ``trust_domain``."""
    settings = {**_CA_SETTINGS, "ends": timedelta(days=1), **defects}
    uris = settings.pop("uris", (f"spiffe://{trust_domain}",))
    made = forge(uris=uris, issuer=None, at=at, subject=name or f"CA of {trust_domain}", **settings)  # type: ignore[arg-type]
    return Authority(made.certificate, made.key, (), at)


def forge(
    *,
    uris: Sequence[str] = (),
    issuer: Forged | None,
    at: datetime = NOW,
    begins: timedelta = timedelta(minutes=-5),
    ends: timedelta = timedelta(hours=1),
    subject: str = "",
    ca: bool = False,
    path_length: int | None = None,
    constraints: bool = True,
    usage: Sequence[str] | None = ("digital_signature",),
    usage_critical: bool = True,
    purposes: Sequence[x509.ObjectIdentifier] | None = BOTH_PURPOSES,
    dns: Sequence[str] = (),
    raw_san: bytes | None = None,
    san_critical: bool | None = None,
    authority_key: bool = True,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key: ec.EllipticCurvePrivateKey | None = None,
    digest: hashes.HashAlgorithm | None = None,
) -> Forged:
    """One certificate, exactly as described. ``issuer=None`` signs itself; ``raw_san`` is the DER of the SAN."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else [])
    signer, signer_name = (issuer.key, issuer.certificate.subject) if issuer else (key, name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at + begins)
        .not_valid_after(at + ends)
    )
    names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
    extensions: list[tuple[x509.ExtensionType, bool]] = list(extra)
    if constraints:
        extensions.append((x509.BasicConstraints(ca=ca, path_length=path_length), True))
    if usage is not None:
        bits = {each: each in usage for each in _USAGES}
        extensions.append((x509.KeyUsage(**bits), usage_critical))
    if purposes is not None:
        extensions.append((x509.ExtendedKeyUsage(purposes), False))
    critical = not subject if san_critical is None else san_critical
    if raw_san is not None:
        extensions.append((x509.UnrecognizedExtension(_SAN, raw_san), critical))
    elif names:
        extensions.append((x509.SubjectAlternativeName(names), critical))
    extensions.append((x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
    if authority_key and issuer:
        extensions.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False))
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return Forged(builder.sign(signer, digest or hashes.SHA256()), key)


def der_san_uris(*uris: bytes) -> bytes:
    """The DER of a SAN with these URIs byte for byte, also such as no library would write (RFC 5280, 4.2.1.6)."""
    return tlv(0x30, b"".join(tlv(0x86, uri) for uri in uris))


def tlv(tag: int, value: bytes) -> bytes:
    """One DER element."""
    length = len(value)
    if length < 0x80:
        return bytes([tag, length]) + value
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + value
