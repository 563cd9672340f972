"""What every LeaseStore knows about ids that are somebody else's; an adapter gives the ``store`` fixture."""

from __future__ import annotations

import pytest

from broker.ports.lease_store import LeaseStore
from broker.ports.leases import EndCause, NamedIds
from broker.ports.ledger import Ledger
from broker.ports.tasks import TaskState
from tests.stores.contract import grant
from tests.stores.contract_pipelines import hand_on, new_plan, party
from tests.stores.make import ALICE, BOB, TASK, TENANT, at, filing, new_task

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
        ids = NamedIds(task_id, lease_id)
        assert await store.is_someone_elses(TENANT, who, ids) is theirs
        assert await store.is_someone_elses("other", who, ids) is False
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
        assert await store.is_someone_elses(TENANT, who, ids) is theirs

    @pytest.mark.parametrize(
        ("name", "id_", "whose"),
        [
            ("access_request_id", "areq-1", {ALICE}),
            ("plan_id", "plan-1", {ALICE, BOB}),  # whoever takes part in its task
            ("delegation_id", "delegation-1", {ALICE, BOB}),  # handed on by the one to the other
        ],
    )
    async def test_whose_is_what_was_asked_planned_or_handed_on(
        self, store: Ledger, name: str, id_: str, whose: set[str]
    ) -> None:
        await store.start_task(new_task())
        await grant(store)
        await store.open_access_request(filing())
        await store.register_plan(new_plan(planner=party(ALICE)))
        await store.delegate(hand_on())
        for who in (ALICE, BOB, EVE):
            assert await store.is_someone_elses(TENANT, who, NamedIds(**{name: id_})) is (who not in whose), who
            assert not await store.is_someone_elses("other", who, NamedIds(**{name: id_}))
            assert not await store.is_someone_elses(TENANT, who, NamedIds(**{name: "nothing"}))
