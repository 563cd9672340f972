"""One operation's view of the open write transaction: statements by name, sealed rows, audit events.

Synchronous and short-lived. It runs on the writer alone; what it reads includes what earlier
operations of the same batch wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from broker.audit.event import AuditEvent
from broker.errors import BrokerError
from broker.lease.machine import State
from broker.ports.suspensions import Lifting
from broker.ports.tasks import TaskState
from broker.stores.database import GARBLED, Connection, Dialect
from broker.stores.images import Images, keep
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

T = TypeVar("T")

_ISSUING, _ACTIVE, _REVOKING = State.ISSUING.value, State.ACTIVE.value, State.REVOKING.value


class OneByOne(Exception):
    """Not every row was there that was to be changed together with others: the batch has to be run again, carefully."""


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
        # Changes of rows that go to the database together, by statement; see each().
        self._together = False
        self._changes: dict[str, list[Raw]] = {}

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """What is claimed inside will be asked for again in a moment, when its revocation was tried."""
        self._remembering = True
        try:
            yield
        finally:
            self._remembering = False

    def each(self, act: Callable[[T], bool], items: Iterable[T]) -> list[bool]:
        """Do ``act`` for each of many; what it came to, and False, undone, where that one row cannot be written.

        What is changed of leases and attempts goes to the database in as few statements as there are kinds, at the end,
        or before anything is read. That each row was there is seen there alone: if one was not, or the database refuses
        one, all is run again, one by one, and only then is each shielded: the usual case pays nothing.
        """
        if self.careful:
            return [self._shielded(partial(act, item)) for item in items]
        if self._together:
            return [act(item) for item in items]
        self._together = True
        try:
            done = [act(item) for item in items]
            self._write_changes()
        except BaseException:
            self._changes.clear()
            self.images.forget()
            raise
        finally:
            self._together = False
        return done

    def _shielded(self, act: Callable[[], bool]) -> bool:
        """A flipped byte in an index entry makes a database refuse every change of a row: the others must go on."""
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

    def _change(self, query: str, parameters: Raw) -> bool:
        """Change one row, now or with others; whether it was there, as far as is known yet."""
        if not self._together:
            return self.connection.execute(self.sql[query], parameters).rowcount == 1
        if query in self._changes:
            self._changes[query].append(parameters)
        else:
            self._changes[query] = [parameters]
        return True

    def _write_changes(self) -> None:
        """Whatever waits to go to the database together. Raises OneByOne."""
        changes, self._changes = self._changes, {}
        for query, rows in changes.items():
            if self.connection.executemany(self.sql[query], rows).rowcount != len(rows):
                raise OneByOne

    # What is read is what was said before.

    def one(self, query: str, parameters: Parameters) -> Raw | None:
        """See View.one."""
        if self._changes:
            self._write_changes()
        return super().one(query, parameters)

    def row(self, query: str, parameters: Parameters) -> Raw:
        """See View.row."""
        if self._changes:
            self._write_changes()
        return super().row(query, parameters)

    def made(self, query: str, parameters: Parameters, make: Callable[[Raw], T]) -> list[T]:
        """See View.made."""
        if self._changes:
            self._write_changes()
        return super().made(query, parameters, make)

    def all(self, query: str, parameters: Parameters) -> list[Raw]:
        """See View.all."""
        if self._changes:
            self._write_changes()
        return super().all(query, parameters)

    def run(self, query: str, parameters: Parameters) -> int:
        """Write; how many rows were changed."""
        self._may_be_news(query)
        if self._changes:
            self._write_changes()
        return self.connection.execute(self.sql[query], parameters).rowcount

    def write(self, query: str, values: Parameters) -> None:
        """Write; nobody asks how many rows were changed, so that it can wait for others."""
        self._may_be_news(query)
        self.connection.execute(self.sql[query], values)

    def _may_be_news(self, query: str) -> None:
        if query in _STOPPING:
            self.images.news.clear()

    def saw(self, now_ms: int) -> None:
        """What is written follows from this time, and no event says so: after a restart it is not earlier."""
        self._trail.saw(now_ms)

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
        values, key = task_values(row), (row.tenant, row.id)
        mac = self.seal.make("tasks", task_sealed(values)) if row.trusted else self._no_mac()
        parameters = (*values[TASK_FIXED:TASK_FIRST_SCHEMA], *mac, *key)
        changed = self.connection.execute(self.sql["update_task"], parameters).rowcount == 1
        if changed and row.trusted and row.state == TaskState.OPEN:
            keep(self.images.tasks, key, values)
        else:
            self.images.tasks.pop(key, None)
        return changed

    def insert_lease(self, row: LeaseRow) -> None:
        """Add a lease."""
        values = lease_values(row)
        self.connection.execute(self.sql["insert_lease"], (*values, *self.seal.make("leases", values)))
        keep(self.images.leases, (row.tenant, row.id), values)
        self.images.opened(row.tenant, row.holder, row.task_id, row.request_id)

    def update_lease(self, row: LeaseRow) -> None:
        """Store what may change of a lease."""
        values, key = lease_values(row), (row.tenant, row.id)
        mac = self.seal.make("leases", values) if row.trusted else self._no_mac()
        if row.ended_at is None:
            living = (*values[LEASE_FIXED:LEASE_ENDED_AT], *values[LEASE_ENDED_AT + 1 :], *mac, *key)
            changed = self._change("update_lease", living)
        else:
            changed = self._change("end_lease", (*values[LEASE_FIXED:], *mac, *key))
        if changed and row.trusted and (row.state == _ISSUING or (self._remembering and row.state == _REVOKING)):
            keep(self.images.leases, key, values)
        else:
            self.images.leases.pop(key, None)

    def insert_attempt(self, row: AttemptRow) -> None:
        """Add an attempt."""
        values = attempt_values(row)
        written = (*values, *self.seal.make("attempts", values), self.at_work)
        self.connection.execute(self.sql["insert_attempt"], written)
        keep(self.images.attempts, (row.tenant, row.id), values)

    def update_attempt(self, row: AttemptRow, *, noted: bool = False) -> bool:
        """Store what may change of an attempt, if its epoch is still the one that was read.

        ``noted``: its handle, too, although it is being ended.
        """
        values, key = attempt_values(row), (row.tenant, row.id)
        mac = self.seal.make("attempts", values) if row.trusted else self._no_mac()
        awaited = row.state == _ISSUING or (self._remembering and row.state == _REVOKING)
        rest = (*mac, self.at_work if awaited else None, *key, row.seen_epoch)
        if noted or row.state == _ISSUING or row.state == _ACTIVE:
            changed = self._change("update_attempt", (*values[ATTEMPT_FIXED:], *rest))
        else:
            ending = (*values[ATTEMPT_STATE:ATTEMPT_ACTIVATED], *values[ATTEMPT_DUE:], *rest)
            changed = self._change("end_attempt", ending)
        if changed and row.trusted and awaited:
            keep(self.images.attempts, key, values)
        else:
            self.images.attempts.pop(key, None)
        return changed

    def quarantine_attempt(self, tenant: str, attempt_id: str, parameters: Mapping[str, Any]) -> None:
        """Store what the revocation of an attempt needs whose row fails its MAC, and leave the MAC wrong."""
        self.images.attempts.pop((tenant, attempt_id), None)
        self.run("quarantine_attempt", {**parameters, "tenant": tenant, "id": attempt_id})

    def _no_mac(self) -> tuple[bytes, str]:
        return _NO_MAC, self.seal.keys.current()[0]


_NO_MAC = bytes(32)
# What changes the answer of ``intent_news``, beside a lease that is opened (Images.opened).
_STOPS = re.compile(r"(?:INTO|UPDATE|DELETE FROM) (?:suspensions|recoveries)\b")
_STOPPING = frozenset(name for name, text in SQL.items() if _STOPS.search(text))
