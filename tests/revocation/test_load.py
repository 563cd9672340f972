"""F29, small: thousands of leases due within one second over four connectors, and one upstream never answers.

Counts, order and shares, no times: how fast it is, on a machine that is known, is ``make load``.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from bench.herd import ANSWERING, HANGING, run, tell
from broker.audit.record import decode
from broker.revocation.lane import MOST_HELD
from broker.stores.sqlite import SqliteStore
from tests.clock import TICK
from tests.issuance.world import StaticKeys
from tests.patience import becomes_true
from tests.revocation.test_lanes import DUE, WORKERS, Lanes

LEASES = 5_000


@pytest.mark.slow
async def test_a_herd_ends_but_for_what_hangs(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", StaticKeys(), writer="w1")
    names = ("one", "two", "three", "four")
    lanes = Lanes(store, *names)
    lanes.upstreams["four"].hangs = True
    held: Counter[str] = Counter()
    progress: list[str] = []

    def seen(name: str) -> None:
        held[name] = max(held[name], lanes.revoker._lanes[name].held)
        progress.append(name)

    for name in names:
        lanes.upstreams[name].seen = lambda name=name: seen(name)  # type: ignore[misc]
    await lanes.fill(LEASES, [DUE + n * TICK for n in range(1_000)])
    lanes.kick()
    await becomes_true(lambda: lanes.revoked("one", "two", "three") == 3 * LEASES // 4)

    for name in ("one", "two", "three"):
        assert sorted(lanes.upstreams[name].asked) == sorted(set(lanes.upstreams[name].asked))  # each once
        assert held[name] <= MOST_HELD
    assert lanes.upstreams["four"].most_under_way <= WORKERS
    # A fair share: when the first was done, none of the three had been left behind.
    so_far: Counter[str] = Counter()
    for name in progress:
        so_far[name] += 1
        if name != "four" and so_far[name] == LEASES // 4:
            break
    assert min(so_far[name] for name in ("one", "two", "three")) >= LEASES // 4 // 4
    # None of the fourth is lost: all of it is due, now or when its claims run out.
    await lanes.revoker.close()
    later = lanes.clock.now() + timedelta(minutes=2)
    assert len(await store.claim_due("four", later, LEASES, timedelta(seconds=30))) == LEASES // 4
    types = Counter(decode(body).type for body in await store.audit_since(0, 100_000))
    assert types["lease.revoked"] == 3 * LEASES // 4
    await store.close()


@pytest.mark.slow
def test_the_load_test_itself_ends_everything_and_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    herd = run(400, tmp_path)
    assert (herd.alone.ended, herd.beside.ended) == (300, 300)
    assert len(herd.beside.lateness_ms) == 300
    assert min(herd.beside.lateness_ms) >= 0
    tell(herd)
    assert set(herd.figures()) == {"time_vs_alone", "p99_vs_alone", "growth_mib", "suspend_s"}
    assert "beside one that hangs" in capsys.readouterr().out
    assert HANGING not in ANSWERING
