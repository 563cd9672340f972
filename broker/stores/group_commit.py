"""Group commit: many callers' operations, one durable transaction.

A writer thread takes what has gathered (at most :data:`MOST`), runs it inside one BEGIN
... COMMIT, and answers all callers at once. While it waits for the disk the next batch gathers, so the
cost of a sync is shared by as many callers as there are, and nobody waits for a timer. A batch is handed
over whole: waking a thread, and taking the interpreter from the event loop, costs more than an operation.

Where the database is a way off, a batch also takes what arrives while its BEGIN waits for other writers: so that
many writers, each of which waits for all others, have as large batches as one alone. What its operations are known to
ask is asked for all at once (:mod:`broker.stores.read_ahead`).

At each BEGIN the writer learns whether somebody else has written since (:mod:`broker.stores.database`): then what it
remembers of rows is forgotten, and the head of the audit chain is read again.

An operation that is refused undoes itself alone. Nearly every refusal is decided before anything is
written, and then there is nothing to undo. Where an operation fails *after* it has written, the batch
is rolled back and run again with a SAVEPOINT around each operation: exact, and free for everybody else.
"""

from __future__ import annotations

import asyncio
import copy
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import structlog

from broker.errors import BrokerError, Defect, Reason, Tampered
from broker.stores import read_ahead
from broker.stores.database import GARBLED, NotAsTaken, Writing, closed
from broker.stores.read_ahead import Ahead
from broker.stores.subtree_ops import carried_out
from broker.stores.trail import Trail
from broker.stores.transaction import CommitAndRaise, OneByOne, Transaction

log = structlog.get_logger("broker.ledger")

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
    ahead: Ahead | None  # what it is known to ask
    value: Any = None
    error: BaseException | None = None


class _WroteAndFailed(Exception):
    """An operation failed after its first write, or in the database: the batch is run again, with savepoints."""


