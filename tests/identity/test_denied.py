"""Who is denied: by id, by path, by certificate; until when; and what the refused are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from broker.errors import Denied, Reason
from broker.identity.agent import Peer, Person
from broker.identity.denied import Below, Certificate, Denial, DenyList
from broker.identity.spiffe_id import SpiffeId
from tests.forge import NOW

ADA = Person("https://login.example.org", "ada", "Ada of Security")
HOUR = timedelta(hours=1)


def peer(path: str = "/ci/one", domain: str = "example.org", serial: int = 0xA1, issuer: str = "CN=one") -> Peer:
    return Peer(SpiffeId(domain, path), NOW - HOUR, NOW + HOUR, serial, "", issuer=issuer)


def denial(subject: SpiffeId | Below | Certificate, until: timedelta | None = None) -> Denial:
    return Denial(subject, "its key was in a log", ADA, NOW - HOUR, None if until is None else NOW + until)


def denied(listed: DenyList, who: Peer, now: datetime = NOW) -> bool:
    try:
        listed.check(who, now)
    except Denied as refused:
        assert refused.reason is Reason.AGENT_DENIED
        return True
    return False


EXACT = SpiffeId("example.org", "/ci/one")
SERIAL = Certificate("example.org", 0xA1)


@pytest.mark.parametrize(
    ("subject", "who", "expected"),
    [
        (EXACT, peer(), True),
        (EXACT, peer("/ci/one/more"), False),
        (EXACT, peer("/ci"), False),
        (EXACT, peer(domain="example.com"), False),
        (Below("example.org", "/ci"), peer(), True),
        (Below("example.org", "/ci"), peer("/ci"), True),
        (Below("example.org", "/ci"), peer("/ci/a/b/c"), True),
        (Below("example.org", "/ci"), peer("/cicd/one"), False),  # whole segments
        (Below("example.org", "/ci"), peer("/x/ci/one"), False),
        (Below("example.org", "/ci"), peer(domain="partner.org"), False),
        (Below("example.org", ""), peer("/anything"), True),
        (Below("example.org", ""), peer(domain="example.org.evil"), False),
        (SERIAL, peer(), True),
        (SERIAL, peer("/somebody/else"), True),  # the certificate is denied, whatever it says
        (SERIAL, peer(serial=0xA2), False),
        (SERIAL, peer(domain="partner.org"), False),
        (Certificate("example.org", 0xA1, "CN=one"), peer(), True),
        (Certificate("example.org", 0xA1, "CN=two"), peer(), False),
    ],
)
def test_whom_an_entry_is_about(subject: SpiffeId | Below | Certificate, who: Peer, expected: bool) -> None:
    assert denied(DenyList([denial(subject)]), who) is expected
    assert not denied(DenyList(), who)
    # Beside others it says the same.
    others = [denial(SpiffeId("example.org", f"/other/{n}")) for n in range(5)]
    assert denied(DenyList([*others, denial(subject)]), who) is expected


def test_the_refused_hear_whom_to_ask_and_nothing_else() -> None:
    with pytest.raises(Denied) as refused:
        DenyList([denial(EXACT, HOUR)]).check(peer(), NOW)
    told = f"{refused.value} {refused.value.metadata}"
    assert "Ask Ada of Security." in told
    assert "log" not in told
    assert NOW.date().isoformat() not in told
    assert refused.value.metadata == {"spiffeId": "spiffe://example.org/ci/one", "ask": "Ada of Security"}


def test_until_is_the_first_instant_that_is_not_denied() -> None:
    listed = DenyList([denial(EXACT, HOUR)])
    with pytest.raises(Denied):
        listed.check(peer(), NOW + HOUR - timedelta(milliseconds=1))
    listed.check(peer(), NOW + HOUR)
    assert not listed.denies_lease(str(EXACT), "", NOW + HOUR)


@pytest.mark.parametrize(
    "subject", [EXACT, Below("example.org", "/ci"), SERIAL, Certificate("example.org", 0xA1, "CN=one")]
)
def test_every_kind_of_entry_is_over_when_it_says(subject: SpiffeId | Below | Certificate) -> None:
    listed, proxied = DenyList([denial(subject, HOUR)]), replace(peer("/agent", serial=0xA1), proxy=peer())
    for moment, expected in ((NOW + HOUR - timedelta(milliseconds=1), True), (NOW + HOUR, False)):
        assert denied(listed, peer(), moment) is expected
        assert denied(listed, proxied, moment) is expected
        assert listed.denies_lease(str(EXACT), "a1", moment) is expected


def test_an_entry_of_a_proxied_agent_is_over_when_it_says() -> None:
    listed, proxied = DenyList([denial(EXACT, HOUR)]), replace(peer(), proxy=peer("/proxy", serial=0xBB))
    for moment, expected in ((NOW + HOUR - timedelta(milliseconds=1), True), (NOW + HOUR, False)):
        assert denied(listed, proxied, moment) is expected


@pytest.mark.parametrize("entry", [EXACT, SpiffeId("example.org", "/proxy")])
def test_of_agent_and_proxy_the_one_that_is_denied_is_told(entry: SpiffeId) -> None:
    with pytest.raises(Denied) as refused:
        DenyList([denial(entry)]).check(replace(peer(), proxy=peer("/proxy", serial=0xBB)), NOW)
    assert refused.value.metadata["spiffeId"] == str(entry)


def test_an_entry_reads_as_one_line_with_all_it_says() -> None:
    since = (NOW - HOUR).isoformat()
    for subject, until, told in (
        (EXACT, None, "spiffe://example.org/ci/one, since {}, by Ada of Security: its key was in a log"),
        (Below("example.org", "/ci"), None, "everything below spiffe://example.org/ci, since {}, by Ada of Security: "),
        (SERIAL, HOUR, f"the certificate a1 in example.org, since {{}} until {(NOW + HOUR).isoformat()}, by Ada"),
        (Certificate("example.org", 0xA1, "CN=one"), None, "the certificate a1 of CN=one in example.org, since {}, by"),
    ):
        assert str(denial(subject, until)).startswith(told.format(since))  # type: ignore[arg-type]


def test_an_entry_that_is_over_hides_no_other_one() -> None:
    listed = DenyList([denial(EXACT, -timedelta(minutes=1)), denial(Below("example.org", "/ci")), denial(SERIAL)])
    assert denied(listed, peer())
    assert denied(DenyList([denial(EXACT, -timedelta(minutes=1)), denial(SERIAL)]), peer())


def test_since_in_the_future_denies_already() -> None:
    """A clock that is behind, or a slip of the pen, must not let anybody in."""
    assert denied(DenyList([replace(denial(EXACT), since=NOW + HOUR)]), peer())


def test_a_proxy_that_is_denied_brings_nobody_in() -> None:
    proxy = peer("/proxy", serial=0xBB)
    # The serial number beside a token is of the proxy's certificate.
    through = replace(peer(serial=0xBB), proxy=proxy, issuer="")
    assert denied(DenyList([denial(SpiffeId("example.org", "/proxy"))]), through)
    assert denied(DenyList([denial(Certificate("example.org", 0xBB))]), through)
    assert denied(DenyList([denial(EXACT)]), through)
    assert not denied(DenyList([denial(SERIAL)]), through)


@pytest.mark.parametrize(
    ("subject", "holder", "serial", "expected"),
    [
        (EXACT, "spiffe://example.org/ci/one", "", True),
        (EXACT, "spiffe://example.org/ci/two", "", False),
        (Below("example.org", "/ci"), "spiffe://example.org/ci/one", "a1", True),
        (SERIAL, "spiffe://example.org/ci/one", "a1", True),
        (SERIAL, "spiffe://example.org/ci/one", "", False),
        (SERIAL, "spiffe://partner.org/ci/one", "a1", False),
        (Certificate("example.org", 0xA1, "CN=one"), "spiffe://example.org/ci/one", "a1", True),
        (Below("example.org", ""), "no SPIFFE ID", "", False),
    ],
)
def test_whose_leases_end(subject: SpiffeId | Below | Certificate, holder: str, serial: str, expected: bool) -> None:
    assert DenyList([denial(subject)]).denies_lease(holder, serial, NOW) is expected
    assert not DenyList().denies_lease(holder, serial, NOW)


def test_a_long_list_is_as_quick_to_ask() -> None:
    listed = DenyList(denial(Certificate("example.org", n)) for n in range(1, 10_001))
    assert len(listed) == 10_000
    assert denied(listed, peer(serial=10_000))
    assert not denied(listed, peer(serial=10_001))
    assert str(next(iter(listed))).startswith("the certificate 1 in example.org, since 2031-05-01T11:00")
