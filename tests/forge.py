"""A forger of X.509-SVIDs, good and hostile, for every test that needs one.

``authority("example.org").svid("spiffe://example.org/agent/one")`` is a good SVID; every further argument is
one defect. What no library would sign is made from a good one with :func:`resigned`, field by field. Nothing
here checks anything: checking is what is under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
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
_NO_DIGEST = hashes.SHA256()  # forge(digest=...) was not given

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

# The DER of AlgorithmIdentifiers (RFC 5758, 3.2; RFC 3279, 2.2.3): what signatures say of themselves.
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ECDSA_SHA1 = bytes.fromhex("300906072a8648ce3d0401")


@dataclass(frozen=True)
class Forged:
    """A certificate, its key, and what its holder sends along (without the root)."""

    certificate: x509.Certificate
    key: Key
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
    emails: Sequence[str] = (),
    serial: int | None = None,
    raw_san: bytes | None = None,
    san_critical: bool | None = None,
    authority_key: bool = True,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key: Key | None = None,
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 = _NO_DIGEST,
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
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(at + begins)
        .not_valid_after(at + ends)
    )
    names = [
        *map(x509.UniformResourceIdentifier, uris),
        *map(x509.DNSName, dns),
        *map(x509.RFC822Name, emails),
    ]
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
    return Forged(builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else digest), key)


@lru_cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """One RSA key of this size for a whole run: making one takes its time."""
    return rsa.generate_private_key(65537, bits)


class Field:
    """Where the fields of a version 3 TBSCertificate stand (RFC 5280, 4.1.2)."""

    VERSION, SERIAL, ALGORITHM, ISSUER, VALIDITY, SUBJECT, KEY, EXTENSIONS = range(8)


def resigned(
    forged: Forged, issuer: Forged, edit: Callable[[list[bytes]], None], *, algorithm: bytes = ECDSA_SHA256
) -> bytes:
    """The DER of ``forged`` with the fields of its TBSCertificate as ``edit`` leaves them, signed by ``issuer``.

    ``edit`` gets the DER of each field in the order of :class:`Field`; ``algorithm`` is what stands *outside* the
    signed part, and what is signed with. Bytes, because not every result can be read.
    """
    fields = elements(forged.certificate.tbs_certificate_bytes)
    edit(fields)
    signed = tlv(0x30, b"".join(fields))
    digest = hashes.SHA1() if algorithm == ECDSA_SHA1 else hashes.SHA256()
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    return tlv(0x30, signed + algorithm + tlv(0x03, b"\x00" + issuer.key.sign(signed, ec.ECDSA(digest))))


def elements(der: bytes) -> list[bytes]:
    """The DER elements inside one constructed element."""
    _, start, end = _head(der, 0)
    found = []
    while start < end:
        _, _, stop = _head(der, start)
        found.append(der[start:stop])
        start = stop
    return found


def _head(der: bytes, at: int) -> tuple[int, int, int]:
    """(tag, first byte of the value, first byte after it) of the element at ``at``."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    return tag, start, start + length


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
