"""What every LeaseStore deletes of what is long over, and what it never does. An adapter gives the ``store`` fixture.

Times are seconds after T0: a task is open from 0 to 600; what is asked at 1 lives until 61.
"""

from __future__ import annotations

import pytest

from broker.audit.event import EventType
from broker.errors import NotFound
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause
from broker.ports.tasks import TaskState
from tests.stores.contract import grant, records, revoke_all, types
from tests.stores.make import ALICE, TASK, TENANT, at, filing, intent, new_task, vote

# Long after everything.
LATER = at(10_000)


async def completed(store: LeaseStore, task: str = TASK, *, now: float = 100) -> None:
    await store.end_task(TENANT, task, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(now))


async def over(store: LeaseStore, task: str = TASK, name: str = "1") -> None:
    """A task with one lease, completed at 100, the credential proved dead at 101."""
    await store.start_task(new_task(task))
    await grant(store, name, task=task)
    await completed(store, task)
    await revoke_all(store, now=101)


class RetentionContract:
    """Deleting what is over."""

    async def test_a_task_goes_with_everything_of_it_and_its_ids_are_free(self, store: LeaseStore) -> None:
        await over(store)
        before = await records(store)
        assert await store.delete_ended(at(102), LATER) == 1
        with pytest.raises(NotFound):
            await store.get_task(TENANT, TASK)
        with pytest.raises(NotFound):
            await store.get_lease(TENANT, "lease-1", ALICE)
        (told,) = (await records(store))[len(before) :]  # the trail is as long as it was, and says so
        assert (told.type, told.data["tasks"]) == (EventType.RETENTION_DELETED, 1)
        # The same ids again, with other content: something new.
        await store.start_task(new_task(request_digest="something else"))
        assert (await store.open_intent(intent(request_digest="something else"))).attempt.lease_id == "lease-1"

    async def test_what_is_younger_stays(self, store: LeaseStore) -> None:
        await over(store)
        assert await store.delete_ended(at(101), LATER) == 0  # the credential died at 101
        assert (await store.get_task(TENANT, TASK)).state is TaskState.COMPLETED
        assert EventType.RETENTION_DELETED not in await types(store)

    async def test_what_may_be_alive_stays_however_old(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        await grant(store)
        assert await store.delete_ended(LATER, LATER) == 0  # open
        await completed(store)
        assert await store.delete_ended(LATER, LATER) == 0  # nobody has proved that the credential is dead
        await revoke_all(store, now=101)
        assert await store.delete_ended(LATER, LATER) == 1

    async def test_what_people_were_asked_goes_too(self, store: LeaseStore) -> None:
        await store.start_task(new_task())
        filed = await store.open_access_request(filing())
        await store.vote(TENANT, filed.id, filed.digest, vote(yes=False), lambda _: False)
        await completed(store)
        assert await store.delete_ended(LATER, LATER) == 1
        assert await store.access_request_events(TENANT, ALICE, 0, 10) == []

    async def test_one_that_stays_keeps_none_of_the_others(self, store: LeaseStore) -> None:
        await over(store, "a", "1")
        await store.start_task(new_task("b"))
        await over(store, "c", "3")
        assert await store.delete_ended(LATER, LATER) == 2
        assert (await store.get_task(TENANT, "b")).id == "b"
        assert await store.delete_ended(LATER, LATER) == 0
