"""A JWT-SVID by the standard's rules: the corpus against the pure function, and the edges of time."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Reason, Unauthenticated
from broker.identity.jwt_bundle import JwtBundle, JwtBundles
from broker.identity.jwt_svid import LEEWAY, MAX_LIFE, validate_jwt_svid
from tests.forge import NOW
from tests.forge_jwt import other_signature
from tests.hostile_jwts import HOSTILE, TWINS, Hostile, Twin, World

AUDIENCE = "spiffe://example.org/broker"
AGENT = "spiffe://example.org/agent/one"
WORLD = World.of("example.org", "federated.example", AUDIENCE, AGENT, NOW)
BUNDLES = JwtBundles(JwtBundle.from_jwks(each.trust_domain, each.bundle()) for each in (WORLD.own, WORLD.federated))

TOKEN = WORLD.token()


def reason_of(token: str, now: timedelta = timedelta(0)) -> Reason:
    with pytest.raises(Unauthenticated) as refused:
        validate_jwt_svid(token, BUNDLES, AUDIENCE, NOW + now)
    told = str(refused.value) + str(refused.value.metadata)
    assert refused.value.hint
    assert told.isascii() and len(told) < 2000
    # Whoever reads the message must not come by the token.
    assert token not in told or len(token) < 100
    return refused.value.reason


def test_the_corpus_is_large_and_its_names_tell_the_cases_apart() -> None:
    assert len(HOSTILE) >= 60
    assert len({case.name for case in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_each_hostile_token_is_refused_for_its_reason(case: Hostile) -> None:
    assert reason_of(case.make(WORLD)) == case.reason


@pytest.mark.parametrize("case", TWINS, ids=lambda case: case.name)
def test_each_twin_passes(case: Twin) -> None:
    svid = validate_jwt_svid(case.make(WORLD), BUNDLES, AUDIENCE, NOW)
    assert str(svid.spiffe_id) == AGENT
    assert svid.not_before <= NOW + LEEWAY < svid.not_after <= NOW + MAX_LIFE


def test_what_cannot_be_sent_as_metadata_is_refused_as_well() -> None:
    for text in (
        "",
        "\ud800",
        "é.é.é",
        WORLD.token() + "\n",
        "\n" + WORLD.token(),
        WORLD.token().replace(".", "\u2024"),
    ):
        assert reason_of(text) == "JWT_SVID_MALFORMED"


def test_a_federated_agent_by_its_own_authority() -> None:
    other = f"spiffe://{WORLD.federated.trust_domain}/agent/one"
    svid = validate_jwt_svid(WORLD.federated.token(other, AUDIENCE), BUNDLES, AUDIENCE, NOW)
    assert str(svid.spiffe_id) == other


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-6, "JWT_SVID_LIFE_TOO_LONG"),  # iat 6 s ahead, exp 306 s ahead
        (-0.001, "JWT_SVID_LIFE_TOO_LONG"),
        (0, ""),
        (299.999, ""),
        (300, "JWT_SVID_EXPIRED"),  # exp: on or after which it must not be accepted (RFC 7519, 4.1.4)
    ],
)
def test_the_edges_of_its_time(seconds: float, expected: str) -> None:
    moment = timedelta(seconds=seconds)
    if expected:
        assert reason_of(WORLD.token(), moment) == expected
    else:
        validate_jwt_svid(WORLD.token(), BUNDLES, AUDIENCE, NOW + moment)


def test_the_edge_of_the_leeway() -> None:
    at_the_edge = WORLD.token(nbf=WORLD.now + 5)
    validate_jwt_svid(at_the_edge, BUNDLES, AUDIENCE, NOW)
    assert reason_of(WORLD.token(nbf=WORLD.now + 5.001)) == "JWT_SVID_NOT_YET_VALID"


def test_the_digest_names_what_is_signed_and_not_how_the_signature_is_spelled() -> None:
    token = WORLD.token()
    copy = other_signature(token)
    assert copy != token
    first, second = (validate_jwt_svid(text, BUNDLES, AUDIENCE, NOW) for text in (token, copy))
    assert first.digest == second.digest
    assert validate_jwt_svid(WORLD.token(x=1), BUNDLES, AUDIENCE, NOW).digest != first.digest


def test_a_key_taken_from_the_bundle_takes_its_tokens_with_it() -> None:
    document = WORLD.own.jwks()
    document["keys"] = [key for key in document["keys"] if key.get("kid") != "ec"]
    rotated = JwtBundles([JwtBundle.from_jwks("example.org", json.dumps(document).encode())])
    with pytest.raises(Unauthenticated) as refused:
        validate_jwt_svid(WORLD.token(), rotated, AUDIENCE, NOW)
    assert refused.value.reason == "JWT_SVID_KEY_UNKNOWN"
    assert rotated.version != BUNDLES.version


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{1,60}(\.[A-Za-z0-9_-]{1,60}){1,3}", fullmatch=True))
def test_no_text_whatever_raises_anything_else(text: str) -> None:
    reason_of(text)


@given(st.data())
def test_no_change_of_one_character_passes(data: st.DataObject) -> None:
    token = TOKEN
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(sorted(set("ABCXYZabcxyz019-_.=") - {token[at]})))
    reason_of(token[:at] + other + token[at + 1 :])
