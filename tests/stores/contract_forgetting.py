"""What every LeaseStore lets two people forget, and what it does not. An adapter gives the ``store`` fixture.

Times are seconds after T0. The lease lives until 61 at the latest; a day later is 86461.
"""

from __future__ import annotations

from datetime import timedelta

from broker.audit.event import EventType
from broker.errors import Denied, NotFound, Reason, WrongState
from broker.lease.machine import State
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause, Forgetting, Selector
from tests.stores.contract import grant, records, refused
from tests.stores.make import ALICE, TENANT, at, new_task

ADA, BEA, CYD = (f"https://idp.test#{name}" for name in ("ada", "bea", "cyd"))
DAY_AFTER = 86_461


def said(by: str = ADA, *, now: float = DAY_AFTER, lease: str = "lease-1") -> Forgetting:
    return Forgetting(TENANT, lease, by, "the cluster was torn down", at(now))


async def stuck(store: LeaseStore, *, alarm: bool = True) -> None:
    """A lease whose upstream is gone: its revocation failed, and is tried again much later."""
    await store.start_task(new_task())
    await grant(store)
    await store.end_leases(Selector(TENANT, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(3))
    (attempt,) = await store.claim_due("bao", at(4), 10, timedelta(seconds=30))
    assert await store.record_revocation(attempt, None, at(5), at(100_000), "no such host", alarm)


class ForgettingContract:
    """Two people, and time."""

    async def test_two_people_end_what_nobody_can(self, store: LeaseStore) -> None:
        await stuck(store)
        assert await store.forget_lease(said(ADA)) == (False, ADA)
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.REVOKING
        assert await store.forget_lease(said(BEA)) == (True, ADA)
        lease = await store.get_lease(TENANT, "lease-1", ALICE)
        assert (lease.state, lease.cause, lease.next_due) == (State.EXPIRED, EndCause.RELEASED, None)
        assert await store.claim_due("bao", at(200_000), 10, timedelta(seconds=30)) == []
        begun, forgotten = (await records(store))[-2:]
        assert (begun.type, begun.actor) == (EventType.LEASE_FORGET_BEGUN, ADA)
        assert (forgotten.type, forgotten.actor) == (EventType.LEASE_FORGOTTEN, BEA)
        assert (forgotten.data["first_by"], forgotten.data["error"]) == (ADA, "no such host")

    async def test_one_person_is_not_two(self, store: LeaseStore) -> None:
        await stuck(store)
        await store.forget_lease(said(ADA))
        await refused(store, store.forget_lease(said(ADA)), Denied, Reason.SECOND_PERSON_REQUIRED)
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.REVOKING

    async def test_the_second_again_is_told_the_same_and_a_third_that_it_is_over(self, store: LeaseStore) -> None:
        await stuck(store)
        await store.forget_lease(said(ADA))
        await store.forget_lease(said(BEA))
        assert await store.forget_lease(said(BEA)) == (True, ADA)
        for other in (ADA, CYD):
            await refused(store, store.forget_lease(said(other)), WrongState, Reason.LEASE_ENDED)

    async def test_not_before_a_day_after_the_upstream_must_have_ended_it(self, store: LeaseStore) -> None:
        await stuck(store)
        early = store.forget_lease(said(now=DAY_AFTER - 0.001))
        error = await refused(store, early, WrongState, Reason.LEASE_NOT_FORGETTABLE)
        assert error.hint == "Not before 2026-01-02T00:01:01+00:00."
        await store.forget_lease(said(ADA))
        second = store.forget_lease(said(BEA, now=DAY_AFTER - 0.001))  # nor the second
        await refused(store, second, WrongState, Reason.LEASE_NOT_FORGETTABLE)

    async def test_what_is_not_stuck_is_waited_for(self, store: LeaseStore) -> None:
        await stuck(store, alarm=False)
        await refused(store, store.forget_lease(said()), WrongState, Reason.LEASE_NOT_FORGETTABLE)

    async def test_what_lives_or_is_over_or_is_not_there(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        await refused(store, store.forget_lease(said()), WrongState, Reason.LEASE_NOT_FORGETTABLE)
        unknown = said(lease="lease-9")
        await refused(store, store.forget_lease(unknown), NotFound, Reason.LEASE_NOT_FOUND)
        other = said()._replace(tenant="other")
        await refused(store, store.forget_lease(other), NotFound, Reason.LEASE_NOT_FOUND)

    async def test_what_the_revoker_has_in_hand_meanwhile_changes_nothing(self, store: LeaseStore) -> None:
        await stuck(store)
        (held,) = await store.claim_due("bao", at(100_001), 10, timedelta(seconds=30))
        await store.forget_lease(said(ADA, now=100_002))
        await store.forget_lease(said(BEA, now=100_002))
        assert not await store.record_revocation(held, None, at(100_003), at(100_009), "no such host", True)
        assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.EXPIRED
