"""One operation's view of the open write transaction: statements by name, sealed rows, audit events.

Synchronous and short-lived. It runs on the writer alone; what it reads includes what earlier
operations of the same batch wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from broker.audit.event import AuditEvent
from broker.errors import BrokerError
from broker.lease.machine import State
from broker.ports.suspensions import Lifting
from broker.ports.tasks import TaskState
from broker.stores.database import GARBLED, Connection, Dialect
from broker.stores.images import Images, Key, keep
from broker.stores.queries import SQL
from broker.stores.rows import (
    ATTEMPT_ACTIVATED,
    ATTEMPT_DUE,
    ATTEMPT_FIXED,
    ATTEMPT_STATE,
    LEASE_ENDED_AT,
    LEASE_FIXED,
    TASK_FIRST_SCHEMA,
    TASK_FIXED,
    AttemptRow,
    LeaseRow,
    Raw,
    TaskRow,
    attempt_values,
    lease_values,
    task_sealed,
    task_values,
)
from broker.stores.seal import RowSeal
from broker.stores.trail import Trail
from broker.stores.view import Parameters, View


@dataclass(frozen=True, slots=True)
class CommitAndRaise:
    """What an operation returns when its writes must stay although its caller is refused."""

    error: BrokerError


class Transaction(View):
    """A view that can write: the statements and the audit trail of one write transaction."""

    def __init__(
        self, connection: Connection, dialect: Dialect, seal: RowSeal, trail: Trail, *, keeps_texts: bool
    ) -> None:
        super().__init__(connection, dialect, seal)
        self.images: Images = Images()
        self._trail = trail
        # Whether agents' whole texts are kept beside their digests; see text_ops.py.
        self.keeps_texts = keeps_texts
        # Set for the second run of a batch in which something failed; see shielded().
        self.careful = False
        # Attempts whose postponement could not be written, with the time (ms) until which they rest.
        self.resting: dict[tuple[str, str], int] = {}
        # Who was the first of two people to lift a suspension (tenant, id) whose row fails its MAC.
        self.first_lifts: dict[tuple[str, str], Lifting] = {}
        # (tenant, id) of leases whose credentials this operation has ended, with the time (ms); see subtree_ops.py.
        self.ended: dict[tuple[str, str], int] = {}
        self._remembering = False
        # By which name others know whose work something is; None where there are no others.
        self.at_work: str | None = None

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """What is claimed inside will be asked for again in a moment, when its revocation was tried."""
        self._remembering = True
        try:
            yield
        finally:
            self._remembering = False

    def shielded(self, act: Callable[[], bool]) -> bool:
        """Do ``act`` for one row of many; False, and undone, where that one row cannot be written.

        A flipped byte in an index entry makes a database refuse every change of that row: the others must go on. On the
        first run of a batch nothing is shielded, so that the usual case pays nothing.
        """
        if not self.careful:
            return act()
        mark = self._trail.mark()
        self.connection.execute("SAVEPOINT one_row")
        try:
            return act()
        except (self.dialect.errors, *GARBLED) as error:
            if not self.dialect.spoils_one_row(error):
                raise
            self.connection.execute("ROLLBACK TO one_row")
            self.images.forget()
            self._trail.rewind(mark)
            return False
        finally:
            if self.connection.in_transaction:
                self.connection.execute("RELEASE one_row")

    def run(self, query: str, parameters: Parameters) -> int:
        """Write; how many rows were changed."""
        self._may_be_news(query)
        return self.connection.execute(self.sql[query], parameters).rowcount

    def write(self, query: str, values: Parameters) -> None:
        """Write; nobody asks how many rows were changed, so that it can wait for others."""
        self._may_be_news(query)
        self.connection.execute(self.sql[query], values)

    def _may_be_news(self, query: str) -> None:
        if query in _SUSPENDING:
            self.images.news.clear()

    def audit(self, event: AuditEvent, now_ms: int) -> int:
        """Record an event in this transaction; its sequence number."""
        return self._trail.append(event, now_ms)

    @property
    def next_audit_seq(self) -> int:
        """The sequence number of the next event."""
        return self._trail.next_seq

    # Writing a row: positional parameters, in the order of the column lists. An untrusted row keeps the
    # MAC that it fails (an all-zero one), so that what somebody else wrote never comes out as ours.

    def insert_task(self, row: TaskRow) -> None:
        """Add a task."""
        values = task_values(row)
        self.connection.execute(self.sql["insert_task"], (*values, *self.seal.make("tasks", task_sealed(values))))
        keep(self.images.tasks, (row.tenant, row.id), values)

    def update_task(self, row: TaskRow) -> bool:
        """Store what may change of an open task; False if it is not open in the database."""
        values = task_values(row)
        mac = self._mac("tasks", task_sealed(values), row.trusted)
        parameters = (*values[TASK_FIXED:TASK_FIRST_SCHEMA], *mac, row.tenant, row.id)
        changed = self.connection.execute(self.sql["update_task"], parameters).rowcount == 1
        self._imagine(self.images.tasks, row, values, changed and row.state == TaskState.OPEN)
        return changed

    def insert_lease(self, row: LeaseRow) -> None:
        """Add a lease."""
        values = lease_values(row)
        self.connection.execute(self.sql["insert_lease"], (*values, *self.seal.make("leases", values)))
        keep(self.images.leases, (row.tenant, row.id), values)
        self.images.opened(row.tenant, row.holder, row.task_id, row.request_id)

    def update_lease(self, row: LeaseRow) -> None:
        """Store what may change of a lease."""
        values = lease_values(row)
        key = (*self._mac("leases", values, row.trusted), row.tenant, row.id)
        if row.ended_at is None:
            living = (*values[LEASE_FIXED:LEASE_ENDED_AT], *values[LEASE_ENDED_AT + 1 :])
            changed = self.connection.execute(self.sql["update_lease"], (*living, *key)).rowcount == 1
        else:
            changed = self.connection.execute(self.sql["end_lease"], (*values[LEASE_FIXED:], *key)).rowcount == 1
        self._imagine(self.images.leases, row, values, changed and self._awaited(row))

    def insert_attempt(self, row: AttemptRow) -> None:
        """Add an attempt."""
        values = attempt_values(row)
        written = (*values, *self.seal.make("attempts", values), self.at_work)
        self.connection.execute(self.sql["insert_attempt"], written)
        keep(self.images.attempts, (row.tenant, row.id), values)

    def update_attempt(self, row: AttemptRow) -> bool:
        """Store what may change of an attempt, if its epoch is still the one that was read."""
        values = attempt_values(row)
        held_by = self.at_work if self._awaited(row) else None
        key = (*self._mac("attempts", values, row.trusted), held_by, row.tenant, row.id, row.seen_epoch)
        if row.state == State.ISSUING or row.state == State.ACTIVE:
            changed = self.connection.execute(self.sql["update_attempt"], (*values[ATTEMPT_FIXED:], *key)).rowcount == 1
        else:
            ending = (*values[ATTEMPT_STATE:ATTEMPT_ACTIVATED], *values[ATTEMPT_DUE:])
            changed = self.connection.execute(self.sql["end_attempt"], (*ending, *key)).rowcount == 1
        self._imagine(self.images.attempts, row, values, changed and self._awaited(row))
        return changed

    def _awaited(self, row: LeaseRow | AttemptRow) -> bool:
        return row.state == State.ISSUING or (self._remembering and row.state == State.REVOKING)

    def quarantine_attempt(self, tenant: str, attempt_id: str, parameters: Mapping[str, Any]) -> None:
        """Store what the revocation of an attempt needs whose row fails its MAC, and leave the MAC wrong."""
        self.images.attempts.pop((tenant, attempt_id), None)
        self.run("quarantine_attempt", {**parameters, "tenant": tenant, "id": attempt_id})

    def _imagine(self, images: dict[Key, Raw], row: TaskRow | LeaseRow | AttemptRow, values: Raw, wanted: bool) -> None:
        """Keep the image of a row that will be asked for again; else there must be none."""
        if wanted and row.trusted:
            keep(images, (row.tenant, row.id), values)
        else:
            images.pop((row.tenant, row.id), None)

    def _mac(self, table: str, values: Raw, trusted: bool) -> tuple[bytes, str]:
        if not trusted:
            return _NO_MAC, self.seal.keys.current()[0]
        return self.seal.make(table, values)


_NO_MAC = bytes(32)
# What changes the answer of ``intent_news``, beside a lease that is opened (Images.opened).
_SUSPENDS = re.compile(r"(?:INTO|UPDATE|DELETE FROM) suspensions\b")
_SUSPENDING = frozenset(name for name, text in SQL.items() if _SUSPENDS.search(text))
