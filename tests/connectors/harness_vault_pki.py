"""The PKI engine of the test's OpenBao as the contract suite drives it: a CA, a role, a key, a relying party."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from broker.clock import SystemClock
from broker.connectors.vault_pki import VaultPki, VaultPkiSettings
from broker.lease.credential import Credential, X509Certificate
from broker.scope.model import Scope
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import Harness
from tests.connectors.misbehaving import behind_proxy, lying_vault, vault_refusal
from tests.connectors.support import make_scope
from tests.connectors.vault_mount import allow_attempts, allow_broker, broker_token, mounted
from tests.patience import PATIENCE

MOUNT = "pki"
ROLE = "service"
GRANT = {"role": ROLE, "common_name": "orders.example.org", "dns_names": ["orders-2.example.org"]}
READ_WITHIN = timedelta(minutes=1)


def request_of(
    key: CertificateIssuerPrivateKeyTypes | None = None,
    names: Sequence[x509.NameAttribute[str]] = (),
    extensions: Sequence[x509.ExtensionType] = (),
) -> str:
    """A PKCS #10 request, which by default asks for nothing."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(list(names)))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def pki_scope(public_key: str | None = None, **changes: object) -> Scope:
    return make_scope({**GRANT, **changes}, subject_public_key=request_of() if public_key is None else public_key)


def configure_pki(bao: ConfiguredOpenBao, **role: object) -> None:
    """A CA of its own, a role that makes leases, and what the broker may do there."""
    root = bao.root_client()
    if mounted(root, MOUNT, "pki", "sign"):
        authority = {"common_name": "test CA", "ttl": "24h", "key_type": "ec"}
        root.write_data(f"{MOUNT}/root/generate/internal", data=authority)
    allow_broker(root, f'path "{MOUNT}/cert/*" {{ capabilities = ["read"] }}')
    allow_broker(root, f'path "{MOUNT}/issuer/+/crl" {{ capabilities = ["read"] }}')
    settings = {
        "generate_lease": True,
        "max_ttl": "1h",
        "allowed_domains": ["example.org"],
        "allow_subdomains": True,
        "key_type": "any",
        "use_csr_common_name": False,
        "use_csr_sans": False,
        "not_before_duration": "30s",
    }
    root.write_data(f"{MOUNT}/roles/{ROLE}", data={**settings, **role})
    allow_attempts(root, ROLE, f'path "{MOUNT}/sign/{ROLE}" {{ capabilities = ["update"] }}')


def pki_connector(bao: ConfiguredOpenBao, address: str | None = None, **settings: object) -> VaultPki:
    options = {"mount": MOUNT, "list_read_within": READ_WITHIN, "timeout": PATIENCE, "threads": 4, **settings}
    made = VaultPkiSettings(address or bao.facts.address, **options)  # type: ignore[arg-type]
    token = broker_token(bao.root_client())
    return VaultPki("pki", made, lambda: token, SystemClock())


def pki_harness(bao: ConfiguredOpenBao, dead_address: str) -> Harness:
    configure_pki(bao)

    def at(address: str, timeout: float) -> VaultPki:
        return pki_connector(bao, address, timeout=timeout)

    return Harness(
        clock=SystemClock(),
        make=lambda: pki_connector(bao),
        make_unreachable=lambda: pki_connector(bao, dead_address),
        scope=pki_scope(),
        works=lambda credential: taken(bao, credential),
        short_by=timedelta(seconds=2),
        ends_when_asked=True,
        misbehaving=behind_proxy(bao.facts.address, at, vault_refusal),
        lying=lying_vault(bao.facts.address, at),
    )


def taken(bao: ConfiguredOpenBao, credential: Credential) -> bool:
    """Whether a relying party that knows the CA and reads its revocation list takes it."""
    assert isinstance(credential, X509Certificate)
    certificate = x509.load_pem_x509_certificate(credential.certificate.encode())
    (authority,) = x509.load_pem_x509_certificates(credential.ca_chain.encode())
    certificate.verify_directly_issued_by(authority)
    session = bao.root_client().session
    revoked = x509.load_der_x509_crl(session.get(f"{bao.facts.address}/v1/{MOUNT}/crl").content)
    if not revoked.is_signature_valid(authority.public_key()):  # type: ignore[arg-type]
        return False
    listed = revoked.get_revoked_certificate_by_serial_number(certificate.serial_number)
    return listed is None and SystemClock().now() < certificate.not_valid_after_utc
