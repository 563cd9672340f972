"""A ledger full of living leases: granted and confirmed by the ledger's own operations, many to a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.policy.decision import Decision, Effect
from broker.ports import Intent, NewTask
from broker.scope.model import AccessClass, Scope
from broker.scope.request import AccessRequest
from broker.stores import grant_ops
from broker.stores.sqlite import SqliteStore
from broker.stores.transaction import Transaction

TENANT = "bench"
HOLDERS = 1_000
HELD_BY = 32  # of them
PORTION = 500  # leases to a transaction
LEASES_OF_TASK = 1_000
_CALL = timedelta(seconds=10)
_DECISION = Decision(Effect.ALLOW, ("bench-read",), ("to be measured",), (), "p" * 64)


async def fill(
    store: SqliteStore, connectors: Sequence[str], count: int, now: datetime, due: Sequence[datetime]
) -> None:
    """``count`` leases, ACTIVE and delivered, over ``connectors`` and ``due`` times in turn."""
    for start in range(0, count, LEASES_OF_TASK):
        await store.start_task(_task(start // LEASES_OF_TASK, now, max(due)))
    for start in range(0, count, PORTION):
        numbers = range(start, min(start + PORTION, count))

        def granted(tx: Transaction, numbers: range = numbers) -> None:
            for number in numbers:
                connector, end = connectors[number % len(connectors)], due[number % len(due)]
                _grant(tx, _intent(number, connector, now, end))

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


def _intent(number: int, connector: str, now: datetime, end: datetime) -> Intent:
    task = f"task-{number // LEASES_OF_TASK:026d}"
    request = AccessRequest(
        request_id=f"request-{number}",
        template="bench-000",
        task_id=task,
        account="shop",
        environment="dev",
        resource="dataset-000",
        ttl=end - now,
        step="analyse",
    )
    scope = Scope(
        template="bench-000",
        template_digest="t" * 64,
        connector=connector,
        account="shop",
        environment="dev",
        resource="dataset-000",
        access=AccessClass.READ,
        actions=("select",),
        parameters={"day": "2026-02-28", "shard": str(number % 64)},
        ttl=end - now,
        grant={"role": "role-000"},
    )
    attempt = f"jb-bench-{number:020d}"
    return Intent(
        tenant=TENANT,
        lease_id=f"lease-{number:020d}",
        attempt_id=attempt,
        svid_serial="5e71a1",
        holder=_holder(number),
        entry="agent",
        owner="https://id.bench.broker.internal#person-00",
        request=request,
        request_digest="d" * 64,
        scope=scope,
        contract_class="IMMEDIATE",
        decision=_DECISION,
        handle={"attempt": attempt, "mount": "none", "role": "role-000", "holder": _holder(number)},
        now=now,
        issue_deadline=now + _CALL,
        expires_at=end,
        max_live_leases=10_000_000,
        audit={"reason": "the daily report"},
    )


def _grant(tx: Transaction, intent: Intent) -> None:
    opened = grant_ops.open_intent(tx, intent)
    attempt, now = opened.attempt, intent.now
    grant_ops.activate(
        tx, TENANT, attempt.id, attempt.epoch, intent.expires_at, intent.expires_at, {"username": attempt.id}, now
    )
    grant_ops.confirm_delivery(tx, TENANT, opened.lease_id, intent.holder, attempt.id, now, "")
