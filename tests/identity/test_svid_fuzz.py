"""Whatever bytes a peer sends, it is told a reason: nothing but Unauthenticated comes out, or a true peer."""

from __future__ import annotations

from base64 import encodebytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.errors import Unauthenticated
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.doctor import explain_svid
from broker.identity.svid import validate_x509_svid
from tests.forge import NOW, authority

# Some forgeries have serial numbers that `cryptography` will refuse one day, and says so now.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")

HOME = authority("example.org")
BUNDLES = Bundles([TrustBundle.from_pem("example.org", HOME.pem)])
GOOD = HOME.svid("spiffe://example.org/agent", dns=["agent.example.org"], subject="agent")
BETWEEN = HOME.intermediate("between", "spiffe://example.org")
DEEP = BETWEEN.svid("spiffe://example.org/agent")


def _accepted(leaf: bytes, chain: bytes) -> bool:
    problems = explain_svid(leaf, chain, BUNDLES, NOW)
    try:
        validate_x509_svid(leaf, chain, BUNDLES, NOW)
    except Unauthenticated as refused:
        assert refused.reason.startswith("SVID_")
        # the doctor's first text is the reason the peer hears
        assert problems[0].startswith(f"{refused.reason}: ")
        return False
    assert problems == []
    return True


def _pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + encodebytes(der) + b"-----END CERTIFICATE-----\n"


@given(st.binary(max_size=400), st.binary(max_size=400))
@example(b"", b"")
@example(b"0\x80\x00\x00", b"0\x80\x00\x00")
def test_random_bytes_are_refused(leaf: bytes, chain: bytes) -> None:
    assert not _accepted(leaf, chain)
    assert not _accepted(_pem(leaf), _pem(chain))


@pytest.mark.slow
def test_no_single_flipped_bit_is_accepted() -> None:
    # every bit of the leaf, then every bit of the intermediate beside a good leaf
    assert [bit for bit in range(len(GOOD.der) * 8) if _accepted(_flipped(GOOD.der, bit), b"")] == []
    assert [bit for bit in range(len(BETWEEN.der) * 8) if _accepted(DEEP.pem, _flipped(BETWEEN.der, bit))] == []


def _flipped(der: bytes, bit: int) -> bytes:
    flipped = bytearray(der)
    flipped[bit // 8] ^= 1 << (bit % 8)
    return bytes(flipped)


@settings(deadline=None)
@given(st.integers(0, len(GOOD.der)), st.integers(0, len(GOOD.der)), st.binary(max_size=8))
def test_no_splice_is_accepted_unless_it_changed_nothing(start: int, end: int, put: bytes) -> None:
    spliced = GOOD.der[:start] + put + GOOD.der[end:]

    assert _accepted(spliced, b"") == (spliced == GOOD.der)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_signed_garbage_as_names_is_never_an_agent(san: bytes) -> None:
    # An authority that signs whatever it is given: our reader still sees every byte of the names.
    leaf = HOME.svid(raw_san=san)

    assert not _accepted(leaf.pem, b"")
