"""What every LeaseStore does about quotas of living leases; an adapter gives the ``store`` fixture."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker.errors import Exhausted, Reason
from broker.policy.quotas import Per
from broker.ports.intents import Intent, LiveQuota, Opened
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause, Selector
from tests.stores.contract import activate, grant, refused, revoke_all
from tests.stores.make import ALICE, BOB, TENANT, at, intent, new_task

KINDS = frozenset(Per)


def of_alice_and_bob(holder: str) -> bool:
    return holder in (ALICE, BOB)


def quota(per: Per, subject: str, limit: int) -> LiveQuota:
    members = of_alice_and_bob if per in (Per.ENTRY, Per.OWNER) else None
    return LiveQuota("the-quota", per, subject, limit, f"shown {subject}", members)


# What the leases of ``tests/stores/make.py`` are counted by: Alice's and Bob's, on one task, template and connector.
SUBJECTS = [
    (Per.AGENT, ALICE),
    (Per.ENTRY, "both"),
    (Per.OWNER, "https://idp ada"),
    (Per.TASK, "task-1"),
    (Per.TEMPLATE, "orders-readonly"),
    (Per.CONNECTOR, "bao"),
]


class QuotaContract:
    """Quotas."""

    @pytest.fixture(params=[KINDS, frozenset()], ids=["indexed", "not-indexed"])
    async def ready(self, request: pytest.FixtureRequest, store: LeaseStore) -> LeaseStore:
        """The index changes how fast quotas are counted, and nothing else."""
        await store.start_task(new_task())
        await store.index_quotas(request.param)
        await store.index_quotas(request.param)
        return store

    @pytest.mark.parametrize(("per", "subject"), SUBJECTS)
    async def test_as_many_as_the_quota_and_not_one_more(self, ready: LeaseStore, per: Per, subject: str) -> None:
        limit = (quota(per, subject, 2),)
        await grant(ready, "a", quotas=limit)
        await ready.open_intent(intent("b", quotas=limit))  # ISSUING: it may be alive
        third = intent("c", now=6, quotas=limit)
        error = await refused(ready, ready.open_intent(third), Exhausted, Reason.QUOTA_LIVE_LEASES)
        await refused(ready, ready.check_intent(third), Exhausted, Reason.QUOTA_LIVE_LEASES)
        assert error.metadata == {
            "quota": "the-quota",
            "per": per.value,
            "subject": f"shown {subject}",
            "limit": "2",
        }
        assert error.retry_after == 55  # both were asked for at 1 and live for 60: 61 - 6
        await ready.end_leases(Selector(TENANT, lease_id="lease-a"), EndCause.RELEASED, ALICE, at(7))
        again = replace(third, now=at(8))
        await refused(ready, ready.open_intent(again), Exhausted, Reason.QUOTA_LIVE_LEASES)  # still being revoked
        await revoke_all(ready, now=9)
        assert (await ready.open_intent(replace(third, now=at(10)))).lease_id == "lease-c"

    @pytest.mark.parametrize(
        ("per", "subject"),
        [(Per.AGENT, BOB), (Per.TASK, "task-2"), (Per.TEMPLATE, "other"), (Per.CONNECTOR, "aws")],
    )
    async def test_what_is_anothers_does_not_count(self, ready: LeaseStore, per: Per, subject: str) -> None:
        await grant(ready, "a")
        assert (await ready.open_intent(intent("b", quotas=(quota(per, subject, 1),)))).lease_id == "lease-b"

    async def test_all_members_count_together(self, ready: LeaseStore) -> None:
        await grant(ready, "a")
        await grant(ready, "b", holder=BOB)
        third = intent("c", quotas=(quota(Per.ENTRY, "both", 2),))
        await refused(ready, ready.open_intent(third), Exhausted, Reason.QUOTA_LIVE_LEASES)

    async def test_another_tenants_leases_do_not_count(self, ready: LeaseStore) -> None:
        await ready.start_task(new_task(tenant="other"))
        await grant(ready, "a", tenant="other")
        for number, (per, subject) in enumerate(SUBJECTS):
            limit = (quota(per, subject, number + 1),)
            await ready.open_intent(intent(f"b{number}", quotas=limit))

    async def test_each_quota_is_looked_at(self, ready: LeaseStore) -> None:
        await grant(ready, "a")
        wide, narrow = quota(Per.TASK, "task-1", 100), quota(Per.CONNECTOR, "bao", 1)
        for quotas in ((wide, narrow), (narrow, wide)):
            await refused(ready, ready.open_intent(intent("b", quotas=quotas)), Exhausted, Reason.QUOTA_LIVE_LEASES)

    async def test_a_retry_of_a_living_lease_takes_no_further_place(self, ready: LeaseStore) -> None:
        limit = (quota(Per.CONNECTOR, "bao", 1),)
        await grant(ready, "a", quotas=limit)
        opened = await ready.open_intent(intent("b", now=5, request_id="request-a", quotas=limit))
        assert opened.lease_id == "lease-a"
        # Two attempts that may be alive, one lease: a quota of two has room.
        await ready.open_intent(intent("c", now=6, quotas=(quota(Per.CONNECTOR, "bao", 2),)))

    @pytest.mark.parametrize(("per", "subject"), SUBJECTS)
    async def test_thirty_two_at_once_never_pass_the_quota(self, ready: LeaseStore, per: Per, subject: str) -> None:
        limit = (quota(per, subject, 5),)
        calls = [ready.open_intent(intent(f"{n}", quotas=limit)) for n in range(32)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        opened = [each for each in outcomes if isinstance(each, Opened)]
        assert len(opened) == 5
        assert {type(each) for each in outcomes} == {Opened, Exhausted}
        for each in opened:
            await activate(ready, each, now=2)

    async def test_the_agents_own_quota_tells_when_to_try_again(self, ready: LeaseStore) -> None:
        await grant(ready, "a", max_live_leases=1)
        asked: Intent = intent("b", now=21, max_live_leases=1)
        error = await refused(ready, ready.open_intent(asked), Exhausted, Reason.QUOTA_LIVE_LEASES)
        assert error.retry_after == 40  # 61 - 21

    async def test_the_quota_of_open_tasks_tells_when_to_try_again(self, ready: LeaseStore) -> None:
        one_more = ready.start_task(new_task("task-2", max_open=1, created_at=at(100)))
        error = await refused(ready, one_more, Exhausted, Reason.QUOTA_OPEN_TASKS)
        assert error.retry_after == 500  # the open one ends at 600
