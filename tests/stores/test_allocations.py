"""Accounts of pools in the ledger: one attempt each, whatever dies, and never lent before they have rested.

The first half runs on the ledger and on what tests of connectors have in its place, so that the two cannot drift.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from broker.connectors.gcp_pool import GcpPool
from broker.connectors.lending import Lending
from broker.errors import Reason, Tampered, UpstreamFailed, WrongState
from broker.lease.machine import Event
from broker.lease.quarantine import QUARANTINE
from broker.ports import AllocationState, AllocationStore, EndCause, Evidence, RevokeContext, Revoked, Taken, TakenUp
from broker.stores.invariants import MACS, LedgerChecks
from broker.stores.sqlite import SqliteStore
from tests.clock import ManualClock
from tests.connectors.gcp_double.rules import Mishap
from tests.connectors.harness_gcp import POOL, Allocations, gcp_world, pool_scope
from tests.connectors.support import HOLDER
from tests.stores.make import T0, TENANT, Keys, at, intent, new_task

ONE, TWO = POOL.accounts[:2]
BOTH = (ONE, TWO)


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path / "ledger.sqlite3", Keys(), "writer-1")


async def with_attempts(path: Path, *names: str) -> SqliteStore:
    """A ledger with attempts that are ISSUING."""
    store = await opened(path)
    await store.start_task(new_task())
    for name in names:
        await store.open_intent(intent(name, request_id=f"r-{name}"))
    return store


async def make_ready(store: AllocationStore, *accounts: str, now: float = 0) -> None:
    for each in accounts:
        await store.rest_account(TENANT, "gcp", None, each, at(now), at(now))
        await store.account_ready(TENANT, each, at(now))


async def take(store: AllocationStore, attempt: str, now: float = 10) -> Taken | TakenUp:
    return await store.take_account(TENANT, "gcp", attempt, BOTH, at(now + 60), at(now))


@pytest.fixture(params=["ledger", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AllocationStore]:
    if request.param == "memory":
        yield Allocations()  # type: ignore[misc]
        return
    made = await with_attempts(tmp_path, "1", "2", "3")
    yield made
    await made.close()


async def test_an_account_is_one_attempts_and_the_longest_ready_comes_first(store: AllocationStore) -> None:
    await make_ready(store, TWO, now=1)
    await make_ready(store, ONE, now=2)
    assert await take(store, "attempt-1") == Taken(TWO)
    assert await take(store, "attempt-2") == Taken(ONE)
    # Both are lent until 70 s, and rest for an hour.
    assert await take(store, "attempt-3") == TakenUp(at(70) + QUARANTINE)
    held = await store.attempt_allocation(TENANT, "attempt-1")
    assert held is not None
    assert (held.account, held.state, held.ends_at) == (TWO, AllocationState.LENT, at(70))


async def test_what_nobody_knows_is_not_lent(store: AllocationStore) -> None:
    assert await take(store, "attempt-1") == TakenUp(None)
    assert await store.account_allocation(ONE) is None


async def test_what_is_given_back_is_ready_again_at_the_end_of_the_queue(store: AllocationStore) -> None:
    await make_ready(store, *BOTH)
    assert await take(store, "attempt-1") == Taken(ONE)
    await store.give_account_back(TENANT, "attempt-1", ONE, at(11))
    assert await take(store, "attempt-2", now=12) == Taken(TWO)
    assert await take(store, "attempt-3", now=12) == Taken(ONE)
    await store.give_account_back(TENANT, "attempt-1", ONE, at(13))  # not its any more
    held = await store.account_allocation(ONE)
    assert held is not None
    assert held.attempt_id == "attempt-3"


async def test_it_is_not_ready_before_it_has_rested(store: AllocationStore) -> None:
    await make_ready(store, ONE)
    await take(store, "attempt-1")
    with pytest.raises(WrongState):
        await store.account_ready(TENANT, ONE, at(10_000))  # it is lent
    await store.rest_account(TENANT, "gcp", "attempt-1", ONE, at(100), at(20))
    assert await take(store, "attempt-2") == TakenUp(at(100))
    with pytest.raises(WrongState):
        await store.account_ready(TENANT, ONE, at(99.999))
    await store.account_ready(TENANT, ONE, at(100))
    assert await take(store, "attempt-2", now=100) == Taken(ONE)


async def test_a_rest_only_grows(store: AllocationStore) -> None:
    await store.rest_account(TENANT, "gcp", None, ONE, at(100), at(20))
    await store.rest_account(TENANT, "gcp", None, ONE, at(50), at(30))
    held = await store.account_allocation(ONE)
    assert held is not None
    assert held.free_at == at(100)


async def test_nobody_makes_anothers_account_rest(store: AllocationStore) -> None:
    await make_ready(store, ONE)
    await take(store, "attempt-1")
    for other in ("attempt-2", None):
        with pytest.raises(WrongState):
            await store.rest_account(TENANT, "gcp", other, ONE, at(100), at(20))
    held = await store.account_allocation(ONE)
    assert held is not None
    assert held.state is AllocationState.LENT


async def test_only_what_has_rested_is_forgotten(store: AllocationStore) -> None:
    await make_ready(store, ONE)
    await store.rest_account(TENANT, "gcp", None, TWO, at(100), at(20))
    for account in BOTH:
        await store.forget_account(TENANT, account, at(99))
    assert len(await store.allocations(TENANT, "gcp", ())) == 2
    for account in BOTH:
        await store.forget_account(TENANT, account, at(100))
    assert [each.account for each in await store.allocations(TENANT, "gcp", ())] == [ONE]


async def test_a_connector_of_another_name_knows_whose_its_accounts_are(store: AllocationStore) -> None:
    await make_ready(store, *BOTH)
    await take(store, "attempt-1")
    assert [each.account for each in await store.allocations(TENANT, "renamed", [ONE])] == [ONE]
    assert await store.allocations(TENANT, "renamed", []) == []


# --------------------------------------------------------------------------- the ledger alone


async def test_of_many_at_once_each_gets_another(tmp_path: Path) -> None:
    names = [str(number) for number in range(20)]
    store = await with_attempts(tmp_path, *names)
    await make_ready(store, *POOL.accounts)
    taken = await asyncio.gather(
        *(store.take_account(TENANT, "gcp", f"attempt-{name}", POOL.accounts, at(70), at(10)) for name in names)
    )
    accounts = [each.account for each in taken if isinstance(each, Taken)]
    assert sorted(accounts) == sorted(POOL.accounts)
    assert len([each for each in taken if isinstance(each, TakenUp)]) == len(names) - POOL.size
    await store.close()


async def test_an_attempt_that_is_over_is_lent_nothing_and_what_it_had_is_told(tmp_path: Path) -> None:
    store = await with_attempts(tmp_path, "1", "2")
    await make_ready(store, *BOTH)
    await take(store, "attempt-1")
    for name in ("1", "2"):
        await store.end_attempt(TENANT, f"attempt-{name}", Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, at(11), "")
    with pytest.raises(WrongState) as caught:
        await take(store, "attempt-2")
    assert caught.value.reason is Reason.LEASE_ENDED
    with pytest.raises(WrongState):
        await take(store, "attempt-nobody-knows")
    assert {each.account: each.over for each in await store.allocations(TENANT, "gcp", ())}[ONE]
    await store.close()


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


async def test_in_recovery_nothing_that_the_ledger_calls_ready_is_believed(tmp_path: Path) -> None:
    store = await with_attempts(tmp_path, "1", "2")
    await make_ready(store, *BOTH)
    await take(store, "attempt-1")
    await store.enter_recovery(TENANT, "recovery-1", Evidence("witness", "behind", "note", 9, 0), at(20))
    await store.burn_open(TENANT, at(20))
    assert [each.account for each in await store.allocations(TENANT, "gcp", ())] == [ONE]  # that is still lent
    await store.close()


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
