"""What every LeaseStore knows about ids that are somebody else's; an adapter gives the ``store`` fixture."""

from __future__ import annotations

import pytest

from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause
from broker.ports.tasks import TaskState
from tests.stores.contract import grant
from tests.stores.make import ALICE, BOB, TASK, TENANT, at, new_task

EVE = "spiffe://example.org/agent/eve"


class ForeignContract:
    """Ids of somebody else's."""

    @pytest.mark.parametrize(
        ("who", "task_id", "lease_id", "theirs"),
        [
            (ALICE, TASK, "", False),
            (BOB, TASK, "", False),  # a participant
            (EVE, TASK, "", True),
            (ALICE, "", "lease-1", False),
            (BOB, "", "lease-1", True),  # on the same task, and not its holder
            (EVE, "", "lease-1", True),
            (EVE, "nothing", "nothing", False),
            (EVE, "", "", False),
            (EVE, "nothing", "lease-1", True),
            (EVE, TASK, "nothing", True),
        ],
    )
    async def test_whose_it_is(self, store: LeaseStore, who: str, task_id: str, lease_id: str, theirs: bool) -> None:
        await store.start_task(new_task())
        await grant(store)
        assert await store.is_someone_elses(TENANT, who, task_id, lease_id) is theirs
        assert await store.is_someone_elses("other", who, task_id, lease_id) is False
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
        assert await store.is_someone_elses(TENANT, who, task_id, lease_id) is theirs
