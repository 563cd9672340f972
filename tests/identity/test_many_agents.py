"""Ten thousand agents come, go and come again, through rotations of the bundle: what is kept has a bound."""

from __future__ import annotations

import gc
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.identity.agent import Peer
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.peer_cache import PeerCache
from broker.issuance.refusals import MAX_PRINCIPALS, RefusalBudget
from tests.forge import NOW, authority

HOME, NEXT = authority("example.org"), authority("example.org", name="next")
AGENTS = 10_000
KEPT = 4096


def peers_alive() -> int:
    gc.collect()
    return sum(isinstance(each, Peer) for each in gc.get_objects())


@pytest.mark.slow
def test_ten_thousand_agents_are_not_remembered() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    bundles = [
        Bundles([TrustBundle.from_pem("example.org", pem)])
        for pem in (HOME.pem, HOME.pem + NEXT.pem, NEXT.pem + HOME.pem)
    ]
    cache, before = PeerCache(), peers_alive()
    recent: list[bytes] = []
    for number in range(AGENTS):
        leaf = HOME.svid(f"spiffe://example.org/job/{number}", key=key).pem
        assert cache.validate(leaf, b"", bundles[0], NOW).spiffe_id.path == f"/job/{number}"
        recent = [*recent[-99:], leaf]
        assert len(cache) <= KEPT
    assert len(cache) == KEPT  # and no more, however many came
    for _ in range(3):  # they reconnect, and the bundle rotates under them: the same leaf is another question then
        for leaf in recent:
            for each in bundles:
                cache.validate(leaf, b"", each, NOW)
    assert len(cache) == KEPT
    assert peers_alive() - before == KEPT


def test_nor_are_their_refusals() -> None:
    budget = RefusalBudget()
    for number in range(3 * MAX_PRINCIPALS):
        budget.admit(f"spiffe://example.org/job/{number}", "AGENT_DENIED", NOW)
    assert len(budget._open) <= MAX_PRINCIPALS + 1
    budget.close_windows(NOW + timedelta(minutes=2))
    assert budget._open == {}
