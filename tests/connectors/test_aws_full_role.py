"""A role that is full, with the real ledger and revoker: whose leases end with whose, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit.record import decode
from broker.lease.machine import State
from broker.ports.leases import EndCause, Selector
from broker.revocation.revoker import Revoker
from broker.stores.sqlite import SqliteStore
from tests.clock import CountingRng
from tests.connectors.iam_fake import ROLE_ID, World, client_error
from tests.connectors.test_aws_revocation import BOUND, Denying
from tests.patience import eventually
from tests.stores.contract import activate
from tests.stores.make import ALICE, TENANT, Keys, at, intent, new_task

ROLE = "arn:aws:iam::123456789012:role/orders-reader"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), writer="w1")
    yield made
    await made.close()


async def issued(store: SqliteStore, name: str, upstream: str) -> None:
    opened = await store.open_intent(intent(name, ttl=500))
    attempt = opened.attempt
    handle = {
        "attempt": attempt.id,
        "role_arn": ROLE,
        "holder": ALICE,
        "revocable": True,
        "role_id": ROLE_ID,
        "seconds": 900,
    }
    await store.checkpoint(TENANT, attempt.id, attempt.epoch, handle, upstream, at(2))
    lease = await activate(store, opened, now=2)
    await store.confirm_delivery(TENANT, lease.id, ALICE, attempt.id, at(3))


async def state(store: SqliteStore, name: str) -> tuple[State, EndCause | None]:
    lease = await store.get_lease(TENANT, f"lease-{name}", ALICE)
    return lease.state, lease.cause


async def test_the_leases_that_die_with_it_are_ended_told_and_proven_dead(store: SqliteStore) -> None:
    await store.start_task(new_task())
    for name in ("a", "b", "c"):
        await issued(store, name, f"{ROLE_ID}:attempt-{name}")
    await issued(store, "other", "AROAANOTHERROLE000000:attempt-other")
    connector = Denying(World())
    connector.clock.present = at(10)
    connector.iam.fates = [client_error("LimitExceeded", 409)]
    revoker = Revoker(store, {"bao": connector}.get, connector.clock, CountingRng(), workers=2)

    async def ended() -> bool:
        states = [await state(store, name) for name in ("b", "c")]
        return all(each == (State.REVOKING, EndCause.ENDED_TOGETHER) for each in states)

    await store.end_leases(Selector(TENANT, lease_id="lease-a"), EndCause.RELEASED, ALICE, at(10))
    revoker.kick("bao")
    await eventually(ended)
    assert await state(store, "a") == (State.REVOKING, EndCause.RELEASED)
    assert await state(store, "other") == (State.ACTIVE, None)
    told = [decode(body) for body in await store.audit_since(0, 1_000)]
    because = {each.lease_id: each.data.get("because") for each in told if each.data.get("cause") == "ENDED_TOGETHER"}
    assert because == {"lease-b": "attempt-a", "lease-c": "attempt-a"}

    async def waiting() -> bool:
        revoker.kick("bao")
        living = [each for name in ("a", "b", "c") for each in await store.living_attempts(TENANT, f"lease-{name}")]
        return all(each.due_at is not None and each.due_at >= at(10) + BOUND for each in living)

    async def revoked() -> bool:
        revoker.kick("bao")
        return all([(await state(store, name))[0] is State.REVOKED for name in ("a", "b", "c")])

    await eventually(waiting)
    assert not await revoked()
    connector.clock.present += BOUND + timedelta(seconds=1)
    await eventually(revoked)
    assert len([each for each in connector.world.policies.values() if "TokenIssueTime" in each]) == 1
    await revoker.close()
    await connector.close()
