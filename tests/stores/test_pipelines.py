"""The contract of pipelines on a SQLite file, and what somebody with the file could do to its rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from broker.lease.machine import State
from broker.plan.machine import PlanEvent
from broker.ports.leases import EndCause, Selector
from broker.stores.pipeline_rows import DelegationRow, OriginRow, PlanRow
from broker.stores.seal import RowSeal
from broker.stores.sqlite import SqliteStore
from tests.stores.contract_pipelines import (
    EVERYBODY,
    PipelineStoreContract,
    cited,
    confirmed,
    decide,
    granted,
    hand_on,
    party,
)
from tests.stores.make import ALICE, BOB, TASK, TENANT, Keys, at, intent, new_task
from tests.stores.test_tampering import change, tampered


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
    yield store
    await store.close()


class TestSqlite(PipelineStoreContract):
    """On a SQLite file."""


async def whole(store: SqliteStore) -> None:
    """A confirmed plan, a lease of one of its steps, a part of it handed on and redeemed."""
    await store.start_task(new_task(participants=EVERYBODY))
    plan = await confirmed(store)
    await granted(store, cited(intent(now=3), plan=plan.id))
    made = await store.delegate(hand_on(created_at=at(5)))
    await granted(store, cited(intent("2", now=6, ttl=40, holder=BOB), delegation=made.id))


TABLES = {
    "plans": (PlanRow, "plan_by_id", {"tenant": TENANT, "plan_id": "plan-1"}),
    "delegations": (DelegationRow, "delegation_by_id", {"tenant": TENANT, "delegation_id": "delegation-1"}),
    "lease_origins": (OriginRow, "origin_of_lease", (TENANT, "lease-2")),
}


@pytest.mark.parametrize("table", TABLES)
async def test_every_column_is_under_the_mac(store: SqliteStore, table: str) -> None:
    await whole(store)
    kind, query, parameters = TABLES[table]
    raw = store._readers._own.one(query, parameters)  # type: ignore[arg-type]
    assert raw is not None
    seal = RowSeal(Keys())
    assert len(raw) == len(fields(kind)) + 2
    assert seal.holds(table, raw[:-2], raw[-2], raw[-1])
    for index in range(len(raw) - 2):
        other: Any = (raw[index] or 0) + 1 if isinstance(raw[index], int) else f"{raw[index]}x"
        changed = (*raw[:index], other, *raw[index + 1 : -2])
        assert not seal.holds(table, changed, raw[-2], raw[-1]), index


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE plans SET deadline = 99999999999999",
        "UPDATE plans SET actions = replace(actions, '\"orders\"', '\"all\"')",
        "UPDATE plans SET planner_principal = 'somebody'",
        "UPDATE plans SET state = 'CONFIRMED', validator = 'v', validator_principal = 'v', decided_at = 1",
        "UPDATE plans SET text = 'something harmless'",
    ],
)
async def test_a_changed_plan_gives_nothing(store: SqliteStore, sql: str) -> None:
    await store.start_task(new_task(participants=EVERYBODY))
    plan = await confirmed(store)
    await change(store, sql)
    await tampered(store.get_plan(TENANT, plan.id))
    await tampered(store.task_plans(TENANT, TASK))
    await tampered(store.open_intent(cited(intent(now=3), plan=plan.id)))
    await tampered(decide(store, plan, PlanEvent.CONFIRM))
    assert await store.task_leases(TENANT, TASK) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE delegations SET delegate = 'spiffe://example.org/agent/bob', delegate_principal = 'x'",
        "UPDATE delegations SET expires_at = expires_at + 1",
        "UPDATE delegations SET resource = 'all'",
        "UPDATE delegations SET further = 9",
        "UPDATE leases SET resource = 'all' WHERE id = 'lease-1'",
        "UPDATE leases SET expires_at = expires_at + 1000 WHERE id = 'lease-1'",
    ],
)
async def test_a_changed_delegation_or_parent_gives_nothing(store: SqliteStore, sql: str) -> None:
    await store.start_task(new_task(participants=EVERYBODY))
    await granted(store, intent(now=1))
    made = await store.delegate(hand_on())
    await change(store, sql)
    await tampered(store.open_intent(cited(intent("2", now=4, ttl=5, holder=BOB), delegation=made.id)))
    await tampered(store.redeemable(TENANT, made.id, party(BOB), at(4)))


async def test_a_changed_origin_hides_no_lease_from_its_end(store: SqliteStore) -> None:
    await whole(store)
    await change(store, "UPDATE lease_origins SET further = 9 WHERE lease_id = 'lease-2'")
    await tampered(store.get_lease(TENANT, "lease-2", BOB))
    await tampered(store.get_lease(TENANT, "lease-2", ALICE))
    await store.end_leases(Selector(TENANT, lease_id="lease-1"), EndCause.RELEASED, ALICE, at(9))
    (attempt,) = [a for a in await store.claim_due("bao", at(9), 9, at(9) - at(0)) if a.lease_id == "lease-2"]
    assert (attempt.state, attempt.cause) == (State.REVOKING, EndCause.PARENT_ENDED)


async def test_the_parent_row_of_a_quarantined_attempt_takes_its_parts_along(store: SqliteStore) -> None:
    await whole(store)
    await change(store, "UPDATE attempts SET expires_at = expires_at + 1000, due_at = 1 WHERE id = 'attempt-1'")
    await store.claim_due("bao", at(9), 9, at(9) - at(0))
    assert (await store.get_lease(TENANT, "lease-2", BOB)).cause is EndCause.PARENT_ENDED


async def test_the_database_itself_keeps_the_roles_apart(store: SqliteStore) -> None:
    await store.start_task(new_task(participants=EVERYBODY))
    await confirmed(store)
    with pytest.raises(Exception, match="CHECK constraint failed"):
        await change(store, "UPDATE plans SET validator_principal = planner_principal")