class GroupCommit:
    """The one writer of this process. Owns its connection from start to close."""

    def __init__(
        self,
        writing: Writing,
        transaction: Transaction,
        trail: Trail,
        on_commit: Callable[[int], None],
    ) -> None:
        """``on_commit`` is called on the event loop with the audit head after each batch."""
        self._writing = writing
        self._errors = writing.dialect.errors
        self._transaction = transaction
        self._trail = trail
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        # Filled by the event loop; emptied by it, too, while no batch is being written, else by the writer thread.
        self._waiting: deque[Job] = deque()
        # Why nothing is written from then on: the trail in the database is not one with ours any more, or its schema is
        # not for this release.
        self.lost: asyncio.Future[BrokerError] = self._loop.create_future()
        self._idle = asyncio.Event()  # no batch is being gathered or written
        self._idle.set()
        self._handed_over: float | None = None  # loop's time; None: no batch is being written
        self._wrote = False  # the last transaction, anything
        self._failure = ""  # what the last batch came to nothing by
        self._failing: float | None = None  # since when, by the loop's time, no batch has been committed that should be
        self._batches: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._start()

    async def submit(self, operation: Operation[T], ahead: Ahead | None = None) -> T:
        """Run ``operation`` in the next transaction; returns, or raises, after its COMMIT.

        ``ahead``: what it will ask, as far as that is known; it may be asked for the whole batch at once.

        Cancelling the caller does not take the operation back: it may be committed already.
        """
        if self._closing:
            raise closed()
        job = Job(operation, self._loop.create_future(), ahead)
        self._waiting.append(job)
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_soon(self._gather, 0, PATIENCE)
        return cast(T, await job.future)

    @property
    def unanswered(self) -> float:
        """For how long (seconds) the batch that is being written has been; 0 where none is."""
        return 0.0 if self._handed_over is None else self._loop.time() - self._handed_over

    @property
    def failing(self) -> tuple[float, str]:
        """For how long (seconds) every batch has come to nothing, and by what; 0 where the last one was committed."""
        return (0.0, "") if self._failing is None else (self._loop.time() - self._failing, self._failure)

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
        batch: list[Job] = []
        self._fill(batch)
        self._handed_over = self._loop.time()
        self._hand_over(batch)

    def _fill(self, batch: list[Job]) -> None:
        while self._waiting and len(batch) < MOST:
            batch.append(self._waiting.popleft())

    # What is done by a thread is begun here, for whoever simulates time.

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def _hand_over(self, batch: list[Job]) -> None:
        self._batches.put(batch)

    # ------------------------------------------------------------------ on the writer thread

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._commit(batch)
            except Exception as bug:
                log.exception("a batch of the ledger's writer failed by a bug; nothing of it was committed")
                self._survive(batch, bug)
            self._loop.call_soon_threadsafe(self._answer, batch, self._trail.committed_seq)

    def _survive(self, batch: list[Job], bug: Exception) -> None:
        """A bug ends a batch, and not the thread: nothing would ever be revoked again."""
        self._roll_back()
        for job in batch:
            job.value = None
            job.error = Defect(Reason.INTERNAL, f"the ledger's writer failed ({type(bug).__name__}).")

    def _commit(self, batch: list[Job]) -> None:
        while not self._ended(batch):
            pass

    def _ended(self, batch: list[Job]) -> bool:
        """Run it; False where it failed for want of space, and room was made: then it is to be run again."""
        try:
            try:
                self._transact(batch, self._bare)
            except (_WroteAndFailed, NotAsTaken):
                self._roll_back()
                self._transaction.careful = self._writing.at_once = True
                try:
                    self._transact(batch, self._guarded)
                finally:
                    self._transaction.careful = self._writing.at_once = False
        except (self._errors, BrokerError) as error:
            self._roll_back()
            if self._writing.make_room(error):
                return False
            for job in batch:
                job.value, job.error = None, self._ended_by(error)
            self._failure = self._ended_by(error).message
        else:
            if self._wrote:  # a disk that takes nothing lets those through who only look
                self._failure = ""
        return True

    def _ended_by(self, error: Exception) -> BrokerError:
        """What one caller of a batch is told that came to nothing: an object of its own."""
        if isinstance(error, BrokerError):
            return copy.copy(error)
        return self._writing.dialect.unavailable(error)

    def _transact(self, batch: list[Job], run: Callable[[Job], None]) -> None:
        try:
            if self._writing.begin():
                self._look_anew()
        except Tampered as other:
            self._loop.call_soon_threadsafe(self._lose, other)
            raise
        if self._writing.far and not self._writing.at_once:
            self._fill(batch)  # whoever came while others were waited for
            read_ahead.read(self._transaction, self._writing.ask, [job.ahead for job in batch if job.ahead])
        changes = self._transaction.connection.total_changes
        for job in batch:
            job.value = job.error = None
            run(job)
        self._trail.flush(self._transaction)
        self._wrote = self._transaction.connection.total_changes != changes
        self._writing.commit()
        self._trail.committed()

    def _look_anew(self) -> None:
        """Somebody else may have written.

        Raises Tampered: AUDIT_CHAIN_BROKEN where the trail is not one with ours, ROW_MAC_MISMATCH where it goes on
        under a key that is not at hand.
        """
        self._transaction.connection = self._writing.connection
        self._transaction.images.others_wrote()
        self._trail.resume(self._transaction)

    def _bare(self, job: Job) -> None:
        connection = self._transaction.connection
        mark, changes = self._trail.mark(), connection.total_changes
        try:
            job.value = carried_out(self._transaction, job.operation)
        except Exception as error:
            wrote = connection.total_changes != changes or not connection.in_transaction
            if wrote or isinstance(error, (self._errors, *GARBLED, OneByOne)):
                raise _WroteAndFailed from error
            self._trail.rewind(mark)
            job.error = error

    def _guarded(self, job: Job) -> None:
        mark, connection = self._trail.mark(), self._transaction.connection
        connection.execute("SAVEPOINT operation")
        try:
            job.value = carried_out(self._transaction, job.operation)
        except Exception as error:
            # A full disk can end the whole transaction (SQLite rolls back by itself): then all must fail. So it ends
            # where room can be made, and all of it is run again.
            if self._writing.short_of_room(error) or self._writing.dialect.refuses_everybody(error):
                raise
            if not connection.in_transaction:
                raise self._errors("the transaction ended by itself") from error
            connection.execute("ROLLBACK TO operation")
            self._transaction.images.forget()
            self._trail.rewind(mark)
            job.error = self._told(error)
        connection.execute("RELEASE operation")

    def _roll_back(self) -> None:
        self._trail.rolled_back()
        self._transaction.images.forget()
        self._writing.roll_back()

    def _told(self, error: Exception) -> Exception:
        return self._writing.dialect.told(error) if isinstance(error, (self._errors, *GARBLED)) else error

    # ------------------------------------------------------------------ on the event loop

    def _lose(self, why: Tampered) -> None:
        if not self.lost.done():
            self.lost.set_result(copy.copy(why))

    def _answer(self, batch: list[Job], head: int) -> None:
        self._handed_over = None
        self._failing = None if not self._failure else self._loop.time() if self._failing is None else self._failing
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
