"""The memory of proven peers: always the answer a full validation would give."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import Reason, Unauthenticated
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.peer_cache import PeerCache
from tests.forge import NOW, authority

HOME = authority("example.org")
NEXT = authority("example.org", name="next")
BEFORE = Bundles([TrustBundle.from_pem("example.org", HOME.pem)])
OVERLAP = Bundles([TrustBundle.from_pem("example.org", HOME.pem + NEXT.pem)])
AFTER = Bundles([TrustBundle.from_pem("example.org", NEXT.pem)])
LEAF = HOME.svid("spiffe://example.org/agent").pem


def test_second_time_is_the_same_object_and_nothing_is_parsed() -> None:
    cache = PeerCache()
    first = cache.validate(LEAF, b"", BEFORE, NOW)

    # equal bytes, another object: what gRPC hands over for each request
    assert cache.validate(bytes(bytearray(LEAF)), b"", BEFORE, NOW) is first
    assert len(cache) == 1


@pytest.mark.parametrize(
    ("later", "reason"),
    [(timedelta(hours=2), Reason.SVID_EXPIRED), (timedelta(hours=-2), Reason.SVID_NOT_YET_VALID)],
)
def test_time_is_asked_on_every_hit(later: timedelta, reason: Reason) -> None:
    cache = PeerCache()
    first = cache.validate(LEAF, b"", BEFORE, NOW)

    with pytest.raises(Unauthenticated) as refused:
        cache.validate(LEAF, b"", BEFORE, NOW + later)

    assert refused.value.reason is reason
    # While the time is doubted, another clock is asked next, again and again.
    assert cache.validate(LEAF, b"", BEFORE, NOW) is first


def test_expiry_of_an_intermediate_ends_the_memory_too() -> None:
    cache = PeerCache()
    leaf = HOME.intermediate("short", ends=timedelta(hours=1)).svid("spiffe://example.org/a", ends=timedelta(hours=6))
    cache.validate(leaf.pem, leaf.chain_pem, BEFORE, NOW)

    with pytest.raises(Unauthenticated) as refused:
        cache.validate(leaf.pem, leaf.chain_pem, BEFORE, NOW + timedelta(hours=2))

    assert refused.value.reason is Reason.SVID_CHAIN_INVALID


def test_removed_root_ends_the_memory() -> None:
    cache = PeerCache()
    cache.validate(LEAF, b"", BEFORE, NOW)
    cache.validate(LEAF, b"", OVERLAP, NOW)

    with pytest.raises(Unauthenticated) as refused:
        cache.validate(LEAF, b"", AFTER, NOW)

    assert refused.value.reason is Reason.SVID_CHAIN_INVALID


def test_chain_belongs_to_the_key() -> None:
    cache = PeerCache()
    leaf = HOME.intermediate().svid("spiffe://example.org/a")
    cache.validate(leaf.pem, leaf.chain_pem, BEFORE, NOW)

    with pytest.raises(Unauthenticated):
        cache.validate(leaf.pem, b"", BEFORE, NOW)
    assert len(cache) == 1


def test_least_recently_used_goes_first() -> None:
    one, two, three = (HOME.svid(f"spiffe://example.org/{n}").pem for n in (1, 2, 3))
    cache = PeerCache(max_entries=2)
    first, second = cache.validate(one, b"", BEFORE, NOW), cache.validate(two, b"", BEFORE, NOW)
    cache.validate(one, b"", BEFORE, NOW)

    cache.validate(three, b"", BEFORE, NOW)  # pushes out two

    assert len(cache) == 2
    assert cache.validate(one, b"", BEFORE, NOW) is first
    assert cache.validate(two, b"", BEFORE, NOW) is not second


def test_bytes_are_bounded_whatever_peers_send_along() -> None:
    cache = PeerCache(max_bytes=2 * len(LEAF) + 100)
    leaves = [HOME.svid("spiffe://example.org/agent").pem for _ in range(5)]

    for leaf in leaves:
        cache.validate(leaf, b"", BEFORE, NOW)
        assert len(cache) <= 2
    assert len(cache) == 2  # what was pushed out gave its room back
    # one chain larger than the whole memory is answered and not kept
    big = HOME.intermediate("a").intermediate("b").intermediate("c").svid("spiffe://example.org/big")
    assert cache.validate(big.pem, big.chain_pem, BEFORE, NOW).spiffe_id.path == "/big"
    assert len(cache) == 0
