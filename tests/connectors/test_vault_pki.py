"""Certificates of agents' own keys: names only from the template, ended by the revocation list of a real OpenBao."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.clock import SystemClock
from broker.connectors.vault_pki import VaultPki
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import ContractClass, X509Certificate
from broker.ports.connectors import Expired, Issued, NotYet, Revoked, Use
from broker.scope.model import Scope
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness_vault_pki import MOUNT, ROLE, configure_pki, pki_connector, pki_scope, request_of, taken
from tests.connectors.support import HOLDER, Ledger, new_attempt
from tests.patience import until

TTL = timedelta(minutes=5)


@pytest.fixture
def pki(openbao_server: ConfiguredOpenBao) -> Iterator[ConfiguredOpenBao]:
    """The engine with a good role, whatever a test makes of it."""
    configure_pki(openbao_server)
    yield openbao_server
    configure_pki(openbao_server)


async def issue(connector: VaultPki, ledger: Ledger, scope: Scope, ttl: timedelta = TTL) -> Issued:
    expires_at = SystemClock().now() + ttl
    ledger.handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint))


def certificate(issued: Issued) -> x509.Certificate:
    assert isinstance(issued.credential, X509Certificate)
    return x509.load_pem_x509_certificate(issued.credential.certificate.encode())


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
async def test_the_agents_key_gets_the_templates_names_and_no_others(
    pki: ConfiguredOpenBao, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    empty = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    asked = empty.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    text = asked.public_bytes(serialization.Encoding.PEM).decode()
    connector, ledger = pki_connector(pki), Ledger()
    issued = await issue(connector, ledger, pki_scope(text))
    made = certificate(issued)
    assert made.public_key() == key.public_key()
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(names.get_values_for_type(x509.DNSName)) == ["orders-2.example.org", "orders.example.org"]
    assert issued.expires_at == made.not_valid_after_utc
    assert made.not_valid_after_utc <= SystemClock().now() + TTL
    assert taken(pki, issued.credential)
    await connector.close()


ASKS_FOR_MORE = {
    "a name": request_of(names=[x509.NameAttribute(NameOID.COMMON_NAME, "admin.example.org")]),
    "an alternative name": request_of(extensions=[x509.SubjectAlternativeName([x509.DNSName("admin.example.org")])]),
    "to be a CA": request_of(extensions=[x509.BasicConstraints(ca=True, path_length=None)]),
    "nothing, in a request that was changed": request_of().replace("A", "B", 1),
    "nothing, twice": request_of() + request_of(),
    "too little": request_of(rsa.generate_private_key(65537, 1024)),
    "a kind that is not certified": request_of(dsa.generate_private_key(2048)),
    "nothing at all": "",
    "something else": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    "an SSH key": "ssh-ed25519 AAAA",
    "another script": "ключ",
    "trust, with its private key": ec.generate_private_key(ec.SECP256R1())
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode(),
}


@pytest.mark.parametrize("public_key", ASKS_FOR_MORE.values(), ids=ASKS_FOR_MORE.keys())
async def test_a_request_that_asks_for_anything_is_refused_before_anything_is_asked(
    pki: ConfiguredOpenBao, public_key: str, dead_address: str
) -> None:
    connector = pki_connector(pki, dead_address)
    with pytest.raises(InvalidInput) as refused:
        connector.prepare(pki_scope(public_key), new_attempt(), HOLDER, SystemClock().now() + TTL)
    assert refused.value.reason is Reason.FIELD_INVALID
    assert refused.value.metadata["field"] == "subject_public_key"
    assert "BEGIN" not in str(refused.value)
    await connector.close()


@pytest.mark.parametrize(
    "grant",
    [
        {"common_name": "orders.example.org,admin.example.org"},
        {"common_name": "Orders.example.org"},
        {"common_name": "orders"},
        {"common_name": ""},
        {"common_name": None},
        {"common_name": "10.0.0.1"},
        {"common_name": "a." * 40 + "example.org"},
        {"common_name": {"parameter": "host"}},
        {"dns_names": "orders.example.org"},
        {"dns_names": ["ok.example.org", "spiffe://example.org/x"]},
        {"dns_names": ["ok.example.org", None]},
    ],
)
async def test_a_grant_that_comes_to_no_names_is_refused(
    pki: ConfiguredOpenBao, grant: dict[str, object], dead_address: str
) -> None:
    connector = pki_connector(pki, dead_address)
    with pytest.raises(InvalidInput) as refused:
        connector.prepare(pki_scope(**grant), new_attempt(), HOLDER, SystemClock().now() + TTL)
    assert refused.value.reason is Reason.CONFIG_INVALID
    await connector.close()


@pytest.mark.parametrize(
    "role",
    [
        {"allow_localhost": True, "use_csr_sans": True, "ttl": "1h", "allow_ip_sans": True, "server_flag": False},
        {"use_csr_common_name": True, "use_csr_sans": True},
    ],
)
async def test_a_role_that_takes_names_from_the_request_is_refused_and_its_certificate_ended(
    pki: ConfiguredOpenBao, role: dict[str, object]
) -> None:
    configure_pki(pki, **role)
    connector, ledger = pki_connector(pki), Ledger()
    # The request has no names, so the certificate lacks the template's.
    with pytest.raises(UpstreamFailed) as refused:
        await issue(connector, ledger, pki_scope())
    assert refused.value.reason is Reason.UPSTREAM_GRANT_MISMATCH
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    serials = pki.root_client().list(f"{MOUNT}/certs/revoked")["data"]["keys"]
    assert ledger.handle["serial"] in serials
    await connector.close()


async def test_a_role_that_says_itself_how_long_is_refused(pki: ConfiguredOpenBao) -> None:
    ends = SystemClock().now() + timedelta(hours=2)
    configure_pki(pki, not_after=ends.strftime("%Y-%m-%dT%H:%M:%SZ"), max_ttl="0")
    connector, ledger = pki_connector(pki), Ledger()
    with pytest.raises(UpstreamFailed) as refused:
        await issue(connector, ledger, pki_scope())
    assert refused.value.reason is Reason.UPSTREAM_REFUSED
    configure_pki(pki, not_after="")
    await connector.close()


async def test_a_role_without_leases_is_refused_and_nothing_is_delivered(pki: ConfiguredOpenBao) -> None:
    configure_pki(pki, generate_lease=False)
    connector, ledger = pki_connector(pki), Ledger()
    with pytest.raises(UpstreamFailed, match="lease_id") as refused:
        await issue(connector, ledger, pki_scope())
    assert not refused.value.outcome_known
    await connector.close()


async def test_revoked_means_that_its_number_is_on_the_list(pki: ConfiguredOpenBao) -> None:
    connector, ledger = pki_connector(pki), Ledger()
    scope = pki_scope()
    issued = await issue(connector, ledger, scope)
    assert await connector.use(issued.credential, scope) is Use.WORKS
    assert await connector.use(issued.credential, pki_scope()) is Use.REFUSED  # who shows it has another key
    outcome = await connector.revoke(ledger.handle, ledger.context(expires_at=issued.expires_at))
    assert isinstance(outcome, Revoked)
    assert outcome.observed["revocation_list"] == "the serial number is on it"
    assert not taken(pki, issued.credential)
    assert await connector.use(issued.credential, scope) is Use.REFUSED
    await connector.close()


async def test_a_relying_party_takes_no_certificate_that_another_ca_signed(pki: ConfiguredOpenBao) -> None:
    connector, ledger, scope = pki_connector(pki), Ledger(), pki_scope()
    issued = await issue(connector, ledger, scope)
    assert isinstance(issued.credential, X509Certificate)
    real = x509.load_pem_x509_certificate(issued.credential.certificate.encode())
    forged = (
        x509.CertificateBuilder(real.issuer, real.subject, real.public_key(), real.serial_number)
        .not_valid_before(real.not_valid_before_utc)
        .not_valid_after(real.not_valid_after_utc)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    shown = replace(issued.credential, certificate=forged.public_bytes(Encoding.PEM).decode())
    assert await connector.use(shown, scope) is Use.REFUSED
    assert await connector.use(issued.credential, scope) is Use.WORKS
    await connector.close()


async def test_a_list_that_is_not_made_anew_is_no_proof(pki: ConfiguredOpenBao) -> None:
    root = pki.root_client()
    root.write_data(f"{MOUNT}/config/crl", data={"auto_rebuild": True, "auto_rebuild_grace_period": "12h"})
    connector, ledger = pki_connector(pki), Ledger()
    try:
        issued = await issue(connector, ledger, pki_scope())
        outcome = await connector.revoke(ledger.handle, ledger.context(expires_at=issued.expires_at))
        assert isinstance(outcome, NotYet)
        assert outcome.failed
        assert "revocation list" in outcome.why
        # As soon as the list says it, it is proven; and after its own time in any case.
        later = ledger.context(issued.expires_at + timedelta(seconds=1), expires_at=issued.expires_at)
        assert isinstance(await connector.revoke(ledger.handle, later), Revoked)
        root.read(f"{MOUNT}/crl/rotate")
        assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    finally:
        root.write_data(f"{MOUNT}/config/crl", data={"auto_rebuild": False})
        await connector.close()


async def test_where_nobody_says_that_the_list_is_read_only_time_ends_it(pki: ConfiguredOpenBao) -> None:
    connector, ledger = pki_connector(pki, list_read_within=None), Ledger()
    assert connector.contract.cls is ContractClass.EXPIRY_ONLY
    assert connector.contract.on_revoke is None
    issued = await issue(connector, ledger, pki_scope())
    now = SystemClock().now()
    outcome = await connector.revoke(ledger.handle, ledger.context(now, expires_at=issued.expires_at))
    assert outcome == NotYet(outcome.why, issued.expires_at - now, failed=False)  # type: ignore[union-attr]
    assert not taken(pki, issued.credential)  # it is on the list all the same
    ended = ledger.context(issued.expires_at, expires_at=issued.expires_at)
    assert await connector.revoke(ledger.handle, ended) == Expired()
    await connector.close()


async def test_the_end_of_the_token_puts_it_on_the_list_with_nobody_asking(pki: ConfiguredOpenBao) -> None:
    connector, ledger = pki_connector(pki), Ledger()
    issued = await issue(connector, ledger, pki_scope())
    pki.root_client().auth.token.revoke_accessor(ledger.handle["accessor"])
    until(lambda: not taken(pki, issued.credential))
    await connector.close()


async def test_another_role_is_not_the_attempts_to_use(pki: ConfiguredOpenBao) -> None:
    connector, ledger = pki_connector(pki), Ledger()
    scope = pki_scope()
    other = replace(scope, grant={**scope.grant, "role": "orders-readonly"})
    with pytest.raises(UpstreamFailed) as refused:
        await issue(connector, ledger, other)
    assert refused.value.reason is Reason.UPSTREAM_REFUSED
    assert ROLE not in str(refused.value)
    await connector.close()
