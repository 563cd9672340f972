"""What every ledger does about accounts of pools; an adapter gives the ``store`` fixture.

The first half is also true of what tests of connectors have in its place, so that the two cannot drift.
"""

from __future__ import annotations

import asyncio

import pytest

from broker.errors import Reason, WrongState
from broker.lease.machine import Event
from broker.lease.quarantine import QUARANTINE
from broker.ports.allocations import AllocationState, AllocationStore, Taken, TakenUp
from broker.ports.leases import EndCause
from broker.ports.ledger import Ledger
from broker.ports.trail import Evidence
from tests.connectors.harness_gcp import POOL
from tests.stores.make import TENANT, at, intent, new_task

ONE, TWO = POOL.accounts[:2]
BOTH = (ONE, TWO)


async def attempts(store: Ledger, *names: str) -> None:
    """Attempts that are ISSUING."""
    await store.start_task(new_task())
    for name in names:
        await store.open_intent(intent(name, request_id=f"r-{name}"))


async def make_ready(store: AllocationStore, *accounts: str, now: float = 0) -> None:
    for each in accounts:
        await store.rest_account(TENANT, "gcp", None, each, at(now), at(now))
        await store.account_ready(TENANT, each, at(now))


async def take(store: AllocationStore, attempt: str, now: float = 10) -> Taken | TakenUp:
    return await store.take_account(TENANT, "gcp", attempt, BOTH, at(now + 60), at(now))


class LendingContract:
    """Of attempts 1, 2 and 3, which the fixture ``lending`` has open."""

    async def test_an_account_is_one_attempts_and_the_longest_ready_comes_first(self, lending: AllocationStore) -> None:
        await make_ready(lending, TWO, now=1)
        await make_ready(lending, ONE, now=2)
        assert await take(lending, "attempt-1") == Taken(TWO)
        assert await take(lending, "attempt-2") == Taken(ONE)
        # Both are lent until 70 s, and rest for an hour.
        assert await take(lending, "attempt-3") == TakenUp(at(70) + QUARANTINE)
        held = await lending.attempt_allocation(TENANT, "attempt-1")
        assert held is not None
        assert (held.account, held.state, held.ends_at) == (TWO, AllocationState.LENT, at(70))

    async def test_what_nobody_knows_is_not_lent(self, lending: AllocationStore) -> None:
        assert await take(lending, "attempt-1") == TakenUp(None)
        assert await lending.account_allocation(ONE) is None

    async def test_what_is_given_back_is_ready_again_at_the_end_of_the_queue(self, lending: AllocationStore) -> None:
        await make_ready(lending, *BOTH)
        assert await take(lending, "attempt-1") == Taken(ONE)
        await lending.give_account_back(TENANT, "attempt-1", ONE, at(11))
        assert await take(lending, "attempt-2", now=12) == Taken(TWO)
        assert await take(lending, "attempt-3", now=12) == Taken(ONE)
        await lending.give_account_back(TENANT, "attempt-1", ONE, at(13))  # not its any more
        held = await lending.account_allocation(ONE)
        assert held is not None
        assert held.attempt_id == "attempt-3"

    async def test_it_is_not_ready_before_it_has_rested(self, lending: AllocationStore) -> None:
        await make_ready(lending, ONE)
        await take(lending, "attempt-1")
        with pytest.raises(WrongState):
            await lending.account_ready(TENANT, ONE, at(10_000))  # it is lent
        await lending.rest_account(TENANT, "gcp", "attempt-1", ONE, at(100), at(20))
        assert await take(lending, "attempt-2") == TakenUp(at(100))
        with pytest.raises(WrongState):
            await lending.account_ready(TENANT, ONE, at(99.999))
        await lending.account_ready(TENANT, ONE, at(100))
        assert await take(lending, "attempt-2", now=100) == Taken(ONE)

    async def test_a_rest_only_grows(self, lending: AllocationStore) -> None:
        await lending.rest_account(TENANT, "gcp", None, ONE, at(100), at(20))
        await lending.rest_account(TENANT, "gcp", None, ONE, at(50), at(30))
        held = await lending.account_allocation(ONE)
        assert held is not None
        assert held.free_at == at(100)

    async def test_nobody_makes_anothers_account_rest(self, lending: AllocationStore) -> None:
        await make_ready(lending, ONE)
        await take(lending, "attempt-1")
        for other in ("attempt-2", None):
            with pytest.raises(WrongState):
                await lending.rest_account(TENANT, "gcp", other, ONE, at(100), at(20))
        held = await lending.account_allocation(ONE)
        assert held is not None
        assert held.state is AllocationState.LENT

    async def test_only_what_has_rested_is_forgotten(self, lending: AllocationStore) -> None:
        await make_ready(lending, ONE)
        await lending.rest_account(TENANT, "gcp", None, TWO, at(100), at(20))
        for account in BOTH:
            await lending.forget_account(TENANT, account, at(99))
        assert len(await lending.allocations(TENANT, "gcp", ())) == 2
        for account in BOTH:
            await lending.forget_account(TENANT, account, at(100))
        assert [each.account for each in await lending.allocations(TENANT, "gcp", ())] == [ONE]

    async def test_a_connector_of_another_name_knows_whose_its_accounts_are(self, lending: AllocationStore) -> None:
        await make_ready(lending, *BOTH)
        await take(lending, "attempt-1")
        assert [each.account for each in await lending.allocations(TENANT, "renamed", [ONE])] == [ONE]
        assert await lending.allocations(TENANT, "renamed", []) == []


class AllocationContract(LendingContract):
    """Of a ledger."""

    @pytest.fixture
    async def lending(self, store: Ledger) -> AllocationStore:
        await attempts(store, "1", "2", "3")
        return store

    async def test_of_many_at_once_each_gets_another(self, store: Ledger) -> None:
        names = [str(number) for number in range(20)]
        await attempts(store, *names)
        await make_ready(store, *POOL.accounts)
        taken = await asyncio.gather(
            *(store.take_account(TENANT, "gcp", f"attempt-{name}", POOL.accounts, at(70), at(10)) for name in names)
        )
        accounts = [each.account for each in taken if isinstance(each, Taken)]
        assert sorted(accounts) == sorted(POOL.accounts)
        assert len([each for each in taken if isinstance(each, TakenUp)]) == len(names) - POOL.size

    async def test_an_attempt_that_is_over_is_lent_nothing_and_what_it_had_is_told(self, store: Ledger) -> None:
        await attempts(store, "1", "2")
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

    async def test_in_recovery_nothing_that_the_ledger_calls_ready_is_believed(self, store: Ledger) -> None:
        await attempts(store, "1", "2")
        await make_ready(store, *BOTH)
        await take(store, "attempt-1")
        await store.enter_recovery(TENANT, "recovery-1", Evidence("witness", "behind", "note", 9, 0), at(20))
        await store.burn_open(TENANT, at(20))
        assert [each.account for each in await store.allocations(TENANT, "gcp", ())] == [ONE]  # that is still lent
