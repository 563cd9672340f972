"""SPIFFE IDs: one spelling each, so that no two texts are one id and no alias reaches another's rules."""

from __future__ import annotations

import posixpath
import re
import string
import unicodedata
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from broker.errors import Reason, Unauthenticated
from broker.identity.spiffe_id import MAX_BYTES, SpiffeId, is_trust_domain

_SEGMENT = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=20).filter(
    lambda segment: segment not in (".", "..")
)
_DOMAIN = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=60)
# The grammar of SPIFFE-ID.md section 2, written a second time and in one piece.
_GRAMMAR = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|\Z))[a-zA-Z0-9._-]+)+", re.ASCII)
# What a text is made of that is almost an id.
_PIECES = (
    "spiffe://",
    "SPIFFE://",
    "https://",
    "example.org",
    "/",
    "//",
    ".",
    "..",
    "a",
    "Z",
    "0",
    "-",
    "_",
    "%2e",
    "%61",
)
_STRANGE = (
    ":443",
    "user@",
    "?",
    "?q=1",
    "#",
    "#f",
    "\\",
    "*",
    "~",
    "+",
    " ",
    "\t",
    "\n",
    "\x00",
    "é",
    "ａ",
    "а",
    "\u200b",
    "ß",
    "K",
)
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


def _lenient(text: str) -> str:
    """As a helpful reader would tidy it up: decoded, composed, lower-cased, without dots and doubled slashes."""
    composed = unicodedata.normalize("NFKC", unquote(text)).strip().replace("\\", "/")
    parts = urlsplit(composed.replace("\x00", ""))
    path = posixpath.normpath(parts.path).rstrip("/")
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}{path}"


_NEARLY = st.lists(st.sampled_from(_PIECES + _STRANGE), max_size=12).map("".join)


_NEARLY_IDS = _NEARLY | _NEARLY.map("spiffe://example.org/a".__add__) | _NEARLY.map("spiffe://".__add__) | IDS


@given(_NEARLY_IDS)
def test_exactly_the_grammar_is_accepted(text: str) -> None:
    _accepted_exactly_by_the_grammar(text)


@pytest.mark.slow
@settings(max_examples=5000)
@given(_NEARLY_IDS)
def test_exactly_the_grammar_is_accepted_of_many(text: str) -> None:
    _accepted_exactly_by_the_grammar(text)


def _accepted_exactly_by_the_grammar(text: str) -> None:
    accepted = bool(_GRAMMAR.fullmatch(text)) and len(text.encode()) <= MAX_BYTES

    assert (_parsed(text) is not None) is accepted


# What a helpful reader folds away, put behind an id or into its trust domain.
_FOLDED = st.lists(
    st.sampled_from(["a", "/b", "/", "//", "/.", "/x/..", "/%61", "%2Fb", "/ａ", "\\b", " ", "\x00"]), max_size=6
)
_ALIASES = st.tuples(
    st.sampled_from(
        ["spiffe://example.org/a", "spiffe://Example.org/a", "SPIFFE://example.org/a", "spiffe://ｅxample.org/a"]
    ),
    _FOLDED.map("".join),
).map("".join)


@given(_ALIASES)
def test_what_a_helpful_reader_would_take_for_an_id_is_that_id_only_if_written_so(text: str) -> None:
    _taken_for_an_id_only_if_written_so(text)


@pytest.mark.slow
@settings(max_examples=5000)
@given(_ALIASES)
def test_many_that_a_helpful_reader_would_take_for_ids(text: str) -> None:
    _taken_for_an_id_only_if_written_so(text)


def _taken_for_an_id_only_if_written_so(text: str) -> None:
    tidied = _parsed(_lenient(text))

    assert tidied is None or (_parsed(text) == tidied) is (text == str(tidied))


def test_the_helpful_reader_does_fold_aliases_into_ids() -> None:
    for alias in ("spiffe://Example.org/a//b/", "SPIFFE://example.org/a/./%62", "spiffe://ｅxample.org\\a/x/../b"):
        assert str(_parsed(_lenient(alias))) == "spiffe://example.org/a/b"
        assert _parsed(alias) is None


def test_length_is_counted_in_bytes() -> None:
    start = "spiffe://example.org/"  # 21 bytes, and each letter below is two

    for letters, told in ((1014, "longer than 2048 bytes"), (1013, "path segment")):
        with pytest.raises(Unauthenticated, match=told):
            SpiffeId.parse(start + "é" * letters)


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
