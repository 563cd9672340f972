"""What a holder has alive, and that an intent stands only on what its decision saw. Part of the contract."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.errors import NotReady, Reason
from broker.lease.machine import Event
from broker.ports.intents import Holdings, Intent, Seen
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause, Selector
from broker.ports.tasks import TaskState
from broker.scope.model import AccessClass
from tests.stores.make import ALICE, BOB, TASK, TENANT, at, intent, new_task

NOTHING = Holdings(frozenset(), 0)
READING = frozenset({"orders-readonly", "read:dev"})
WRITING = frozenset({"orders-readwrite", "write:dev", "change:dev"})


def writing(name: str, **changes: object) -> Intent:
    """An intent to write."""
    made = intent(name, **changes)  # type: ignore[arg-type]
    return replace(made, scope=replace(made.scope, template="orders-readwrite", access=AccessClass.WRITE))


async def open_leases(store: LeaseStore) -> int:
    return len(await store.task_leases(TENANT, TASK))


class HoldingContract:
    """Holdings."""

    async def test_what_is_alive_is_held_from_its_intent_on(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        assert await store.holdings(TENANT, ALICE, "") == NOTHING
        await store.open_intent(intent("1"))
        await store.open_intent(intent("2"))
        await store.open_intent(writing("3"))
        assert await store.holdings(TENANT, ALICE, "") == Holdings(READING | WRITING, 3)
        assert await store.holdings(TENANT, BOB, "") == NOTHING
        assert await store.holdings("other", ALICE, "") == NOTHING

    async def test_what_is_being_revoked_may_be_alive_and_is_held(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        opened = await store.open_intent(intent("1"))
        await store.end_leases(Selector(TENANT, lease_id=opened.lease_id), EndCause.RELEASED, ALICE, at(2))
        assert await store.holdings(TENANT, ALICE, "") == Holdings(READING, 1)

    async def test_a_retry_does_not_stand_in_its_own_way(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent("1"))
        assert await store.holdings(TENANT, ALICE, "request-1") == NOTHING
        retry = replace(intent("9", request_id="request-1", now=20), seen=Seen(frozenset(), 0))
        await store.open_intent(retry)
        assert await open_leases(store) == 1

    @pytest.mark.parametrize("seen", [Seen(READING, 1), Seen(READING, None), Seen(None, 1), None])
    async def test_an_intent_stands_on_what_is_still_so(self, store: LeaseStore, seen: Seen | None) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent("1"))
        await store.open_intent(replace(writing("2"), seen=seen))
        assert await open_leases(store) == 2

    @pytest.mark.parametrize(
        "seen", [Seen(frozenset(), None), Seen(None, 0), Seen(READING | WRITING, 1), Seen(READING, 2)]
    )
    async def test_an_intent_does_not_stand_on_what_has_moved(self, store: LeaseStore, seen: Seen) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent("1"))
        for call in (store.check_intent, store.open_intent):
            with pytest.raises(NotReady) as caught:
                await call(replace(writing("2"), seen=seen))
            assert caught.value.reason is Reason.SITUATION_MOVED
        assert await open_leases(store) == 1

    async def test_more_of_the_same_moves_the_count_and_not_the_grants(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.open_intent(intent("1"))
        await store.open_intent(intent("2"))
        await store.open_intent(replace(writing("3"), seen=Seen(READING, None)))
        with pytest.raises(NotReady):
            await store.open_intent(replace(writing("4"), seen=Seen(None, 1)))

    async def test_what_has_ended_moves_it_too(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await store.start_task(new_task("task-2"))
        opened = await store.open_intent(intent("1", task="task-2"))
        await store.end_task(TENANT, "task-2", TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(2))
        assert (await store.holdings(TENANT, ALICE, "")).count == 1
        await store.end_attempt(TENANT, opened.attempt.id, Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, at(3), "proven")
        with pytest.raises(NotReady):
            await store.open_intent(replace(intent("2", now=3), seen=Seen(READING, 1)))
        await store.open_intent(replace(intent("2", now=3), seen=Seen(frozenset(), 0)))
