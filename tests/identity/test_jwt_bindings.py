"""A token belongs to the first proxy that shows it, for as long as it lives."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import BrokerError, Reason
from broker.identity.jwt_svid import JwtSvid
from broker.identity.spiffe_id import SpiffeId
from broker.identity.token_bindings import TokenBindings
from tests.forge import NOW

EAST, WEST = (SpiffeId("example.org", f"/proxy/{name}") for name in ("east", "west"))
AGENT = SpiffeId("example.org", "/agent/one")
SECOND = timedelta(seconds=1)


def svid(name: str, seconds: int = 300) -> JwtSvid:
    return JwtSvid(AGENT, NOW, NOW + seconds * SECOND, name, "key")


def refused(bindings: TokenBindings, token: JwtSvid, proxy: SpiffeId, at: timedelta = timedelta(0)) -> Reason:
    before = len(bindings)
    with pytest.raises(BrokerError) as error:
        bindings.bind(token, proxy, NOW + at)
    assert len(bindings) == before
    return error.value.reason


def test_a_repeat_by_the_same_proxy_is_honest() -> None:
    bindings = TokenBindings()
    for second in range(300):
        bindings.bind(svid("t"), EAST, NOW + second * SECOND)
    assert len(bindings) == 1


def test_another_proxy_is_refused_and_the_first_stays() -> None:
    bindings = TokenBindings()
    bindings.bind(svid("t"), EAST, NOW)
    assert refused(bindings, svid("t"), WEST) == "JWT_SVID_OF_ANOTHER_PROXY"
    bindings.bind(svid("t"), EAST, NOW)
    bindings.bind(svid("another token"), WEST, NOW)


def test_full_refuses_new_tokens_and_forgets_none() -> None:
    bindings = TokenBindings(max_tokens=2)
    bindings.bind(svid("a", 10), EAST, NOW)
    bindings.bind(svid("b", 20), EAST, NOW)
    assert refused(bindings, svid("c"), WEST) == "TOO_MANY_PROXIED_TOKENS"
    assert refused(bindings, svid("a", 10), WEST) == "JWT_SVID_OF_ANOTHER_PROXY"
    bindings.bind(svid("b", 20), EAST, NOW)
    # The first one's time is over: there is room for one.
    bindings.bind(svid("c"), WEST, NOW + 10 * SECOND)
    assert refused(bindings, svid("d"), WEST, 11 * SECOND) == "TOO_MANY_PROXIED_TOKENS"


def test_one_agent_can_fill_only_its_own_part() -> None:
    bindings = TokenBindings(max_tokens=10, max_tokens_of_one=2)
    other = SpiffeId("example.org", "/agent/two")
    for name in ("a", "b"):
        bindings.bind(svid(name, 10), EAST, NOW)
    assert refused(bindings, svid("c"), EAST) == "TOO_MANY_PROXIED_TOKENS"
    bindings.bind(svid("a", 10), EAST, NOW)
    bindings.bind(JwtSvid(other, NOW, NOW + 300 * SECOND, "d", "key"), EAST, NOW)
    # Its own earlier ones have ended.
    bindings.bind(svid("c"), EAST, NOW + 10 * SECOND)
    assert bindings._of_agent == {AGENT: 1, other: 1}


def test_memory_does_not_grow_with_the_tokens_ever_seen() -> None:
    bindings = TokenBindings(max_tokens=400)
    for second in range(2_000):
        start = second * SECOND
        bindings.bind(JwtSvid(AGENT, NOW, NOW + start + 300 * SECOND, f"token {second}", "key"), EAST, NOW + start)
    assert len(bindings) == 300
    assert len(bindings._by_end) == bindings._of_agent[AGENT] == 300


def test_a_clock_set_back_does_not_free_a_token_for_its_copy() -> None:
    bindings = TokenBindings()
    bindings.bind(svid("t", 10), EAST, NOW)
    bindings.bind(svid("later"), EAST, NOW + 11 * SECOND)
    assert refused(bindings, svid("t", 10), WEST) == "JWT_SVID_EXPIRED"
    assert refused(bindings, svid("t", 10), EAST) == "JWT_SVID_EXPIRED"
