"""Deleting what has been over for long enough: a task with everything that hangs on it, or nothing of it.

Never what may be alive: each row is looked at again inside the transaction that deletes it, and one that fails its MAC
keeps its whole task, because nobody knows what it was. The audit trail stays; it says how much was deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.lease.machine import TERMINAL, State
from broker.stores.rows import AttemptRow, LeaseRow, read_attempt, read_lease, read_task
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

# Tasks looked at in one read, and rows after which one transaction has deleted enough: it holds up all others.
PORTION = 500
ROWS = 1_000

# In this order: what refers to something goes before it. A table that refers to one of these must be here, too.
DELETES = (
    "delete_origins_of_task",
    "delete_forgettings_of_task",
    "delete_reviews_of_task",
    "delete_break_glass_uses_of_task",
    "delete_attempts_of_task",
    "delete_delegations_of_task",
    "delete_votes_of_task",
    "delete_access_events_of_task",
    "delete_access_requests_of_task",
    "delete_plans_of_task",
    "delete_leases_of_task",
    "delete_claimed_texts",
    "delete_report_of_task",
    "delete_task",
)


class Key(NamedTuple):
    """Which task."""

    tenant: str
    id: str


class Found(NamedTuple):
    """Tasks to delete, and where to go on looking; None: there is nothing older left."""

    tasks: list[Key]
    after: int | None


class Deleted(NamedTuple):
    """What one transaction deleted, and how many of the tasks it was given it dealt with."""

    tasks: int
    dealt_with: int


def find(view: View, before: datetime, after: int) -> Found:
    """Tasks that have been over since ``before``, with everything of theirs, made after the row ``after``."""
    before_ms = to_ms(before)
    rows = view.all("tasks_after", (after, PORTION))
    old = [row for row in rows if row[3] < before_ms]
    over = [Key(row[1], row[2]) for row in old if row[4] is not None and row[4] < before_ms]
    tasks = [key for key in over if not view.row("task_not_over", {**_named(key), "before": before_ms})[0]]
    return Found(tasks, old[-1][0] if old and len(old) == PORTION else None)


def delete(tx: Transaction, tasks: Iterable[Key], before: datetime, now: datetime) -> Deleted:
    """Delete of ``tasks`` as many as one transaction should. What is alive again, or not ours, stays."""
    counts: dict[str, int] = {}
    rows = dealt_with = 0
    for key in tasks:
        dealt_with += 1
        if _may_go(tx, key, to_ms(before)):
            rows += sum(tx.run(query, _named(key)) for query in DELETES)
            counts[key.tenant] = counts.get(key.tenant, 0) + 1
        if rows >= ROWS:
            break
    if counts:
        tx.images.forget()  # there are none of what is over; but what writes rows elsewhere forgets
    for tenant, count in sorted(counts.items()):
        data = {"tasks": count, "before_ms": to_ms(before)}
        event = AuditEvent(EventType.RETENTION_DELETED, BROKER, Vouch.BROKER, tenant=tenant, data=data)
        tx.audit(event, to_ms(now))
    return Deleted(sum(counts.values()), dealt_with)


def _named(key: Key) -> dict[str, str]:
    return {"tenant": key.tenant, "task_id": key.id}


def _may_go(tx: Transaction, key: Key, before_ms: int) -> bool:
    named = _named(key)
    task = tx.one("task_by_id", named)
    if task is None or tx.row("task_not_over", {**named, "before": before_ms})[0]:
        return False
    rows: list[LeaseRow | AttemptRow] = [read_lease(raw, tx.seal) for raw in tx.all("leases_of_task", named)]
    rows += [read_attempt(raw, tx.seal) for raw in tx.all("attempts_of_task", named)]
    return read_task(task, tx.seal).trusted and all(row.trusted and State(row.state) in TERMINAL for row in rows)
