"""Hostile X.509-SVIDs, one defect each, and the one reason each is refused with.

All but a few would pass, or have passed, a TLS library that was given both bundles as roots.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.errors import Reason, Unauthenticated
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.certificate import MAX_CERTIFICATE_BYTES
from broker.identity.peer_cache import PeerCache
from broker.identity.spiffe_id import SpiffeId
from broker.identity.svid import MAX_INTERMEDIATES, validate_x509_svid
from tests.forge import NOW, Authority, Forged, authority, der_san_uris, forge, tlv

ID = "spiffe://example.org/agent/one"
HOUR = timedelta(hours=1)
HOME = authority("example.org")
PARTNER = authority("partner.org")
STRANGER = authority("example.org", name="CA of example.org")  # same name, another key
BUNDLES = Bundles([TrustBundle.from_pem(td, ca.pem) for td, ca in (("example.org", HOME), ("partner.org", PARTNER))])


@dataclass(frozen=True)
class Case:
    what: str
    reason: Reason
    leaf: bytes
    chain: bytes = b""
    at: datetime = NOW


def _case(what: str, reason: Reason, forged: Forged, *, at: datetime = NOW) -> Case:
    return Case(what, reason, forged.pem, forged.chain_pem, at)


def _spelled(what: str, uri: str) -> Case:
    return _case(f"id with {what}", Reason.SVID_ID_NOT_CANONICAL, HOME.svid(uri))


def _raw(what: str, reason: Reason, uri: bytes) -> Case:
    return _case(what, reason, HOME.svid(raw_san=der_san_uris(uri)))


def _deep(levels: int, **defects: object) -> Authority:
    issuer: Authority = HOME
    for level in range(levels):
        issuer = issuer.intermediate(f"level {level}", **defects)
    return issuer


def _corrupted(pem_source: Forged) -> bytes:
    broken = bytearray(pem_source.der)
    broken[-1] ^= 1  # the last byte of the signature
    return bytes(broken)


GOOD = HOME.svid(ID)
SPELLINGS = [
    _spelled("an upper-case trust domain", "spiffe://Example.org/agent/one"),
    _spelled("an upper-case scheme", "SPIFFE://example.org/agent/one"),
    _spelled("another scheme", "https://example.org/agent/one"),
    _spelled("no scheme", "example.org/agent/one"),
    _spelled("a parent segment", "spiffe://example.org/agent/../admin"),
    _spelled("a dot segment", "spiffe://example.org/agent/./one"),
    _spelled("an empty segment", "spiffe://example.org/agent//one"),
    _spelled("a trailing slash", "spiffe://example.org/agent/one/"),
    _spelled("a percent-encoded letter", "spiffe://example.org/agent/%6fne"),
    _spelled("a percent-encoded slash", "spiffe://example.org/agent%2fone"),
    _spelled("a user", "spiffe://user@example.org/agent/one"),
    _spelled("a port", "spiffe://example.org:443/agent/one"),
    _spelled("a query", "spiffe://example.org/agent/one?admin=1"),
    _spelled("a fragment", "spiffe://example.org/agent/one#admin"),
    _spelled("a wildcard", "spiffe://example.org/agent/*"),
    _spelled("a space", "spiffe://example.org/agent/one "),
    _spelled("a newline at the end", "spiffe://example.org/agent/one\n"),
    _spelled("the root path", "spiffe://example.org/"),
    _spelled("no path", "spiffe://example.org"),
    _spelled("no trust domain", "spiffe:///agent/one"),
    # 21 + 2028 = 2049 bytes, one more than SPIFFE-ID.md section 2.3 allows
    _spelled("2049 bytes", "spiffe://example.org/" + "a" * 2028),
    _spelled("a trust domain of 256 bytes", f"spiffe://{'a' * 256}/agent/one"),
    _raw("id with a NUL", Reason.SVID_ID_NOT_CANONICAL, b"spiffe://example.org/agent/one\x00.evil.org"),
    _raw("id with non-ASCII letters", Reason.SVID_ID_NOT_CANONICAL, "spiffe://example.org/agent/öne".encode()),
    _raw("id with a byte that is no text", Reason.SVID_MALFORMED, b"spiffe://example.org/agent/\xff"),
]
NAMES = [
    _case("no names", Reason.SVID_URI_COUNT, HOME.svid()),
    _case("only a DNS name", Reason.SVID_URI_COUNT, HOME.svid(dns=["example.org"])),
    _case("two SPIFFE IDs", Reason.SVID_URI_COUNT, HOME.svid(ID, "spiffe://example.org/admin")),
    _case("the same SPIFFE ID twice", Reason.SVID_URI_COUNT, HOME.svid(ID, ID)),
    _case("a SPIFFE ID and another URI", Reason.SVID_URI_COUNT, HOME.svid(ID, "https://example.org/")),
    _case("an empty URI", Reason.SVID_ID_NOT_CANONICAL, HOME.svid("")),
    _case("no subject and names not critical", Reason.SVID_MALFORMED, HOME.svid(ID, san_critical=False)),
    _case("names that are no DER", Reason.SVID_MALFORMED, HOME.svid(raw_san=b"\x30\x82\xff\xff")),
    _case("1,000 names", Reason.SVID_MALFORMED, HOME.svid(ID, dns=[f"{n}.agents.example.org" for n in range(1000)])),
]
USES = [
    _case("CA:TRUE", Reason.SVID_IS_CA, HOME.svid(ID, ca=True)),
    _case("a CA that signs", Reason.SVID_IS_CA, HOME.svid(ID, ca=True, usage=("digital_signature", "key_cert_sign"))),
    _case("no key usage", Reason.SVID_KEY_USAGE, HOME.svid(ID, usage=None)),
    _case("a key usage not critical", Reason.SVID_KEY_USAGE, HOME.svid(ID, usage_critical=False)),
    _case("keyCertSign", Reason.SVID_KEY_USAGE, HOME.svid(ID, usage=("digital_signature", "key_cert_sign"))),
    _case("cRLSign", Reason.SVID_KEY_USAGE, HOME.svid(ID, usage=("digital_signature", "crl_sign"))),
    _case("no digitalSignature", Reason.SVID_KEY_USAGE, HOME.svid(ID, usage=("key_agreement",))),
    _case(
        "only serverAuth",
        Reason.SVID_EXTENDED_KEY_USAGE,
        HOME.svid(ID, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]),
    ),
    _case(
        "only clientAuth",
        Reason.SVID_EXTENDED_KEY_USAGE,
        HOME.svid(ID, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]),
    ),
    _case(
        "any purpose",
        Reason.SVID_EXTENDED_KEY_USAGE,
        HOME.svid(ID, purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    ),
    _case(
        "a critical extension nobody knows",
        Reason.SVID_CHAIN_INVALID,
        HOME.svid(
            ID, extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)]
        ),
    ),
]
TIMES = [
    _case("expired", Reason.SVID_EXPIRED, GOOD, at=NOW + HOUR + timedelta(milliseconds=1)),
    _case("expired long ago", Reason.SVID_EXPIRED, GOOD, at=NOW + timedelta(days=3650)),
    _case("not yet valid", Reason.SVID_NOT_YET_VALID, GOOD, at=NOW - timedelta(minutes=5, milliseconds=1)),
    _case("an hour into the future", Reason.SVID_NOT_YET_VALID, HOME.svid(ID, begins=HOUR, ends=2 * HOUR)),
    _case("the root expired", Reason.SVID_CHAIN_INVALID, HOME.svid(ID, ends=48 * HOUR), at=NOW + 25 * HOUR),
    _case(
        "an intermediate expired",
        Reason.SVID_CHAIN_INVALID,
        HOME.intermediate("old", begins=-2 * HOUR, ends=-HOUR).svid(ID),
    ),
]
ISSUERS = [
    _case("the CA of another trusted domain", Reason.SVID_CHAIN_INVALID, PARTNER.svid(ID)),
    _case("a CA with the right name and another key", Reason.SVID_CHAIN_INVALID, STRANGER.svid(ID)),
    _case("an unknown trust domain", Reason.SVID_TRUST_DOMAIN_UNKNOWN, HOME.svid("spiffe://elsewhere.org/agent/one")),
    _case("a subdomain of ours", Reason.SVID_TRUST_DOMAIN_UNKNOWN, HOME.svid("spiffe://a.example.org/agent/one")),
    _case("itself", Reason.SVID_CHAIN_INVALID, forge(uris=[ID], issuer=None)),
    _case("another workload's SVID", Reason.SVID_CHAIN_INVALID, forge(uris=[ID], issuer=GOOD)),
    Case("another workload's SVID, sent along", Reason.SVID_CHAIN_INVALID, forge(uris=[ID], issuer=GOOD).pem, GOOD.pem),
    Case("a foreign root, sent along", Reason.SVID_CHAIN_INVALID, PARTNER.svid(ID).pem, PARTNER.pem),
    Case("a signature with one bit flipped", Reason.SVID_CHAIN_INVALID, _corrupted(GOOD)),
    Case("an intermediate that was not sent", Reason.SVID_CHAIN_INVALID, HOME.intermediate().svid(ID).pem),
]
INTERMEDIATES = [
    _case(
        "an intermediate without CA:TRUE",
        Reason.SVID_CHAIN_INVALID,
        HOME.intermediate("no ca", ca=False).svid(ID),
    ),
    _case(
        "an intermediate without keyCertSign",
        Reason.SVID_CHAIN_INVALID,
        HOME.intermediate("no sign", usage=("digital_signature",)).svid(ID),
    ),
    _case(
        "an intermediate without key usage",
        Reason.SVID_CHAIN_INVALID,
        HOME.intermediate("no usage", usage=None).svid(ID),
    ),
    _case(
        # section 3.2: an authority may certify authorities of other trust domains; they must not mint ours
        "an intermediate of another trust domain under our root",
        Reason.SVID_CHAIN_INVALID,
        HOME.intermediate("theirs", "spiffe://partner.org").svid(ID),
    ),
    _case(
        "an intermediate that names a workload",
        Reason.SVID_CHAIN_INVALID,
        HOME.intermediate("with a path", "spiffe://example.org/ca").svid(ID),
    ),
    _case(
        "an intermediate with two SPIFFE IDs",
        Reason.SVID_CHAIN_INVALID,
        HOME.intermediate("two", "spiffe://example.org", "spiffe://partner.org").svid(ID),
    ),
    _case(
        "an intermediate SVID with a key usage not critical",
        Reason.SVID_CHAIN_INVALID,
        HOME.intermediate("lax", "spiffe://example.org", usage_critical=False).svid(ID),
    ),
    _case(
        "path length 0 with an intermediate below",
        Reason.SVID_CHAIN_INVALID,
        HOME.intermediate("last", path_length=0).intermediate("one too many").svid(ID),
    ),
    _case(
        "an intermediate under the other trusted domain",
        Reason.SVID_CHAIN_INVALID,
        PARTNER.intermediate("theirs").svid(ID),
    ),
    _case("five intermediates", Reason.SVID_CHAIN_INVALID, _deep(MAX_INTERMEDIATES + 1).svid(ID)),
    Case("five CAs beside the leaf that it does not need", Reason.SVID_CHAIN_INVALID, GOOD.pem, HOME.pem * 5),
    Case("a leaf of no name beside the leaf", Reason.SVID_CHAIN_INVALID, GOOD.pem, HOME.svid(dns=["x"]).pem),
    Case("garbage beside the leaf", Reason.SVID_CHAIN_INVALID, GOOD.pem, b"not a certificate"),
    Case("a megabyte beside the leaf", Reason.SVID_CHAIN_INVALID, GOOD.pem, b"\n" * 1024 * 1024),
    Case("itself beside itself", Reason.SVID_CHAIN_INVALID, GOOD.pem, GOOD.pem),
]
BYTES = [
    Case("nothing", Reason.SVID_MISSING, b""),
    Case("garbage", Reason.SVID_MALFORMED, b"\x00\x01\x02"),
    Case(
        "a PEM frame around garbage",
        Reason.SVID_MALFORMED,
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ),
    Case("a key in place of a certificate", Reason.SVID_MALFORMED, GOOD.key_pem),
    Case("two certificates", Reason.SVID_MALFORMED, GOOD.pem + HOME.svid(ID).pem),
    Case("half a certificate", Reason.SVID_MALFORMED, GOOD.der[: len(GOOD.der) // 2]),
    Case("a certificate with a tail", Reason.SVID_MALFORMED, GOOD.der + b"\x00"),
    Case("more bytes than are read", Reason.SVID_MALFORMED, GOOD.pem + b"\n" * MAX_CERTIFICATE_BYTES),
]
CASES = [*SPELLINGS, *NAMES, *USES, *TIMES, *ISSUERS, *INTERMEDIATES, *BYTES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_hostile_svid_is_refused_with_its_reason(case: Case) -> None:
    cache = PeerCache()

    with pytest.raises(Unauthenticated) as first:
        validate_x509_svid(case.leaf, case.chain, BUNDLES, case.at)
    with pytest.raises(Unauthenticated) as again:
        cache.validate(case.leaf, case.chain, BUNDLES, case.at)

    assert first.value.reason is case.reason
    assert again.value.reason is case.reason
    assert len(cache) == 0
    assert first.value.message and first.value.hint
    # what is told can stand in a log line and in an ErrorInfo
    assert str(first.value).isascii() and str(first.value).isprintable()
    assert len(str(first.value)) < 1024


def test_every_svid_reason_is_proven_by_some_case() -> None:
    assert {case.reason for case in CASES} == {reason for reason in Reason if reason.startswith("SVID_")}


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(GOOD, id="plain"),
        pytest.param(HOME.svid(ID, dns=["one.example.org"]), id="with a DNS name"),
        pytest.param(HOME.svid(ID, purposes=None), id="without extended key usage"),
        pytest.param(HOME.svid(ID, constraints=False), id="without basic constraints"),
        pytest.param(HOME.svid(ID, subject="one"), id="with a subject"),
        pytest.param(HOME.svid(ID, subject="one", san_critical=True), id="with a subject and critical names"),
        pytest.param(HOME.svid(ID, authority_key=False), id="without authority key identifier"),
        pytest.param(HOME.svid(ID, usage=("digital_signature", "key_agreement")), id="with keyAgreement"),
        pytest.param(HOME.svid(ID, digest=hashes.SHA384()), id="signed with SHA-384"),
        pytest.param(_deep(1).svid(ID), id="one intermediate"),
        pytest.param(HOME.intermediate("named", "spiffe://example.org").svid(ID), id="an intermediate SVID"),
        pytest.param(_deep(MAX_INTERMEDIATES).svid(ID), id="four intermediates"),
        pytest.param(HOME.intermediate("last", path_length=0).svid(ID), id="path length 0, used rightly"),
    ],
)
def test_what_the_standard_allows_is_accepted(forged: Forged) -> None:
    peer = validate_x509_svid(forged.pem, forged.chain_pem, BUNDLES, NOW)

    assert peer.spiffe_id == SpiffeId("example.org", "/agent/one")
    assert peer.serial == forged.certificate.serial_number
    assert peer.fingerprint == forged.certificate.fingerprint(hashes.SHA256()).hex()


def test_longest_id_is_accepted() -> None:
    longest = "spiffe://example.org/" + "a" * 2027  # 21 + 2027 = 2048 bytes

    peer = validate_x509_svid(HOME.svid(longest).pem, b"", BUNDLES, NOW)

    assert str(peer.spiffe_id) == longest


def test_der_and_pem_of_one_certificate_prove_the_same_peer() -> None:
    assert validate_x509_svid(GOOD.der, b"", BUNDLES, NOW) == validate_x509_svid(GOOD.pem, b"", BUNDLES, NOW)


def test_second_encoding_of_one_signature_is_refused() -> None:
    # `cryptography` accepts a BIT STRING that declares a zero bit at its end unused; other libraries do not.
    even = next(leaf for leaf in iter(lambda: HOME.svid(ID), None) if leaf.certificate.signature[-1] % 2 == 0)
    unused_bits = len(even.der) - len(even.certificate.signature) - 1
    encoded = even.der[:unused_bits] + b"\x01" + even.der[unused_bits + 1 :]
    assert validate_x509_svid(even.der, b"", BUNDLES, NOW)

    with pytest.raises(Unauthenticated, match="unused bits") as refused:
        validate_x509_svid(encoded, b"", BUNDLES, NOW)

    assert refused.value.reason is Reason.SVID_MALFORMED


def test_fingerprint_does_not_identify_a_certificate() -> None:
    # Why no deny list may use it: anybody can write (r, n - s) for (r, s), and that verifies as well (SEC 1, 4.1.4).
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
    r, s = decode_dss_signature(GOOD.certificate.signature)
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    signature = tlv(0x03, b"\x00" + encode_dss_signature(r, order - s))
    twin = tlv(0x30, GOOD.certificate.tbs_certificate_bytes + algorithm + signature)

    peer, other = (validate_x509_svid(der, b"", BUNDLES, NOW) for der in (GOOD.der, twin))

    assert peer.fingerprint != other.fingerprint
    assert (peer.spiffe_id, peer.serial) == (other.spiffe_id, other.serial)


def test_federated_peer_is_proven_by_its_own_bundle() -> None:
    peer = validate_x509_svid(PARTNER.svid("spiffe://partner.org/agent").pem, b"", BUNDLES, NOW)

    assert peer.spiffe_id.trust_domain == "partner.org"


@pytest.mark.parametrize("at", [NOW - timedelta(minutes=5), NOW, NOW + HOUR], ids=["first", "middle", "last"])
def test_both_ends_of_the_lifetime_belong_to_it(at: datetime) -> None:
    # RFC 5280 section 4.1.2.5: notBefore through notAfter, inclusive
    peer = validate_x509_svid(GOOD.pem, b"", BUNDLES, at)

    assert (peer.not_before, peer.not_after) == (NOW - timedelta(minutes=5), NOW + HOUR)


def test_peer_is_proven_no_longer_than_its_chain() -> None:
    # leaf: -5 min .. +6 h; intermediate: -1 min .. +2 h; root: -5 min .. +24 h
    short = HOME.intermediate("short", begins=-timedelta(minutes=1), ends=2 * HOUR)
    leaf = short.svid(ID, ends=6 * HOUR)

    peer = validate_x509_svid(leaf.pem, leaf.chain_pem, BUNDLES, NOW)

    assert (peer.not_before, peer.not_after) == (NOW - timedelta(minutes=1), NOW + 2 * HOUR)
    with pytest.raises(Unauthenticated) as refused:
        validate_x509_svid(leaf.pem, leaf.chain_pem, BUNDLES, NOW + 3 * HOUR)
    assert refused.value.reason is Reason.SVID_CHAIN_INVALID
