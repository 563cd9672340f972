"""Forgetting a lease whose row fails its MAC: nothing an upstream says about it proves anything, two people do."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import Reason, WrongState
from broker.lease.machine import State
from broker.stores.invariants import LedgerChecks
from broker.stores.sqlite import SqliteStore
from tests.stores.contract import grant, records
from tests.stores.contract_forgetting import ADA, BEA, said, stuck
from tests.stores.contract_retention import completed
from tests.stores.make import ALICE, TENANT, Keys, at, new_task


async def quarantined(path: Path, change: str) -> SqliteStore:
    store = await SqliteStore.open(path / "ledger.sqlite3", Keys(), "writer-1")
    await store.start_task(new_task())
    await grant(store)
    with sqlite3.connect(path / "ledger.sqlite3") as database:
        assert database.execute(f"UPDATE attempts SET {change}").rowcount == 1
    await completed(store)
    assert await store.claim_due("bao", at(101), 10, timedelta(seconds=30))
    return store


async def test_it_is_the_brokers_again_and_can_go(tmp_path: Path) -> None:
    store = await quarantined(tmp_path, """handle = '{"attempt": "forged"}'""")
    assert await store.delete_ended(at(200_000), at(200_000)) == 0
    await store.forget_lease(said(ADA))
    await store.forget_lease(said(BEA))
    assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.EXPIRED
    assert (await store.figures(at(100_000))).stuck == 0
    assert (await records(store))[-1].data["row_failed_its_mac"] is True
    assert await store.claim_due("bao", at(200_000), 10, timedelta(seconds=30)) == []
    assert await store.delete_ended(at(200_000), at(200_000)) == 1
    await store.close()


async def test_the_ledger_is_sound_with_what_was_forgotten(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
    await stuck(store)
    await store.forget_lease(said(ADA))
    await store.forget_lease(said(BEA))
    await store.close()
    with LedgerChecks(tmp_path / "ledger.sqlite3") as checks:
        assert list(checks.violations(Keys())) == []


OVER = "state = 'EXPIRED', due_at = NULL, owed_since = NULL"
ALIVE = "state = 'REVOKING', due_at = 1, owed_since = 1"


@pytest.mark.parametrize(("people", "forged"), [((ADA,), OVER), ((ADA, BEA), ALIVE)])
async def test_only_both_peoples_word_stands_for_an_end(tmp_path: Path, people: tuple[str, ...], forged: str) -> None:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
    await stuck(store)
    for person in people:
        await store.forget_lease(said(person))
    await store.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as database:
        assert database.execute(f"UPDATE attempts SET {forged}").rowcount == 1
    with LedgerChecks(tmp_path / "ledger.sqlite3") as checks:
        assert "what became of each attempt is in the trail" in {each.invariant for each in checks.violations(None)}


async def test_a_forged_expiry_does_not_make_it_earlier(tmp_path: Path) -> None:
    store = await quarantined(tmp_path, "expires_at = created_at + 1")
    with pytest.raises(WrongState) as refused:
        await store.forget_lease(said(now=86_460))  # the lease's own row still says 61
    assert refused.value.reason is Reason.LEASE_NOT_FORGETTABLE
    await store.close()


async def test_nor_does_one_in_the_far_future_break_it(tmp_path: Path) -> None:
    store = await quarantined(tmp_path, "expires_at = 9000000000000000")
    with pytest.raises(WrongState, match="may not have ended it"):
        await store.forget_lease(said())
    await store.close()
