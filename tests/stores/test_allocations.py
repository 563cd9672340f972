"""Accounts of pools in a SQLite file: rows that somebody changed, and a process that dies while it lends."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from broker.connectors.gcp_pool import GcpPool
from broker.connectors.lending import Lending
from broker.errors import Tampered, UpstreamFailed
from broker.ports.allocations import AllocationState, AllocationStore, TakenUp
from broker.ports.connectors import RevokeContext, Revoked
from broker.stores.invariants import MACS, LedgerChecks
from broker.stores.sqlite import SqliteStore
from tests.clock import ManualClock
from tests.connectors.gcp_double.rules import Mishap
from tests.connectors.harness_gcp import POOL, Allocations, gcp_world, pool_scope
from tests.connectors.support import HOLDER
from tests.stores.contract_allocations import BOTH, ONE, LendingContract, attempts, make_ready, take
from tests.stores.make import T0, TENANT, Keys, at, intent


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path / "ledger.sqlite3", Keys(), "writer-1")


async def with_attempts(path: Path, *names: str) -> SqliteStore:
    """A ledger with attempts that are ISSUING."""
    store = await opened(path)
    await attempts(store, *names)
    return store


class TestInMemory(LendingContract):
    """What tests of connectors have in the ledger's place."""

    @pytest.fixture
    def lending(self) -> AllocationStore:
        return Allocations()


@pytest.mark.parametrize(
    "change",
    [
        "state = 'READY', attempt_id = NULL, ends_at = NULL",
        "attempt_id = 'attempt-2'",
        "ends_at = ends_at - 1",
        "connector = 'another'",
        "mac = zeroblob(32)",
    ],
)
async def test_a_row_that_somebody_changed_keeps_its_account_from_everybody(tmp_path: Path, change: str) -> None:
    store = await with_attempts(tmp_path, "1", "2")
    await make_ready(store, ONE)
    await take(store, "attempt-1")
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as database:
        assert database.execute(f"UPDATE account_allocations SET {change}").rowcount == 1
    assert isinstance(await take(store, "attempt-2"), TakenUp)
    held = await store.account_allocation(ONE)
    assert held is not None
    assert not held.trusted
    for doing in (
        store.rest_account(TENANT, "gcp", "attempt-1", ONE, at(20), at(20)),
        store.account_ready(TENANT, ONE, at(10_000)),
        store.give_account_back(TENANT, "attempt-1", ONE, at(20)),
    ):
        with pytest.raises(Tampered):
            await doing
    await store.close()
    with LedgerChecks(tmp_path / "ledger.sqlite3") as checks:
        assert [(each.invariant, each.where) for each in checks.violations(Keys())] == [
            (MACS, f"account_allocations {ONE}/{TENANT}")
        ]


async def test_what_was_lent_when_everything_stopped_is_found_and_ended_by_the_next(tmp_path: Path) -> None:
    """The reply is lost, the process dies before the attempt hears of it: the intent's own handle ends it."""
    clock = ManualClock(T0 + timedelta(seconds=1))
    with gcp_world(clock) as world:
        store = await with_attempts(tmp_path)
        await make_ready(store, *BOTH)

        def pool(ledger: SqliteStore) -> GcpPool:
            lending = Lending(TENANT, ledger)
            return GcpPool("gcp", world.settings(), {"orders": POOL}, lending, world.own, clock)

        connector = pool(store)
        expires_at = clock.now() + timedelta(seconds=60)
        handle = connector.prepare(pool_scope(), "attempt-1", HOLDER, expires_at)
        asked = await store.open_intent(intent("1", handle=handle, connector="gcp"))

        async def never_noted(handle: object, upstream: str | None) -> None:
            """As if the process died while the note was under way."""

        world.cloud.mishaps.append(Mishap(":generateAccessToken", lose=True))
        with pytest.raises(UpstreamFailed):
            await connector.issue(asked.attempt.handle, pool_scope(), expires_at, never_noted)
        (text,) = [each for each, token in world.cloud.tokens.items() if token.principal.endswith(ONE)]
        assert world.reads(text, "2031/05/a.csv")
        await connector.close()
        await store.close()

        again = await opened(tmp_path)
        clock.advance(timedelta(seconds=15))
        await again.recover(clock.now())
        (attempt,) = await again.claim_due("gcp", clock.now(), 10, timedelta(seconds=30))
        assert "account" not in attempt.handle
        after = pool(again)
        context = RevokeContext(
            now=clock.now(),
            created_at=attempt.created_at,
            issue_deadline=attempt.issue_deadline,
            expires_at=attempt.expires_at,
            outcome_known=False,
            known_upstream=partial(again.known_upstream, "gcp"),
        )
        outcome = await after.revoke(attempt.handle, context)
        assert isinstance(outcome, Revoked)
        assert not world.reads(text, "2031/05/a.csv")
        held = await again.attempt_allocation(TENANT, "attempt-1")
        assert held is not None
        assert (held.account, held.state) == (ONE, AllocationState.RESTING)
        await after.close()
        await again.close()
