"""What the development authority signs obeys the SPIFFE standards, and our own reading of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from spiffe import JwtBundle, JwtSvid
from spiffe import TrustDomain as SpiffeTrustDomain
from spiffe import X509Svid as SpiffeX509Svid

from broker.dev.trust_domain import TrustDomain
from broker.errors import InvalidInput, Unauthenticated
from broker.identity.spiffe_id import SpiffeId

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
AGENT = SpiffeId.parse("spiffe://dev.broker.internal/agent/reporter")


@pytest.fixture
def domain(tmp_path: Path) -> TrustDomain:
    return TrustDomain.load("dev.broker.internal", tmp_path, NOW)


def test_an_svid_has_one_uri_the_usages_of_the_standard_and_the_life_asked(domain: TrustDomain) -> None:
    certificate = domain.x509_svid(AGENT, now=NOW, ttl=timedelta(minutes=5), dns_names=["broker.internal"]).certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(AGENT)]
    assert names.get_values_for_type(x509.DNSName) == ["broker.internal"]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (True, True, False)
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {purpose.dotted_string for purpose in purposes} == {"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"}
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    # Backdated by 10 s, ends 5 min after now.
    assert certificate.not_valid_before_utc == NOW - timedelta(seconds=10)
    assert certificate.not_valid_after_utc == NOW + timedelta(minutes=5)


def test_py_spiffe_and_a_path_verifier_accept_it(domain: TrustDomain) -> None:
    svid = domain.x509_svid(AGENT, now=NOW, ttl=timedelta(minutes=5))
    parsed = SpiffeX509Svid.parse(svid.certificate_pem, svid.key_pem)
    assert str(parsed.spiffe_id) == str(AGENT)
    store = x509.verification.Store(x509.load_pem_x509_certificates(domain.bundle_pem))
    verifier = x509.verification.PolicyBuilder().store(store).time(NOW).build_client_verifier()
    assert verifier.verify(svid.certificate, []).chain[0] == svid.certificate


def test_every_svid_has_its_own_key_unless_one_is_given(domain: TrustDomain) -> None:
    first = domain.x509_svid(AGENT, now=NOW, ttl=timedelta(minutes=5))
    second = domain.x509_svid(AGENT, now=NOW, ttl=timedelta(minutes=5))
    third = domain.x509_svid(AGENT, now=NOW, ttl=timedelta(minutes=5), key=second.key)
    assert first.key_pem != second.key_pem == third.key_pem
    assert second.certificate.serial_number != third.certificate.serial_number


def test_the_authority_is_kept_with_private_keys_that_only_the_owner_reads(domain: TrustDomain, tmp_path: Path) -> None:
    again = TrustDomain.load("dev.broker.internal", tmp_path, NOW + timedelta(days=1))
    assert (again.bundle_pem, again.jwks) == (domain.bundle_pem, domain.jwks)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "ca.key": 0o600,
        "ca.pem": 0o600,
        "jwt.key": 0o600,
    }


@pytest.mark.parametrize(
    ("later", "renewed"),
    # A year of 365 days, renewed in its last 30: kept through day 335, new after it.
    [(timedelta(days=334), False), (timedelta(days=336), True), (timedelta(days=400), True)],
)
def test_the_authority_is_renewed_before_its_end(
    domain: TrustDomain, tmp_path: Path, later: timedelta, renewed: bool
) -> None:
    again = TrustDomain.load("dev.broker.internal", tmp_path, NOW + later)
    assert (again.bundle_pem != domain.bundle_pem) is renewed
    svid = again.x509_svid(AGENT, now=NOW + later, ttl=timedelta(days=1))
    assert svid.certificate.not_valid_after_utc == NOW + later + timedelta(days=1)


def test_an_svid_never_outlives_its_authority(domain: TrustDomain) -> None:
    svid = domain.x509_svid(AGENT, now=NOW, ttl=timedelta(days=3650))
    assert svid.certificate.not_valid_after_utc == NOW + timedelta(days=365)


@pytest.mark.parametrize(
    ("spiffe_id", "ttl"),
    [
        ("spiffe://other.internal/agent/reporter", timedelta(minutes=5)),
        (str(AGENT), timedelta()),
        (str(AGENT), -timedelta(seconds=1)),
    ],
)
def test_it_does_not_sign_for_others_or_for_no_time(domain: TrustDomain, spiffe_id: str, ttl: timedelta) -> None:
    with pytest.raises(InvalidInput):
        domain.x509_svid(SpiffeId.parse(spiffe_id), now=NOW, ttl=ttl)
    with pytest.raises(InvalidInput):
        domain.jwt_svid(SpiffeId.parse(spiffe_id), audience=["a"], now=NOW, ttl=ttl)


@pytest.mark.parametrize("name", ["", "Dev", "dev/x", "dév", "dev internal"])
def test_only_a_trust_domains_name_names_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        TrustDomain.load(name, tmp_path / "new", NOW)
    assert not (tmp_path / "new").exists()


def test_py_spiffe_validates_a_jwt_svid_against_the_bundle(domain: TrustDomain) -> None:
    now = datetime.now(UTC)  # py-spiffe asks the system's clock
    token = domain.jwt_svid(AGENT, audience=["broker"], now=now, ttl=timedelta(minutes=5))
    bundle = JwtBundle.parse(SpiffeTrustDomain("dev.broker.internal"), json.dumps(domain.jwks).encode())
    svid = JwtSvid.parse_and_validate(token, bundle, {"broker"})
    assert str(svid.spiffe_id) == str(AGENT)
    assert svid.expiry == int(now.timestamp()) + 300


def test_a_jwt_svid_is_valid_for_its_audience_and_time_only(domain: TrustDomain, tmp_path: Path) -> None:
    ttl = timedelta(minutes=5)
    token = domain.jwt_svid(AGENT, audience=["broker"], now=NOW, ttl=ttl)
    assert domain.validate_jwt_svid(token, audience="broker", now=NOW)["sub"] == str(AGENT)
    assert domain.validate_jwt_svid(token, audience="broker", now=NOW + ttl - timedelta(seconds=1))
    with pytest.raises(jwt.ExpiredSignatureError):
        domain.validate_jwt_svid(token, audience="broker", now=NOW + ttl)
    with pytest.raises(jwt.InvalidAudienceError):
        domain.validate_jwt_svid(token, audience="other", now=NOW)
    stranger = TrustDomain.load("dev.broker.internal", tmp_path / "stranger", NOW)
    with pytest.raises(jwt.InvalidSignatureError):
        domain.validate_jwt_svid(
            stranger.jwt_svid(AGENT, audience=["broker"], now=NOW, ttl=ttl), audience="broker", now=NOW
        )


@pytest.mark.parametrize("missing", ["exp", "aud", "sub"])
def test_a_jwt_without_a_required_claim_is_no_svid(domain: TrustDomain, missing: str) -> None:
    claims = {"sub": str(AGENT), "aud": ["broker"], "exp": NOW + timedelta(minutes=5)}
    del claims[missing]
    token = jwt.encode(claims, domain._jwt_key, algorithm="ES256")
    with pytest.raises(jwt.InvalidTokenError):
        domain.validate_jwt_svid(token, audience="broker", now=NOW)


def test_a_subject_that_is_no_spiffe_id_is_refused(domain: TrustDomain) -> None:
    claims = {"sub": "reporter", "aud": ["broker"], "exp": NOW + timedelta(minutes=5)}
    with pytest.raises(Unauthenticated):
        domain.validate_jwt_svid(jwt.encode(claims, domain._jwt_key, algorithm="ES256"), audience="broker", now=NOW)
