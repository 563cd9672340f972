"""SPIFFE IDs: one spelling each, so that no two texts are one id and no alias reaches another's rules."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.errors import Reason, Unauthenticated
from broker.identity.spiffe_id import MAX_BYTES, SpiffeId, is_trust_domain

_SEGMENT = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=20).filter(
    lambda segment: segment not in (".", "..")
)
_DOMAIN = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=60)
IDS = st.builds(lambda domain, path: f"spiffe://{domain}/{'/'.join(path)}", _DOMAIN, st.lists(_SEGMENT, min_size=1))


def _parsed(text: str) -> SpiffeId | None:
    """The id, or None if it was refused as it should be. Anything else raised fails the test."""
    try:
        return SpiffeId.parse(text)
    except Unauthenticated as refused:
        assert refused.reason is Reason.SVID_ID_NOT_CANONICAL
        assert str(refused).isascii() and str(refused).isprintable()
        return None


@given(IDS)
def test_round_trip(text: str) -> None:
    assume(len(text) <= MAX_BYTES)

    parsed = SpiffeId.parse(text)

    assert str(parsed) == text
    assert SpiffeId.parse(str(parsed)) == parsed


@given(st.text() | st.text("spife:/.%aA-", max_size=40).map("spiffe://".__add__))
def test_any_text_is_refused_or_is_its_own_spelling(text: str) -> None:
    parsed = _parsed(text)

    assert parsed is None or str(parsed) == text


@given(IDS, st.data())
def test_no_mutation_is_an_alias(text: str, data: st.DataObject) -> None:
    assume(len(text) <= MAX_BYTES)
    at = data.draw(st.integers(0, len(text) - 1))
    head, letter, tail = text[:at], text[at], text[at + 1 :]
    mutated = data.draw(
        st.sampled_from(
            [
                head + letter.swapcase() + tail,
                head + f"%{ord(letter):02x}" + tail,
                head + f"%{ord(letter):02X}" + tail,
                head + letter + "/" + tail,
                head + "/./" + tail,
                head + "/../" + tail,
                head + letter + " " + tail,
                head + letter + "\x00" + tail,
                head + letter + "\u0301" + tail,
                head + tail,
                text + "/",
                text + "#",
                text + "?",
                text + "\n",
                " " + text,
                text.upper(),
                quote(text, safe=""),
            ]
        )
    )
    assume(mutated != text)

    assert _parsed(mutated) != SpiffeId.parse(text)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [("example.org", True), ("a_b-c.1", True), ("a" * 255, True), ("a" * 256, False), ("", False), ("a\n", False)]
    + [(bad, False) for bad in ("Example.org", "a/b", "a:1", "u@a", "a%61", "é")],
)
def test_trust_domain_names(domain: str, expected: bool) -> None:
    assert is_trust_domain(domain) is expected


def test_lone_surrogates_are_refused_not_a_crash() -> None:
    assert _parsed("spiffe://example.org/\ud800") is None
    assert _parsed("\ud800" * (MAX_BYTES + 1)) is None
