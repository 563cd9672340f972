"""An ID token by the standard's rules: the corpus against the pure function, age, and what it proves."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Reason, Unauthenticated
from broker.identity.id_token import LEEWAY, MAX_LIFE, IdToken, Issuer, claimed_issuer, verify
from broker.identity.oidc_keys import KeySet, UnfitKeySet
from tests.forge import NOW
from tests.forge_jwt import ec_key, jwk, other_signature, rsa_key
from tests.hostile_id_tokens import HOSTILE, TWINS, Hostile, Twin, World

AUDIENCE = "jit-broker"
WORLD = World.of("https://idp.example.org", "https://other.example.org", AUDIENCE, "anna", NOW)
ISSUER = Issuer(WORLD.own.url, groups_claim="groups")
KEYS = KeySet.from_jwks(WORLD.own.document())


def verified(
    token: str,
    *,
    now: datetime = NOW,
    issuer: Issuer = ISSUER,
    nonce: str | None = None,
    max_age: timedelta | None = None,
) -> IdToken:
    return verify(token, issuer, KEYS, now, audience=AUDIENCE, nonce=nonce, max_age=max_age)


def reason_of(token: str, **how: object) -> Reason:
    with pytest.raises(Unauthenticated) as refused:
        verified(token, **how)  # type: ignore[arg-type]
    told = str(refused.value) + str(refused.value.metadata)
    assert refused.value.hint
    assert told.isascii() and len(told) < 2000
    # Whoever reads the message must not come by the token.
    assert token not in told or len(token) < 100
    return refused.value.reason


def test_the_corpus_is_large_and_its_names_tell_the_cases_apart() -> None:
    assert len(HOSTILE) >= 80
    assert len({case.name for case in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_each_hostile_token_is_refused_for_its_reason(case: Hostile) -> None:
    assert reason_of(case.make(WORLD)) == case.reason


@pytest.mark.parametrize("case", TWINS, ids=lambda case: case.name)
def test_each_twin_passes(case: Twin) -> None:
    token = verified(case.make(WORLD))
    assert token.person_id == (WORLD.own.url, "anna")
    assert token.issued_at <= NOW + LEEWAY < token.expires_at <= token.issued_at + MAX_LIFE


def test_what_a_token_proves() -> None:
    token = verified(WORLD.token(groups=["oncall", "dba"], amr=["pwd", "otp"], acr="phr", nonce="n"))
    assert token.groups == {"oncall", "dba"} and token.amr == {"pwd", "otp"}
    assert (token.acr, token.nonce, token.auth_time, token.audience) == ("phr", "n", NOW, AUDIENCE)
    bare = verified(WORLD.token())
    assert (bare.acr, bare.amr, bare.nonce) == ("", frozenset(), "")


def test_an_issuer_without_a_groups_claim_says_nothing_about_groups_whatever_its_tokens_say() -> None:
    silent = Issuer(WORLD.own.url)
    assert verified(WORLD.token(groups=None), issuer=silent).groups is None
    assert verified(WORLD.token(groups=["root"]), issuer=silent).groups is None


def test_two_spellings_of_one_signature_are_one_token() -> None:
    token = WORLD.token()
    assert verified(token).digest == verified(other_signature(token)).digest
    assert verified(token).digest != verified(WORLD.token(x=1)).digest


def test_the_nonce_is_the_one_asked_with() -> None:
    assert verified(WORLD.token(nonce="this"), nonce="this").nonce == "this"
    for token in (WORLD.token(), WORLD.token(nonce="that"), WORLD.token(nonce=""), WORLD.token(nonce="this ")):
        assert reason_of(token, nonce="this") == "ID_TOKEN_NONCE"


AGE = timedelta(minutes=5)


@pytest.mark.parametrize(
    ("authenticated", "issued", "expected"),
    [
        (0, 0, ""),
        (-300, 0, ""),
        (-301, 0, "ID_TOKEN_TOO_OLD"),  # an old login, told of just now
        (-300, -300, ""),
        (-290, -301, "ID_TOKEN_NOT_YET_VALID"),
        (-300, -301, "ID_TOKEN_TOO_OLD"),  # a young login, told of by an older token: clocks may differ, age may not
        (5, 0, ""),
        (6, 0, "ID_TOKEN_NOT_YET_VALID"),
        (-10, -20, "ID_TOKEN_NOT_YET_VALID"),  # a token cannot tell of a login after it
        (None, 0, "ID_TOKEN_TOO_OLD"),
    ],
)
def test_a_fresh_login_is_of_the_last_minutes(authenticated: int | None, issued: int, expected: str) -> None:
    auth_time = None if authenticated is None else WORLD.now + authenticated
    token = WORLD.token(auth_time=auth_time, iat=WORLD.now + issued, exp=WORLD.now + 600)
    if expected:
        assert reason_of(token, max_age=AGE) == expected
    else:
        assert verified(token, max_age=AGE).auth_time is not None


def test_a_token_is_good_until_the_moment_it_ends_and_not_in_it() -> None:
    token = WORLD.token(exp=WORLD.now + 60)
    assert verified(token, now=NOW + timedelta(seconds=59.999))
    assert reason_of(token, now=NOW + timedelta(seconds=60)) == "ID_TOKEN_EXPIRED"


def test_the_claimed_issuer_is_read_before_anything_is_proven() -> None:
    assert claimed_issuer(WORLD.token(key=ec_key("attacker"))) == WORLD.own.url
    for claims in ({"iss": None}, {"iss": 7}, {"iss": ""}):
        with pytest.raises(Unauthenticated) as refused:
            claimed_issuer(WORLD.token(**claims))
        assert refused.value.reason == "ID_TOKEN_CLAIM_INVALID"


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{1,60}(\.[A-Za-z0-9_-]{1,60}){1,3}", fullmatch=True))
def test_any_text_whatever_is_refused_with_a_reason(text: str) -> None:
    reason_of(text)


CLAIMS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(["iss", "sub", "aud", "azp", "exp", "iat", "nbf", "auth_time", "nonce", "groups", "amr", "acr"]),
    CLAIMS,
)
def test_a_signed_claim_of_any_shape_is_taken_as_it_is_or_refused_with_a_reason(claim: str, value: object) -> None:
    payload = {**WORLD.own.claims("anna", AUDIENCE, groups=["oncall"]), claim: value}
    try:
        token = verified(WORLD.raw(payload=json.dumps(payload).encode()), max_age=AGE)
    except Unauthenticated as refused:
        assert refused.reason.startswith("ID_TOKEN_")
    else:
        assert token.issuer == WORLD.own.url and token.audience == AUDIENCE


def jwks(*keys: dict[str, object]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


GOOD = jwk(ec_key("x"), "one", use="sig")


def test_a_providers_set_gives_its_signing_keys_and_leaves_out_the_rest() -> None:
    encrypting = jwk(rsa_key("x"), "enc", use="enc", alg="RSA-OAEP")
    unmarked = jwk(rsa_key("x"), "unmarked", use=None)
    foreign = {"kty": "XYZ", "kid": "future"}
    nameless = jwk(ec_key("y"), None, use="sig")
    p521 = jwk(ec_key("x", "ES512"), "p521", use="sig")
    keys = KeySet.from_jwks(jwks(GOOD, encrypting, unmarked, foreign, nameless, p521))
    assert {key_id: key.algorithms for key_id, key in keys.keys.items()} == {
        "one": {"ES256"},
        "unmarked": {"RS256", "PS256"},
    }


def test_the_version_is_of_the_keys_and_of_nothing_else() -> None:
    other = jwk(ec_key("y"), "two", use="sig")
    assert KeySet.from_jwks(jwks(GOOD, other)).version == KeySet.from_jwks(jwks(other, GOOD)).version
    assert KeySet.from_jwks(jwks(GOOD)).version != KeySet.from_jwks(jwks({**GOOD, "kid": "two"})).version


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "JSON"),
        (b"<html>", "JSON"),
        (b"\xff", "UTF-8"),
        (b'{"keys":[],"keys":[]}', "twice"),
        (b"{}", "no list"),
        (b'{"keys":["x"]}', "no list"),
        (b'{"keys":[]}', "no key"),
        (jwks(jwk(rsa_key("x"), "enc", use="enc")), "no key"),
        (jwks(jwk(rsa_key("weak", 1024), "one", use="sig")), "no key"),
        (jwks({"kty": "oct", "k": "AAAA", "kid": "one"}), "private or symmetric"),
        (jwks(GOOD, {**jwk(ec_key("y"), "two", use="sig"), "d": "AAAA"}), "private or symmetric"),
        (jwks(GOOD, {**jwk(rsa_key("x"), "one", use="sig")}), "twice"),
        (jwks(*({**GOOD, "kid": str(n)} for n in range(65))), "at most 64"),
        (jwks(*({"kty": "?"} for _ in range(257))), "at most 256"),
    ],
)
def test_what_is_no_set_of_keys_is_refused(document: bytes, why: str) -> None:
    with pytest.raises(UnfitKeySet, match=why) as refused:
        KeySet.from_jwks(document)
    assert str(GOOD["x"]) not in str(refused.value)
