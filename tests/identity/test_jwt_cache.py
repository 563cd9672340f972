"""The memory of proven tokens answers what the rules would, and stays small."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Unauthenticated
from broker.identity.jwt_bundle import JwtBundle, JwtBundles
from broker.identity.jwt_svid import JwtSvid, validate_jwt_svid
from broker.identity.token_cache import TokenCache
from tests.forge import NOW
from tests.hostile_jwts import HOSTILE, World

AUDIENCE = "spiffe://example.org/broker"
WORLD = World.of("example.org", "federated.example", AUDIENCE, "spiffe://example.org/agent/one", NOW)
OWN = JwtBundle.from_jwks("example.org", WORLD.own.bundle())
BUNDLES = JwtBundles([OWN, JwtBundle.from_jwks("federated.example", WORLD.federated.bundle())])
CLAIMS = ({}, {"nbf": WORLD.now + 3}, {"exp": WORLD.now + 100}, {"iat": None})
TOKENS = tuple(WORLD.token(**claims) for claims in CLAIMS)


def answer(ask: object) -> JwtSvid | str:
    try:
        return ask()  # type: ignore[operator,no-any-return]
    except Unauthenticated as refused:
        return refused.reason


@given(st.lists(st.tuples(st.sampled_from(TOKENS), st.integers(-20, 420)), max_size=30))
def test_it_answers_as_the_rules_do_at_every_time_in_any_order(asked: list[tuple[str, int]]) -> None:
    cache = TokenCache(AUDIENCE)
    for token, second in asked:
        now = NOW + timedelta(seconds=second)
        expected = answer(lambda: validate_jwt_svid(token, BUNDLES, AUDIENCE, now))  # noqa: B023
        assert answer(lambda: cache.validate(token, BUNDLES, now)) == expected  # noqa: B023


def test_a_hit_does_not_ask_again_and_another_bundle_does() -> None:
    cache, token = TokenCache(AUDIENCE), TOKENS[0]
    first = cache.validate(token, BUNDLES, NOW)
    assert cache.validate(token, BUNDLES, NOW) is first
    fewer = JwtBundles([JwtBundle("example.org", [OWN.keys["rsa"]])])
    with pytest.raises(Unauthenticated):
        cache.validate(token, fewer, NOW)


def test_refusals_are_not_remembered_and_the_memory_is_bounded() -> None:
    cache = TokenCache(AUDIENCE, max_entries=3)
    for case in HOSTILE:
        with pytest.raises(Unauthenticated):
            cache.validate(case.make(WORLD), BUNDLES, NOW)
    assert len(cache) == 0
    for number in range(10):
        cache.validate(WORLD.token(jti=str(number)), BUNDLES, NOW)
    assert len(cache) == 3
