"""Group commit: many callers' operations, one durable transaction.

A writer thread takes what has gathered (at most :data:`MOST`), runs it inside one BEGIN IMMEDIATE
... COMMIT, and answers all callers at once. While it waits for the disk the next batch gathers, so the
cost of a sync is shared by as many callers as there are, and nobody waits for a timer. A batch is handed
over whole: waking a thread, and taking the interpreter from the event loop, costs more than an operation.

An operation that is refused undoes itself alone. Nearly every refusal is decided before anything is
written, and then there is nothing to undo. Where an operation fails *after* it has written, the batch
is rolled back and run again with a SAVEPOINT around each operation: exact, and free for everybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from broker.errors import BrokerError, Defect, NotReady, Reason
from broker.stores.subtree_ops import carried_out
from broker.stores.trail import Trail
from broker.stores.transaction import CommitAndRaise, Transaction

# Operations in one transaction: bounds how long one caller can wait for others' statements.
MOST = 256
# Turns of the event loop for which a batch is held back while others still join it. Who was just answered
# is often back with the next operation within a few turns, and alone it would take a sync of its own.
PATIENCE = 4

T = TypeVar("T")
Operation = Callable[[Transaction], T | CommitAndRaise]


@dataclass(slots=True)
class Job:
    """One queued operation, and then its outcome."""

    operation: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class _WroteAndFailed(Exception):
    """An operation failed after its first write, or in the database: the batch is run again, with savepoints."""


class GroupCommit:
    """The one writer of a ledger. Owns its connection from start to close."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        transaction: Transaction,
        trail: Trail,
        on_commit: Callable[[int], None],
    ) -> None:
        """``on_commit`` is called on the event loop with the audit head after each batch."""
        self._connection = connection
        self._transaction = transaction
        self._trail = trail
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Job] = []
        self._idle = asyncio.Event()  # no batch is being gathered or written
        self._idle.set()
        self._batches: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._start()

    async def submit(self, operation: Operation[T]) -> T:
        """Run ``operation`` in the next transaction; returns, or raises, after its COMMIT.

        Cancelling the caller does not take the operation back: it may be committed already.
        """
        if self._closing:
            raise closed()
        job = Job(operation, self._loop.create_future())
        self._waiting.append(job)
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_soon(self._gather, 0, PATIENCE)
        return cast(T, await job.future)

    async def close(self) -> None:
        """Commit what is queued, then end the thread. Later operations are refused."""
        if not self._closing:
            self._closing = True
            await self._idle.wait()
            self._batches.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _gather(self, seen: int, patience: int) -> None:
        """Hand a batch over once nobody joined it during a turn of the loop, it is full, or patience is at its end."""
        if patience and seen < len(self._waiting) < MOST:
            self._loop.call_soon(self._gather, len(self._waiting), patience - 1)
            return
        batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        self._hand_over(batch)

    # What is done by a thread is begun here, for whoever simulates time.

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def _hand_over(self, batch: list[Job]) -> None:
        self._batches.put(batch)

    # ------------------------------------------------------------------ on the writer thread

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            self._commit(batch)
            self._loop.call_soon_threadsafe(self._answer, batch, self._trail.committed_seq)

    def _commit(self, batch: list[Job]) -> None:
        try:
            try:
                self._transact(batch, self._bare)
            except _WroteAndFailed:
                self._roll_back()
                self._transaction.careful = True
                try:
                    self._transact(batch, self._guarded)
                finally:
                    self._transaction.careful = False
        except sqlite3.Error as error:
            self._roll_back()
            for job in batch:
                job.value, job.error = None, unavailable(error)

    def _transact(self, batch: list[Job], run: Callable[[Job], None]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._transaction.images.begin(self._connection)
        for job in batch:
            job.value = job.error = None
            run(job)
        self._trail.flush(self._connection)
        self._connection.execute("COMMIT")
        self._trail.committed()

    def _bare(self, job: Job) -> None:
        mark, changes = self._trail.mark(), self._connection.total_changes
        try:
            job.value = carried_out(self._transaction, job.operation)
        except Exception as error:
            wrote = self._connection.total_changes != changes or not self._connection.in_transaction
            if wrote or isinstance(error, sqlite3.DatabaseError):
                raise _WroteAndFailed from error
            self._trail.rewind(mark)
            job.error = _explained(error)

    def _guarded(self, job: Job) -> None:
        mark = self._trail.mark()
        self._connection.execute("SAVEPOINT operation")
        try:
            job.value = carried_out(self._transaction, job.operation)
        except Exception as error:
            # A full disk can end the whole transaction (SQLite rolls back by itself): then all must fail.
            if not self._connection.in_transaction:
                raise sqlite3.OperationalError("the transaction ended by itself") from error
            self._connection.execute("ROLLBACK TO operation")
            self._transaction.images.forget()
            self._trail.rewind(mark)
            job.error = _explained(error)
        self._connection.execute("RELEASE operation")

    def _roll_back(self) -> None:
        self._trail.rolled_back()
        self._transaction.images.forget()
        # A ROLLBACK that fails leaves no way to a COMMIT: every later BEGIN fails, and so does its batch.
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    # ------------------------------------------------------------------ on the event loop

    def _answer(self, batch: list[Job], head: int) -> None:
        for job in batch:
            if job.future.done():  # its caller was cancelled
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            elif isinstance(job.value, CommitAndRaise):
                job.future.set_exception(job.value.error)
            else:
                job.future.set_result(job.value)
        self._on_commit(head)
        if self._waiting:
            self._loop.call_soon(self._gather, 0, PATIENCE)
        else:
            self._idle.set()


def _explained(error: Exception) -> Exception:
    if isinstance(error, BrokerError) or not isinstance(error, sqlite3.Error):
        return error
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return Defect(Reason.INTERNAL, f"the ledger's schema refused a write ({error.sqlite_errorname}).")
    return unavailable(error)


def closed() -> NotReady:
    """What is asked of a ledger after its close."""
    return NotReady(Reason.SHUTTING_DOWN, "the ledger is closed.", hint="Ask again after the restart.")


def unavailable(error: sqlite3.Error) -> NotReady:
    """A failure of the database as the port tells it."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return NotReady(
        Reason.STORE_UNAVAILABLE,
        f"the ledger cannot be used ({name}): nothing was committed.",
        hint="Nothing was granted by this call. Look at the disk of the ledger's directory.",
        metadata={"cause": name},
    )
