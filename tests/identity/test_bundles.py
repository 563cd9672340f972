"""Trust bundles: what may speak for a trust domain, and what is refused before it can."""

from __future__ import annotations

import pytest

from broker.errors import InvalidInput, Reason
from broker.identity.bundle import MAX_ROOTS, Bundles, TrustBundle
from tests.forge import authority, forge

HOME = authority("example.org")
NEXT = authority("example.org", name="next")
PARTNER = authority("partner.org")


@pytest.mark.parametrize(
    ("pem", "told"),
    [
        pytest.param(b"", "has no certificate", id="empty"),
        pytest.param(b"\n \n", "cannot be read", id="blank"),
        pytest.param(b"hello", "cannot be read", id="garbage"),
        pytest.param(HOME.pem[: len(HOME.pem) // 2], "cannot be read", id="half written"),
        pytest.param(HOME.pem.replace(b"M", b"N", 3), "cannot be read", id="damaged"),
        pytest.param(HOME.pem + HOME.key_pem, "private key", id="with the CA's key"),
        pytest.param(HOME.svid("spiffe://example.org/a").pem, "no CA", id="a leaf"),
        pytest.param(authority("example.org", ca=False).pem, "no CA", id="CA:FALSE that may sign"),
        pytest.param(authority("example.org", usage=("crl_sign",)).pem, "no CA", id="a CA that may not sign"),
        pytest.param(PARTNER.pem, "names something else", id="another domain's root"),
        pytest.param(HOME.pem + PARTNER.pem, "names something else", id="mixed with another domain's root"),
        pytest.param(authority("example.org", uris=["spiffe://example.org/x"]).pem, "names something else", id="path"),
        pytest.param(HOME.pem * (MAX_ROOTS + 1), "65 certificates", id="too many"),
    ],
)
def test_bundle_that_cannot_be_one_is_refused(pem: bytes, told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        TrustBundle.from_pem("example.org", pem)

    assert refused.value.reason is Reason.CONFIG_INVALID
    assert told in refused.value.message
    assert refused.value.metadata == {"trustDomain": "example.org"}
    assert "PRIVATE" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "Example.org", "example.org/path", "spiffe://example.org", "exa mple", "é.org"])
def test_bundle_needs_a_trust_domain(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        TrustBundle.from_pem(name, HOME.pem)

    assert refused.value.reason is Reason.CONFIG_INVALID


def test_root_without_a_name_of_its_own_is_accepted() -> None:
    # An upstream CA need not be an SVID (X509-SVID section 3.2 says SHOULD).
    plain = authority("example.org", uris=())

    assert len(TrustBundle.from_pem("example.org", plain.pem).roots) == 1


def test_pem_goes_in_and_comes_out_without_duplicates() -> None:
    bundle = TrustBundle.from_pem("example.org", b"# ours\n" + HOME.pem + NEXT.pem + HOME.pem)

    assert bundle.pem == HOME.pem + NEXT.pem


def test_bundles_are_a_mapping_of_what_is_in_force() -> None:
    home, partner = TrustBundle.from_pem("example.org", HOME.pem), TrustBundle.from_pem("partner.org", PARTNER.pem)

    bundles = Bundles([home, partner])

    assert dict(bundles) == {"example.org": home, "partner.org": partner}
    assert bundles.pem == HOME.pem + PARTNER.pem


def test_no_bundle_at_all_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        Bundles([])

    assert refused.value.reason is Reason.CONFIG_INVALID


def test_one_trust_domain_twice_is_refused() -> None:
    bundle = TrustBundle.from_pem("example.org", HOME.pem)

    with pytest.raises(InvalidInput, match="given twice"):
        Bundles([bundle, bundle])


def test_one_key_for_two_trust_domains_is_refused_even_in_two_certificates() -> None:
    plain = authority("example.org", uris=())
    again = forge(issuer=None, subject="other name", ca=True, usage=("key_cert_sign",), purposes=None, key=plain.key)

    with pytest.raises(InvalidInput, match=r"shares a root key with the bundle of example\.org"):
        Bundles([TrustBundle.from_pem("example.org", plain.pem), TrustBundle.from_pem("partner.org", again.pem)])


def test_version_is_a_digest_of_the_roots_and_their_domains() -> None:
    plain = authority("example.org", uris=())
    home, following = TrustBundle.from_pem("example.org", HOME.pem), TrustBundle.from_pem("example.org", NEXT.pem)
    partner = TrustBundle.from_pem("partner.org", PARTNER.pem)
    both = TrustBundle.from_pem("example.org", NEXT.pem + HOME.pem)

    assert Bundles([home, partner]).version == Bundles([partner, home]).version
    versions = {
        Bundles(each).version
        for each in (
            [home],
            [following],
            [both],
            [home, partner],
            [TrustBundle.from_pem("example.org", plain.pem)],
            [TrustBundle.from_pem("partner.org", plain.pem)],
        )
    }
    assert len(versions) == 6
