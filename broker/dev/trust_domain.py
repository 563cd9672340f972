"""The authority of a development trust domain: a CA for X.509-SVIDs and a key for JWT-SVIDs, in files.

Belongs here: minting documents that obey the SPIFFE standards X509-SVID and JWT-SVID, for whoever the
caller names. Deciding who somebody is does not belong here, and nothing in ``broker/dev`` decides it.

Keys are ECDSA P-256, unencrypted in 0600 files, for the life of the state directory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwt.algorithms import ECAlgorithm

from broker.dev.files import private_directory, write_private
from broker.errors import InvalidInput, Reason
from broker.identity.spiffe_id import SpiffeId, is_trust_domain

_AUTHORITY_LIFE = timedelta(days=365)
_AUTHORITY_RENEWED = timedelta(days=30)
# So that a peer whose clock is a little behind accepts a document at once.
_BACKDATED = timedelta(seconds=10)
_JWT_ALGORITHM = "ES256"
_SUBJECT = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "jit-broker development")])


@dataclass(frozen=True, slots=True)
class X509Svid:
    """A certificate with its key. The chain is the leaf alone: the authority signs without intermediates."""

    spiffe_id: SpiffeId
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 PEM. Secret."""
        return _key_bytes(self.key, serialization.Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        """The certificate as DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_der(self) -> bytes:
        """The private key as unencrypted PKCS#8 DER. Secret."""
        return _key_bytes(self.key, serialization.Encoding.DER)


class TrustDomain:
    """The authority of ``name``. It signs what it is told to; times are arguments, aware and in UTC."""

    def __init__(
        self,
        name: str,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        jwt_key: ec.EllipticCurvePrivateKey,
    ) -> None:
        self.name = name
        self._certificate = certificate
        self._key = key
        self._jwt_key = jwt_key

    @classmethod
    def load(cls, name: str, directory: Path, now: datetime) -> TrustDomain:
        """The authority kept in ``directory``, made if absent; near its end its certificate is renewed, same key."""
        if not is_trust_domain(name):
            raise InvalidInput(
                Reason.CONFIG_INVALID, f"{name!a} is not the name of a trust domain.", metadata={"name": ascii(name)}
            )
        private_directory(directory)
        key, jwt_key = _stored_key(directory / "ca.key"), _stored_key(directory / "jwt.key")
        path = directory / "ca.pem"
        certificate = x509.load_pem_x509_certificate(path.read_bytes()) if path.exists() else None
        if certificate is None or certificate.not_valid_after_utc < now + _AUTHORITY_RENEWED:
            certificate = _authority_certificate(name, key, now)
            write_private(path, certificate.public_bytes(serialization.Encoding.PEM).decode())
        return cls(name, certificate, key, jwt_key)

    @property
    def bundle_pem(self) -> bytes:
        """The X.509 bundle as PEM: what verifies this domain's SVIDs."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def bundle_der(self) -> bytes:
        """The X.509 bundle as DER."""
        return self._certificate.public_bytes(serialization.Encoding.DER)

    @property
    def jwt_key_pem(self) -> bytes:
        """The public key of its JWT-SVIDs as PEM, for verifiers that take no JWK set."""
        return self._jwt_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def jwks(self) -> dict[str, object]:
        """The JWT bundle as a JWK set (SPIFFE_Trust_Domain_and_Bundle.md, section 4)."""
        public = ECAlgorithm.to_jwk(self._jwt_key.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": self._jwt_key_id, "use": "jwt-svid"}]}

    def x509_svid(
        self,
        spiffe_id: SpiffeId,
        *,
        now: datetime,
        ttl: timedelta,
        dns_names: Sequence[str] = (),
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> X509Svid:
        """An X.509-SVID valid for ``ttl`` (X509-SVID.md sections 2 to 4), never longer than the authority itself.

        ``dns_names`` are for a server that TLS clients find by name. ``key`` keeps a workload's key
        across renewals; by default each SVID has a new one. Raises :class:`InvalidInput` for an id of
        another trust domain or a ttl that is not positive.
        """
        self._demand_ours(spiffe_id, ttl)
        key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
        names = [x509.UniformResourceIdentifier(str(spiffe_id)), *map(x509.DNSName, dns_names)]
        certificate = (
            _builder(_SUBJECT, self._certificate.subject, key.public_key())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(min(now + ttl, self._certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return X509Svid(spiffe_id, certificate, key)

    def jwt_svid(self, spiffe_id: SpiffeId, *, audience: Sequence[str], now: datetime, ttl: timedelta) -> str:
        """A JWT-SVID (JWT-SVID.md sections 2 and 3), ES256, in compact form. Secret."""
        self._demand_ours(spiffe_id, ttl)
        claims = {"sub": str(spiffe_id), "aud": list(audience), "iat": now, "exp": now + ttl}
        return jwt.encode(claims, self._jwt_key, algorithm=_JWT_ALGORITHM, headers={"kid": self._jwt_key_id})

    def validate_jwt_svid(self, token: str, *, audience: str, now: datetime) -> dict[str, Any]:
        """The claims of a JWT-SVID of this domain that is meant for ``audience`` and valid at ``now``.

        Raises :class:`jwt.InvalidTokenError` (the token's fault) or :class:`broker.errors.Unauthenticated`
        (its subject is no SPIFFE ID).
        """
        claims: dict[str, Any] = jwt.decode(
            token,
            self._jwt_key.public_key(),
            algorithms=[_JWT_ALGORITHM],
            audience=audience,
            # pyjwt would compare with its own clock; the time is ours to say.
            options={"require": ["exp", "aud", "sub"], "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
        if not claims["exp"] > now.timestamp():
            raise jwt.ExpiredSignatureError("the token has expired")
        if SpiffeId.parse(claims["sub"]).trust_domain != self.name:
            raise jwt.InvalidTokenError("the subject is of another trust domain")
        return claims

    @property
    def _jwt_key_id(self) -> str:
        public = self._jwt_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(public).hexdigest()[:16]

    def _demand_ours(self, spiffe_id: SpiffeId, ttl: timedelta) -> None:
        if spiffe_id.trust_domain != self.name:
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"{spiffe_id} is not of the trust domain {self.name}.",
                metadata={"spiffeId": str(spiffe_id), "trustDomain": self.name},
            )
        if ttl <= timedelta():
            raise InvalidInput(
                Reason.CONFIG_INVALID, f"An SVID cannot live for {ttl}.", metadata={"ttl": str(ttl.total_seconds())}
            )


def _authority_certificate(name: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """A self-signed signing certificate: CA, keyCertSign, and the trust domain's id (X509-SVID.md section 4)."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{name}")])
    return (
        _builder(_SUBJECT, _SUBJECT, key.public_key())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _AUTHORITY_LIFE)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _stored_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        write_private(path, _key_bytes(ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM).decode())
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(
            Reason.CONFIG_INVALID, f"{path} does not hold an elliptic curve key.", metadata={"file": str(path)}
        )
    return key


def _key_bytes(key: ec.EllipticCurvePrivateKey, encoding: serialization.Encoding) -> bytes:
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
