"""A ledger full of living leases: the rows that granting and confirming would have left, sealed by the ledger itself.

Only rows: who measures how much is ended, started with or kept needs no audit records of how it came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.lease.machine import State
from broker.ports.tasks import NewTask
from broker.scope.canonical import canonical_json
from broker.stores.rows import AttemptRow, LeaseRow
from broker.stores.sqlite import SqliteStore
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction

TENANT = "bench"
HOLDERS = 1_000
HELD_BY = 32  # of them
PORTION = 1_000  # leases to a transaction
LEASES_OF_TASK = 1_000
_CALL_MS = 10_000


async def fill(
    store: SqliteStore, connectors: Sequence[str], count: int, now: datetime, due: Sequence[datetime]
) -> None:
    """``count`` leases, ACTIVE and delivered, over ``connectors`` and ``due`` times in turn."""
    for start in range(0, count, LEASES_OF_TASK):
        await store.start_task(_task(start // LEASES_OF_TASK, now, max(due)))
    ends = [to_ms(each) for each in due]
    for start in range(0, count, PORTION):
        numbers = range(start, min(start + PORTION, count))

        def granted(tx: Transaction, numbers: range = numbers) -> None:
            for number in numbers:
                lease = _lease(number, connectors[number % len(connectors)], to_ms(now), ends[number % len(ends)])
                tx.insert_lease(lease)
                tx.insert_attempt(_attempt(lease))

        await store._writer.submit(granted)


def _task(number: int, now: datetime, last: datetime) -> NewTask:
    creator = _holder(number * LEASES_OF_TASK)
    return NewTask(
        tenant=TENANT,
        id=f"task-{number:026d}",
        request_id=f"start-{number}",
        request_digest="d" * 64,
        creator=creator,
        participants=frozenset(_holder(n) for n in range(HELD_BY)),
        purpose="to be measured",
        ticket="OPS-1234",
        sponsor="",
        created_at=now,
        deadline=last + timedelta(hours=12),
        max_open=1_000_000,
    )


def _holder(number: int) -> str:
    """Of the last agents of the deploy set (``deploy.py``), which the generators do not use."""
    return f"spiffe://bench.broker.internal/agent/number-{HOLDERS - 1 - number % HELD_BY:04}"


def _lease(number: int, connector: str, now_ms: int, end_ms: int) -> LeaseRow:
    return LeaseRow(
        tenant=TENANT,
        id=f"lease-{number:020d}",
        task_id=f"task-{number // LEASES_OF_TASK:026d}",
        holder=_holder(number),
        request_id=f"request-{number}",
        request_digest="d" * 64,
        template="bench-000",
        template_digest="t" * 64,
        connector=connector,
        account="shop",
        environment="dev",
        resource="dataset-000",
        access="read",
        actions='["select"]',
        parameters=f'{{"day":"2026-02-28","shard":"{number % 64}"}}',
        step="analyse",
        contract_class="IMMEDIATE",
        policies='["bench-read"]',
        policy_digest="p" * 64,
        created_at=now_ms,
        state=State.ACTIVE.value,
        cause=None,
        expires_at=end_ms,
        confirm_by=None,
        confirmed_at=now_ms,
        ended_at=None,
        attempt_id=f"jb-bench-{number:020d}",
        attempts=1,
        failures=0,
        next_due=end_ms,
        svid_serial="5e71a1",
    )


def _attempt(lease: LeaseRow) -> AttemptRow:
    handle = {"attempt": lease.attempt_id, "mount": "none", "role": "role-000", "holder": lease.holder}
    return AttemptRow(
        tenant=TENANT,
        id=lease.attempt_id,
        lease_id=lease.id,
        number=1,
        connector=lease.connector,
        created_at=lease.created_at,
        issue_deadline=lease.created_at + _CALL_MS,
        handle=canonical_json(handle).decode(),
        upstream=lease.attempt_id,
        state=State.ACTIVE.value,
        cause=None,
        activated_at=lease.created_at,
        expires_at=lease.expires_at,
        due_at=lease.expires_at,
        owed_since=None,
        epoch=1,
        failures=0,
        last_error="",
        stuck=0,
    )
