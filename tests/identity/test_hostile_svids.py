"""Hostile X.509-SVIDs put to the function: the corpus, and what can reach the function but never TLS.

Each is refused with the one reason it names, also from behind the cache, and its twin that differs in one thing is
a peer. All but a few would pass, or have passed, a TLS library that was given both bundles as roots.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from broker.errors import Reason, Unauthenticated
from broker.identity.agent import Peer
from broker.identity.certificate import MAX_CERTIFICATE_BYTES
from broker.identity.peer_cache import PeerCache
from broker.identity.spiffe_id import SpiffeId
from broker.identity.svid import validate_x509_svid
from tests import hostile_svids
from tests.forge import NOW, tlv
from tests.hostile_svids import DOMAIN, HOUR, ID, PARTNER_DOMAIN, Hostile, Sent, World

# Some forgeries have serial numbers that `cryptography` will refuse one day, and says so now.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")

WORLD = World(NOW)
HOME, BUNDLES = WORLD.home, WORLD.bundles
CORPUS = hostile_svids.hostile(WORLD)
JUDGED = [case for case in CORPUS if case.reason]
ALLOWED = hostile_svids.allowed(WORLD)
GOOD = HOME.svid(ID)


def _validated(sent: Sent, at: datetime = NOW) -> Peer:
    return validate_x509_svid(sent.pem, sent.chain_pem, BUNDLES, at)


@dataclass(frozen=True)
class Case:
    """What no TLS connection could bring here."""

    what: str
    reason: Reason
    leaf: bytes
    chain: bytes = b""
    at: datetime = NOW


CASES = [
    Case("expired by a millisecond", Reason.SVID_EXPIRED, GOOD.pem, at=NOW + HOUR + timedelta(milliseconds=1)),
    Case("expired for ten years", Reason.SVID_EXPIRED, GOOD.pem, at=NOW + timedelta(days=3650)),
    Case(
        "not valid for a millisecond yet",
        Reason.SVID_NOT_YET_VALID,
        GOOD.pem,
        at=NOW - timedelta(minutes=5, milliseconds=1),
    ),
    Case(
        "the root expired before the leaf",
        Reason.SVID_CHAIN_INVALID,
        HOME.svid(ID, ends=48 * HOUR).pem,
        at=NOW + 25 * HOUR,
    ),
    Case("garbage beside the leaf", Reason.SVID_CHAIN_INVALID, GOOD.pem, b"not a certificate"),
    Case("a megabyte of nothing beside the leaf", Reason.SVID_CHAIN_INVALID, GOOD.pem, b"\n" * 1024 * 1024),
    Case("nothing", Reason.SVID_MISSING, b""),
    Case("garbage", Reason.SVID_MALFORMED, b"\x00\x01\x02"),
    Case(
        "a PEM frame around garbage",
        Reason.SVID_MALFORMED,
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ),
    Case("a key in place of a certificate", Reason.SVID_MALFORMED, GOOD.key_pem),
    Case("two certificates", Reason.SVID_MALFORMED, GOOD.pem + HOME.svid(ID).pem),
    Case("more bytes than are read", Reason.SVID_MALFORMED, GOOD.pem + b"\n" * MAX_CERTIFICATE_BYTES),
    *(Case(each.what, each.reason, each.sent.pem, each.sent.chain_pem) for each in JUDGED if each.reason),
]


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


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.what)
def test_its_twin_is_a_peer(case: Hostile) -> None:
    assert str(_validated(case.twin.sent).spiffe_id) == case.twin.id


def test_only_what_tls_alone_can_know_has_no_reason_here() -> None:
    (other,) = [case for case in CORPUS if not case.reason]

    # The certificate of another, without its key: a certificate proves nothing by itself.
    assert str(_validated(other.sent).spiffe_id) == ID


def test_every_reason_about_certificates_is_proven_by_some_case() -> None:
    assert {case.reason for case in CASES} == {reason for reason in Reason if reason.startswith("SVID_")}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_the_standard_allows_is_accepted(what: str) -> None:
    leaf = x509.load_der_x509_certificate(ALLOWED[what].leaf)

    peer = _validated(ALLOWED[what])

    assert peer.spiffe_id == SpiffeId(DOMAIN, "/agent/analyst")
    assert peer.serial == leaf.serial_number
    assert peer.fingerprint == leaf.fingerprint(hashes.SHA256()).hex()
    # Nobody is proven for longer than the root is.
    assert peer.not_after <= HOME.certificate.not_valid_after_utc


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
    peer = validate_x509_svid(WORLD.partner.svid(f"spiffe://{PARTNER_DOMAIN}/agent").pem, b"", BUNDLES, NOW)

    assert peer.spiffe_id.trust_domain == PARTNER_DOMAIN


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
