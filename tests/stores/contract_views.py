"""What people see of everybody's, by any store."""

from __future__ import annotations

import json
from typing import Any

from broker.errors import InvalidInput, NotFound, Reason
from broker.ports.leases import EndCause, Selector
from broker.ports.ledger import Ledger
from broker.ports.tasks import TaskState
from broker.ports.views import Alive, LeaseSearch, TaskSearch
from tests.stores.contract import grant, refused, revoke_all
from tests.stores.make import ALICE, BOB, TASK, TENANT, at, new_task


class ViewContract:
    """Mixed into a class whose ``store`` fixture gives an empty ledger."""

    async def test_one_lease_whoever_holds_it(self, store: Ledger) -> None:
        await store.start_task(new_task())
        await grant(store, "bobs", holder=BOB)
        assert (await store.lease(TENANT, "lease-bobs")).holder == BOB
        await refused(store, store.lease(TENANT, "nothing"), NotFound, Reason.LEASE_NOT_FOUND)
        await refused(store, store.lease("other", "lease-bobs"), NotFound, Reason.LEASE_NOT_FOUND)

    async def test_pages_of_everybodys_leases(self, store: Ledger) -> None:
        await store.start_task(new_task())
        for number in range(7):
            await grant(store, f"{number}", now=1, holder=(ALICE, BOB)[number % 2])  # all at one moment
        pages: list[list[str]] = []
        after = ""
        while page := await store.search_leases(LeaseSearch(TENANT), after, 3):
            pages.append([lease.id for lease in page])
            after = page[-1].id
        assert pages == [["lease-6", "lease-5", "lease-4"], ["lease-3", "lease-2", "lease-1"], ["lease-0"]]
        assert await store.search_leases(LeaseSearch("other"), "", 3) == []
        for token in ("nothing", TASK):
            call = store.search_leases(LeaseSearch(TENANT), token, 3)
            await refused(store, call, InvalidInput, Reason.PAGE_TOKEN_INVALID)

    async def test_filters_of_everybodys_leases(self, store: Ledger) -> None:
        await store.start_task(new_task())
        await store.start_task(new_task("task-2"))
        await grant(store, "a")
        await grant(store, "b", task="task-2")
        await grant(store, "c", task="task-2", now=2, holder=BOB)
        await store.end_leases(Selector(TENANT, lease_id="lease-b"), EndCause.REVOKED_BY_OPERATOR, "sam", at(5))
        await revoke_all(store, now=5)

        async def ids(**narrowed: Any) -> str:
            found = await store.search_leases(LeaseSearch(TENANT, **narrowed), "", 10)
            return "".join(lease.id.removeprefix("lease-") for lease in found)

        assert await ids() == "cba"
        assert await ids(living_only=True) == "ca"
        assert await ids(task_id="task-2") == "cb"
        assert await ids(task_id="task-2", living_only=True) == "c"
        assert await ids(holder=ALICE) == "ba"
        assert await ids(holder=ALICE, living_only=True) == "a"
        assert await ids(holder=BOB, task_id=TASK) == ""
        assert await ids(template="orders-readonly") == "cba"
        assert await ids(template="another") == ""

    async def test_everybodys_tasks(self, store: Ledger) -> None:
        for number in range(3):
            await store.start_task(new_task(f"task-{number}"))
        await store.start_task(new_task("bobs", creator=BOB, participants=frozenset({BOB})))
        await store.end_task(TENANT, "task-1", TaskState.COMPLETED, EndCause.COMPLETED_BY_OPERATOR, "sam", at(5))

        async def ids(after: str = "", limit: int = 10, **narrowed: Any) -> list[str]:
            return [task.id for task in await store.search_tasks(TaskSearch(TENANT, **narrowed), after, limit)]

        assert await ids() == ["bobs", "task-2", "task-1", "task-0"]
        assert await ids(limit=2) == ["bobs", "task-2"]
        assert await ids("task-2", 2) == ["task-1", "task-0"]
        assert await ids(open_only=True) == ["bobs", "task-2", "task-0"]
        assert await ids(agent=ALICE, open_only=True) == ["task-2", "task-0"]
        assert await ids(agent=BOB) == ["bobs", "task-2", "task-1", "task-0"]  # a participant of Alice's
        assert await ids(agent="nobody") == []
        await refused(
            store, store.search_tasks(TaskSearch(TENANT), "lease-1", 3), InvalidInput, Reason.PAGE_TOKEN_INVALID
        )

    async def test_who_has_something_alive(self, store: Ledger) -> None:
        assert await store.alive(TENANT) == {}
        await store.start_task(new_task())
        await grant(store, "a")
        await grant(store, "b", holder=BOB)
        await grant(store, "c", holder=BOB)
        assert await store.alive(TENANT) == {ALICE: Alive(1, 1), BOB: Alive(2, 0)}
        assert await store.alive("other") == {}

    async def test_what_was_said_of_an_end_is_told(self, store: Ledger) -> None:
        await store.start_task(new_task())
        await grant(store, "a")
        said = {"request_id": "q1", "reason": "it scans"}
        await store.end_leases(Selector(TENANT, lease_id="lease-a"), EndCause.REVOKED_BY_OPERATOR, "sam", at(5), said)
        await store.end_task(
            TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED_BY_OPERATOR, "sam", at(6), None, said
        )
        told = [record for record in await _records(store) if record["type"] in ("lease.revoking", "task.completed")]
        assert [record["actor"] for record in told] == ["sam", "sam"]
        assert [record["data"]["cause"] for record in told] == ["REVOKED_BY_OPERATOR", "COMPLETED_BY_OPERATOR"]
        assert all(said.items() <= record["data"].items() for record in told)


async def _records(store: Ledger) -> list[dict[str, Any]]:
    return [json.loads(body) for body in await store.audit_since(0, 1000)]
