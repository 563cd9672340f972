"""What `broker doctor` says of an SVID: everything that is wrong, and nothing of a good one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.doctor import CHAIN, READABLE, explain_svid, judge_svid
from tests.forge import NOW, Forged, authority

HOUR = timedelta(hours=1)
HOME = authority("example.org")
PARTNER = authority("partner.org")
BUNDLES = Bundles([TrustBundle.from_pem(td, ca.pem) for td, ca in (("example.org", HOME), ("partner.org", PARTNER))])


def _explained(forged: Forged) -> list[str]:
    return explain_svid(forged.pem, forged.chain_pem, BUNDLES, NOW)


def test_good_svid_needs_no_doctor() -> None:
    assert _explained(HOME.intermediate().svid("spiffe://example.org/a")) == []


def test_all_faults_of_a_leaf_are_told_at_once() -> None:
    problems = _explained(HOME.svid(ca=True, usage=None, begins=-2 * HOUR, ends=-HOUR))

    assert [text.partition(":")[0] for text in problems] == [
        "SVID_URI_COUNT",
        "SVID_MALFORMED",  # no names, so none that are critical
        "SVID_IS_CA",
        "SVID_KEY_USAGE",
        "SVID_EXPIRED",
    ]


def test_wrong_authority_is_named() -> None:
    refused, named = _explained(PARTNER.svid("spiffe://example.org/a"))

    assert refused.startswith("SVID_CHAIN_INVALID: ")
    assert named == "The chain does lead to the bundle of partner.org, which cannot speak for example.org."


def test_expired_leaf_has_its_chain_looked_at_too() -> None:
    problems = _explained(
        PARTNER.svid("spiffe://example.org/a", begins=-timedelta(minutes=4), ends=-timedelta(minutes=1))
    )

    assert [text.split()[0] for text in problems] == ["SVID_EXPIRED:", "SVID_CHAIN_INVALID:", "The"]


def test_outdated_intermediate_is_pointed_at() -> None:
    old = HOME.intermediate("old", begins=-2 * HOUR, ends=-HOUR)

    refused, pointed = _explained(old.svid("spiffe://example.org/a"))

    assert refused.startswith("SVID_CHAIN_INVALID: ")
    assert "2031-05-01T10:00:00+00:00 to 2031-05-01T11:00:00+00:00" in pointed


def test_unknown_trust_domain_and_unreadable_bytes() -> None:
    unknown, named = _explained(HOME.svid("spiffe://elsewhere.org/a"))
    (missing,) = explain_svid(b"", b"", BUNDLES, NOW)
    (garbage,) = explain_svid(HOME.svid("spiffe://example.org/a").pem, b"garbage", BUNDLES, NOW)

    assert unknown.startswith("SVID_TRUST_DOMAIN_UNKNOWN: ")
    assert named == "The chain does lead to the bundle of example.org, which cannot speak for elsewhere.org."
    assert missing.startswith("SVID_MISSING: ")
    assert garbage.startswith("SVID_CHAIN_INVALID: ")


def test_every_rule_has_a_verdict_under_its_name() -> None:
    rules = ["id", "names critical", "serial", "not ca", "key usage", "extended key usage", "key", "begun", "not ended"]

    def names(leaf: bytes, beside: bytes = b"") -> dict[str, bool]:
        return {verdict.rule: verdict.holds for verdict in judge_svid(leaf, beside, BUNDLES, NOW)}

    good = HOME.svid("spiffe://example.org/a").pem
    assert names(good) == dict.fromkeys((READABLE, *rules, CHAIN), True)
    assert names(good, b"garbage") == {**dict.fromkeys((READABLE, *rules), True), CHAIN: False}
    assert names(PARTNER.svid("spiffe://example.org/a").pem)[CHAIN] is False
    assert names(b"garbage") == {READABLE: False}
    # A leaf with faults of its own gets none on its chain.
    assert names(HOME.svid("spiffe://example.org/a", ca=True).pem) == {
        **dict.fromkeys((READABLE, *rules), True),
        "not ca": False,
    }
    for begins, ends, rule in ((HOUR, 2 * HOUR, "begun"), (-HOUR / 20, -HOUR / 60, "not ended")):
        found = names(HOME.svid("spiffe://example.org/a", begins=begins, ends=ends).pem)
        assert CHAIN in found and [name for name, holds in found.items() if not holds] == [rule]


@pytest.mark.parametrize("edge", ["begins", "ends"])
def test_an_intermediate_is_pointed_at_outside_its_time_only(edge: str) -> None:
    """The chain is refused for its root's sake; the intermediate is valid from one moment to another, both included."""
    moment = {"begins": {"begins": timedelta(0)}, "ends": {"ends": timedelta(0)}}[edge]
    stranger = authority("example.org", name="stranger").intermediate("one", **moment)
    assert [text.split()[0] for text in _explained(stranger.svid("spiffe://example.org/a"))] == ["SVID_CHAIN_INVALID:"]
    moment = {name: delta + timedelta(seconds=1 if name == "begins" else -1) for name, delta in moment.items()}
    stranger = authority("example.org", name="stranger").intermediate("one", **moment)
    _, pointed = _explained(stranger.svid("spiffe://example.org/a"))
    assert f"(sha256 {stranger.certificate.fingerprint(SHA256()).hex()[:16]}...)" in pointed
